"""Shared bases from `inference/adapters`, and the bundles that are served from them."""

from collections.abc import Callable
from pathlib import Path

from bankintent.bundle import layout
from bankintent.config import ServeConfig
from bankintent.inference.adapters.reading import Unsuited
from bankintent.inference.adapters.tenants import AdapterBase, open_base
from bankintent.inference.runtime import Runtime, SharedBase


class AdapterBases:
    """Bases of LoRA adapters."""

    def open(self, settings: ServeConfig) -> SharedBase:
        """Load the base that the settings name. Raises a UserError where it cannot be."""
        assert settings.base is not None
        return open_base(settings.base, settings.threads)

    def find(self, path: Path, base: SharedBase) -> Callable[[], Runtime] | None:
        """Load the bundle at a path on the base; None of one that cannot be computed there.

        Raises a UserError where it is damaged.
        """
        assert isinstance(base, AdapterBase)
        if not (path / layout.ADAPTER).is_dir():
            return None
        try:
            tenant = base.load(path)
        except Unsuited:
            return None
        return lambda: tenant
