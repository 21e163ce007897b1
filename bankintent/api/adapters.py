"""Many LoRA adapters on one base in this process: swapped by their names, the base loaded once."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bankintent.api.model import Model
from bankintent.errors import ConfigError

if TYPE_CHECKING:
    from bankintent.inference.adapters.tenants import AdapterBase


def load_adapters(
    base: str | os.PathLike[str],
    adapters: Mapping[str, str | os.PathLike[str]],
    threads: int | None = None,
) -> "Adapters":
    """Load one base, and the adapters of several bundles on it.

    `base` is a bundle that was trained with LoRA, whose base is loaded once in PyTorch, or what
    `bankintent share` has made of one, which needs no PyTorch. `adapters` are names and bundles
    that were trained on the same base; they bring their adapters, heads and policies. `threads` is
    how many threads compute; by default one for each core that the process may use.

    Raises UserError where there is no such bundle, a file of it was changed, or its adapter cannot
    be computed on that base.
    """
    from bankintent.distribution import naming_missing_packages

    with naming_missing_packages("serve"):
        from bankintent.inference.adapters.tenants import open_base

        loaded = Adapters(open_base(Path(base), threads))
    for name, path in adapters.items():
        loaded.add(name, path)
    return loaded


class Adapters(Mapping[str, Model]):
    """Models by name that share one base: `adapters["cards"].predict([...])`.

    Each is a `Model` as `load` gives one, and answers as the bundle by itself, within 1e-4 of its
    logits. Any number of threads may use them at once, also while others are added or removed.
    """

    def __init__(self, base: "AdapterBase") -> None:
        self._base = base
        self._models: dict[str, Model] = {}

    def add(self, name: str, path: str | os.PathLike[str]) -> Model:
        """Load the adapter of a bundle under a name, in the place of the one that has it.

        Raises UserError as `load_adapters` does; then nothing has changed.
        """
        if not name:
            raise ConfigError("an adapter needs a name", "Give it one")
        model = Model(self._base.load(Path(path)))
        self._models[name] = model
        return model

    def remove(self, name: str) -> None:
        """Forget an adapter; who has its model may still use it. KeyError for an unknown name."""
        del self._models[name]

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._models))

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"<Adapters on one base: {', '.join(self._models) or 'none'}>"
