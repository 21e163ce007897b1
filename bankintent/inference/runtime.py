"""A loaded model behind one face, whatever computes it: texts to tokens, tokens to logits, and what is known of it.

Nothing here imports torch, transformers or pandas; a runtime that needs them imports them when it is chosen.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent import cli, files
from bankintent.bundle.layout import Checkpoint, open_checkpoint
from bankintent.config import RuntimeName
from bankintent.errors import ModelError

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What `/info` says of the model."""

    name: str
    version: str
    labels: tuple[str, ...]
    labels_hash: str
    backbone: str
    parameters: int
    max_length: int
    runtime: str
    folder: Path
    """Where the model card is; not shown."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokenizer's output for one text; its length is in tokens."""

    features: dict[str, list[int]]
    truncated: bool

    def __len__(self) -> int:
        return len(self.features["input_ids"])


class Runtime(Protocol):
    """A loaded model. Each item's logits do not depend on the items beside it (to 1e-4)."""

    facts: ModelFacts

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, cut to the model's longest input."""
        ...

    def logits(self, items: list[Tokens]) -> Logits:
        """(items, labels) float32; `items` are padded to the longest of them and masked, and are at least one."""
        ...


def find(path: Path, name: RuntimeName = "auto", threads: int | None = None) -> Callable[[], Runtime]:
    """Find and verify the model at a path, and give what loads it with the named runtime.

    `threads` defaults to the cores of this process. Raises a UserError where there is no such model or runtime.
    """
    try:
        checkpoint = open_checkpoint(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})", "Check its owner and mode") from None

    def load() -> Runtime:
        cli.quiet_libraries()
        from bankintent.inference.torch_runtime import TorchRuntime

        return TorchRuntime(checkpoint, threads or cores())

    return load


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(checkpoint: Checkpoint) -> str:
    """Twelve hex digits that change with the served files: the same for a bundle and its merged/."""
    root = checkpoint.root
    folders = [folder for folder in (checkpoint.model, checkpoint.adapter) if folder is not None]
    names = [f"{folder}/{name}" for folder in folders for name in files.list_files(folder)]
    recorded = {
        str(root / name): entry["sha256"] for name, entry in (checkpoint.manifest or {}).get("files", {}).items()
    }
    digests = [f"{Path(name).name} {recorded.get(name) or files.sha256(Path(name))}" for name in names]
    return files.sha256_text("\n".join(digests))[:12]
