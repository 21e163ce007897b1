"""The loaded versions of several models: who uses them, and what memory they take.

A request takes a version of a model and releases it when it ends. A version that is replaced,
removed or unloaded takes no new requests, and is closed when the last one has ended: so no request
is lost. Models are loaded in a thread, one at a time.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from bankintent.config import ServeConfig
from bankintent.errors import ModelError, UserError
from bankintent.serving import memory
from bankintent.serving.entries import Entry, Loaded
from bankintent.serving.load_errors import as_user_error
from bankintent.serving.loading import Loader
from bankintent.serving.metrics import Metrics
from bankintent.serving.telemetry import log_event
from bankintent.serving.watching import stamp_of_all
from bankintent.texts import shorten

LONGEST_REASON = 300
"""Characters of a reason in `GET /models`."""

MEGABYTE = 1 << 20


class NoRoom(Exception):
    """Models in use fill the memory that is allowed."""


class Pool:
    """Loads and unloads models; all methods are called on the event loop."""

    def __init__(self, settings: ServeConfig, metrics: Metrics, loader: Loader) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loader = loader
        self._in_memory: set[Entry] = set()
        self._retired: set[Loaded] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # One model at a time: otherwise nobody could say how much memory each takes.
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def loaded(self) -> list[Loaded]:
        """Every version in memory, also those that take no new requests."""
        current = [entry.loaded for entry in self._in_memory]
        return [*(one for one in current if one is not None), *self._retired]

    @property
    def memory(self) -> int:
        """Bytes that the loaded models take, with the shared base."""
        return self._loader.base_memory + sum(one.memory for one in self.loaded)

    def take(self, entry: Entry) -> Loaded | None:
        """The version of a model that answers, in use until it is released; None without any."""
        entry.used = time.monotonic()
        if entry.loaded is not None:
            entry.loaded.users += 1
        return entry.loaded

    def release(self, loaded: Loaded) -> None:
        """A request has ended that took this version."""
        loaded.users -= 1
        if loaded.users == 0:
            self._freed.set()
            if loaded.is_retired:
                self.run(self._close(loaded))

    def begin(self, entry: Entry) -> "asyncio.Task[None]":
        """Begin to load the version on disk, or return the load that has begun.

        It raises nothing: a failure stays with the entry.
        """
        if entry.loading is None:
            entry.loading = self.run(self._load(entry))
        return entry.loading

    def unload(self, entry: Entry) -> None:
        """Let the version that answers end: at once, or with the last request that uses it."""
        loaded = entry.loaded
        if loaded is None:
            return

        entry.loaded = None
        self._in_memory.discard(entry)
        self._retire(loaded)

    async def open_base(self) -> None:
        """Load the shared base, before any model. Raises a UserError."""
        async with self._turn:
            await self._loader.open_base()

    async def close(self) -> None:
        """Finish what is held, then end the threads of all models."""
        for task in list(self._tasks):
            task.cancel()
        for loaded in self.loaded:
            await loaded.service.close()
        await self._loader.close()

    def run(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start work that ends with the pool at the latest."""
        task = asyncio.create_task(work)
        # The event loop itself does not keep tasks alive.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, entry: Entry) -> None:
        path = entry.place.section.model_dir
        before = await asyncio.to_thread(stamp_of_all, path)
        try:
            async with self._turn:
                await self._make_room(entry)
                loaded, stamp = await self._loader.load(entry)
                entry.place = replace(entry.place, stamp=stamp)
                self._use(entry, loaded)
        except NoRoom:
            # No fault of the model: who asks again tries again.
            log_event("no room", model=entry.name, memory_mb=self._settings.memory_mb)
        except Exception as error:  # noqa: BLE001 (of one model, which harms no other)
            # Files that have changed since are another version, which may be sound.
            entry.failed_stamp = before
            self._fail(entry, as_user_error(error))
        finally:
            entry.loading = None

    def _use(self, entry: Entry, loaded: Loaded) -> None:
        """Let a version answer in the place of an older one."""
        former = entry.loaded
        entry.loaded = loaded
        entry.failure = None
        entry.memory = loaded.memory
        self._in_memory.add(entry)
        self._metrics.loads.labels("loaded").inc()

        if former is not None:
            self._retire(former)
        # It was removed while it was loading.
        if entry.is_removed:
            self.unload(entry)

        # What it takes is known only now.
        for other in self._unused(entry):
            if self._memory_that_stays() > self._most():
                self._evict(other)

    def _fail(self, entry: Entry, error: UserError) -> None:
        # Clients need not know where models are on this machine.
        reason = str(error).replace(str(entry.place.section.model_dir), entry.name)
        entry.failure = shorten(reason, LONGEST_REASON)
        self._metrics.loads.labels("failed").inc()
        log_event("failed", model=entry.name, reason=entry.failure)

    async def _make_room(self, entry: Entry) -> None:
        """Unload what was not asked the longest time until a model fits. Raises NoRoom, ModelError.

        What already answers under its name stays until the new version takes its place.
        """
        most = self._most()
        if self._settings.memory_mb is None:
            return

        needed = entry.memory
        if needed == 0:
            path = entry.place.section.model_dir
            needed = await asyncio.to_thread(memory.largest_file, path)
        if needed + self._loader.base_memory > most:
            raise ModelError(
                f"it needs about {needed // MEGABYTE:,} MB, more than memory_mb"
                f" ({self._settings.memory_mb:,}) leaves",
                "Raise memory_mb",
            )

        own = 0 if entry.loaded is None else entry.loaded.memory
        end = time.monotonic() + self._settings.limits.deadline_s
        while self.memory - own + needed > most:
            unused = self._unused(entry)
            # What is being closed leaves its memory soon.
            if unused and not self._is_closing():
                self._evict(unused[0])
            await self._wait_until_freed(end)

    def _most(self) -> float:
        megabytes = self._settings.memory_mb
        return float("inf") if megabytes is None else megabytes * MEGABYTE

    def _memory_that_stays(self) -> int:
        """Bytes, without the versions that are being closed."""
        return self.memory - sum(one.memory for one in self._retired if one.users == 0)

    def _unused(self, entry: Entry) -> list[Entry]:
        """Other models in memory without work in hand, those first that were asked longest ago."""
        unused = []
        for other in self._in_memory:
            if other is not entry and other.loaded is not None and other.loaded.users == 0:
                unused.append(other)
        return sorted(unused, key=lambda other: other.used)

    def _is_closing(self) -> bool:
        return any(loaded.users == 0 for loaded in self._retired)

    def _evict(self, entry: Entry) -> None:
        self._metrics.evictions.inc()
        log_event("unloaded", model=entry.name)
        self.unload(entry)

    async def _wait_until_freed(self, end: float) -> None:
        """Wait until a version is closed or has no work in hand. Raises NoRoom at the end."""
        self._freed.clear()
        try:
            await asyncio.wait_for(self._freed.wait(), max(0, end - time.monotonic()))
        except TimeoutError:
            raise NoRoom from None

    def _retire(self, loaded: Loaded) -> None:
        loaded.is_retired = True
        self._retired.add(loaded)
        if loaded.users == 0:
            self.run(self._close(loaded))

    async def _close(self, loaded: Loaded) -> None:
        await loaded.service.close()
        loaded.service.unload()
        self._retired.discard(loaded)
        await asyncio.to_thread(memory.give_back)
        self._freed.set()
