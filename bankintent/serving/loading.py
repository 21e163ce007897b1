"""Loads the version of a model that is on disk, on a shared base where it belongs to one."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bankintent.config import ServeConfig
from bankintent.errors import ModelError
from bankintent.inference.runtime import Runtime, SharedBase, TenantRuntime
from bankintent.serving import memory
from bankintent.serving.batching import Batch
from bankintent.serving.entries import Entry, Loaded
from bankintent.serving.metrics import Metrics
from bankintent.serving.served import Finder
from bankintent.serving.service import Queue, Service
from bankintent.serving.shared_queue import BaseQueue
from bankintent.serving.watching import Stamp, stamp_of

BASE = "(base)"
"""The value of the label `model` for the batches of a shared base: no model can have this name."""

ATTEMPTS = 3
"""Times that a model is loaded whose files change meanwhile."""


class Bases(Protocol):
    """Shared bases, and the models that are served from them."""

    def open(self, settings: ServeConfig) -> SharedBase:
        """Load the base that the settings name. Raises a UserError where it cannot be."""
        ...

    def find(self, path: Path, base: SharedBase) -> Callable[[], Runtime] | None:
        """Verify the bundle at a path, and return what loads it on the base.

        None where it was not trained on this base. Raises a UserError where it is damaged.
        """
        ...


class Loader:
    """Loads one model at a time, and measures what memory it takes."""

    def __init__(self, settings: ServeConfig, metrics: Metrics, find: Finder, bases: Bases) -> None:
        self._settings = settings
        self._metrics = metrics
        self._find = find
        self._bases = bases
        self._base: SharedBase | None = None
        self._queue: BaseQueue | None = None
        self.base_memory = 0
        """Bytes of the shared base."""

    async def open_base(self) -> None:
        """Load the shared base, where the settings name one. Raises a UserError."""
        if self._settings.base is None:
            return

        before = memory.resident()
        self._base = await asyncio.to_thread(self._bases.open, self._settings)
        self.base_memory = max(0, memory.resident() - before)
        self._queue = BaseQueue(self._base, self._settings.batching, self._observe_batch)

    def _observe_batch(self, batch: Batch) -> None:
        self._metrics.observe_batch(batch, BASE)

    async def load(self, entry: Entry) -> tuple[Loaded, Stamp]:
        """The version of a model that is on disk, and the stamp of its files.

        Raises a UserError, or another error, where it cannot be served. A model whose files change
        while it is loaded is loaded again.
        """
        path = entry.place.section.model_dir
        for _ in range(ATTEMPTS):
            before = await asyncio.to_thread(stamp_of, path)
            loaded = await self._load_once(entry)
            if await asyncio.to_thread(stamp_of, path) == before:
                return loaded, before
            await loaded.service.close()
        raise ModelError("its files change while it is loaded", "Wait until they are written")

    async def _load_once(self, entry: Entry) -> Loaded:
        # A model on a shared base is loaded when it is found.
        before = memory.resident()
        load = await asyncio.to_thread(self._find_load, entry.settings)

        metrics = self._metrics.of(entry.name)
        service = Service(entry.settings, metrics, entry.name, self._share)
        try:
            await service.start(load)
        except BaseException:
            await service.close()
            raise

        # Reading its files leaves holes, which for many small models are as large as the models.
        await asyncio.to_thread(memory.trim)
        # A model may take the place of what was freed: then the process grows less than by it.
        grown = memory.resident() - before
        return Loaded(entry.name, service, max(grown, entry.memory, 0))

    def _find_load(self, settings: ServeConfig) -> Callable[[], Runtime]:
        """Find and verify a model; called in a thread."""
        if self._base is not None:
            assert settings.model_dir is not None
            load = self._bases.find(settings.model_dir, self._base)
            if load is not None:
                return load
        return self._find(settings)

    def _share(self, runtime: TenantRuntime, settings: ServeConfig) -> Queue:
        assert self._queue is not None
        return self._queue.lane(runtime, settings.limits.max_queue)

    async def close(self) -> None:
        """End the threads of the shared base."""
        if self._queue is not None:
            await asyncio.to_thread(self._queue.close)
