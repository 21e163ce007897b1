"""Several models in one process, by name: which there are, and which one a request is for.

They are loaded when they are asked. A bundle that appears in the watched folder is added, one that
changes takes the place of the older version, one that is gone is dropped.
"""

import asyncio
import contextlib
from collections.abc import Callable

from bankintent.config import ServeConfig
from bankintent.errors import ConfigError
from bankintent.serving.entries import (
    Description,
    Entry,
    Loaded,
    ModelState,
    describe,
    settings_of,
)
from bankintent.serving.loading import Bases, Loader
from bankintent.serving.metrics import Metrics
from bankintent.serving.pool import Pool
from bankintent.serving.refusals import Invalid, NotReady
from bankintent.serving.served import Finder, unknown
from bankintent.serving.service import Service, State
from bankintent.serving.telemetry import log_event
from bankintent.serving.watching import Place, find_places, name_of, stamp_of_all
from bankintent.texts import list_some

AGAIN_S = 0.3
"""Seconds until a model that has gone is looked for again: while a bundle is replaced, it stands
nowhere for a moment."""


class ManyModels:
    """Several models by name; all methods are called on the event loop."""

    def __init__(self, settings: ServeConfig, metrics: Metrics, find: Finder, bases: Bases) -> None:
        self.settings = settings
        self.state = State.LOADING
        self._metrics = metrics
        self._pool = Pool(settings, metrics, Loader(settings, metrics, find, bases))
        self._entries: dict[str, Entry] = {}
        self._look_now = asyncio.Event()
        self._default = settings.default_model
        if self._default is None and settings.model_dir is not None:
            self._default = name_of(settings.model_dir)

        for state in ModelState:
            metrics.models.labels(state.value).set_function(self._counter(state))
        metrics.model_memory.set_function(lambda: self._pool.memory)

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered, of all models."""
        return sum(loaded.service.held for loaded in self._pool.loaded)

    @property
    def default(self) -> str | None:
        """The model of requests that name none; None where they have to name one."""
        if self._default is None and len(self._entries) == 1:
            return next(iter(self._entries))
        return self._default

    def names(self) -> list[str]:
        """The names of the models, sorted."""
        return sorted(self._entries)

    def describe(self, most: int) -> list[Description]:
        """The first `most` models by name."""
        return [describe(self._entries[name]) for name in self.names()[:most]]

    def take(self, name: str | None) -> Loaded | None:
        """The model of a name, or the default one; None where it has to be loaded first.

        Raises UnknownModel, Invalid where a request has to name one, and NotReady.
        """
        if self.state is State.DRAINING:
            raise NotReady(self.state.value)

        entry = self._find_entry(name)
        if entry.state is ModelState.FAILED:
            raise NotReady(f"the model {entry.name} cannot be served; GET /models says why")
        return self._pool.take(entry)

    def release(self, loaded: Loaded) -> None:
        """A request has ended that took this model."""
        self._pool.release(loaded)

    def peek(self, name: str | None) -> Service | None:
        """The service of a model that is loaded; None of any other."""
        entry = self._entries.get(name or self.default or "")
        return None if entry is None or entry.loaded is None else entry.loaded.service

    async def load(self, name: str | None) -> None:
        """Load a model, or wait for who loads it."""
        # Who waits may leave before it is loaded; the others go on waiting.
        await asyncio.shield(self._pool.begin(self._find_entry(name)))

    def _find_entry(self, name: str | None) -> Entry:
        if name is None:
            name = self.default
        if name is None:
            names = list_some(self.names()) or "there is none"
            raise Invalid(f"model: name the one that you ask ({names})")

        entry = self._entries.get(name)
        if entry is None:
            raise unknown(self.names())
        return entry

    async def find(self) -> None:
        """Look which models there are. Raises ConfigError where the settings cannot be served."""
        await self.look()
        default = self._default
        if default is not None and default not in self._entries:
            raise ConfigError(
                f"default_model is {default}, and there is no such model",
                f"Name one that there is ({list_some(self.names())})",
            )

    async def start(self) -> None:
        """Load the shared base and the models that are wanted at the start, then be ready.

        Raises a UserError where there is no base; a model that fails is no reason to end.
        """
        await self._pool.open_base()
        for entry in list(self._entries.values()):
            if entry.place.section.preload:
                await self._pool.begin(entry)

        if self.state is State.LOADING:
            self.state = State.READY
            log_event("ready", models=len(self._entries))
        self._pool.run(self._watch())

    def reload(self) -> None:
        """Look at once whether files have changed, and try again what has failed."""
        self._look_now.set()

    def drain(self) -> None:
        """Refuse new texts from here on; those that were admitted are still answered."""
        self.state = State.DRAINING

    async def close(self) -> None:
        """Finish what is held, then end the threads of all models."""
        self.drain()
        await self._pool.close()

    async def _watch(self) -> None:
        """Look at the files every few seconds, and at once where it is asked for."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self.settings.watch_s)
            if self._look_now.is_set():
                self._look_now.clear()
                self._forgive()

            try:
                await self.look()
            except (ConfigError, OSError) as error:
                # A folder that cannot be read for a while is no reason to drop its models.
                log_event("models cannot be looked for", reason=str(error))

    async def look(self) -> None:
        """Add models that have appeared, renew those that have changed, drop those that have gone.

        Raises ConfigError where the folder cannot be read.
        """
        places = await asyncio.to_thread(find_places, self.settings)
        if self._entries.keys() - places.keys():
            await asyncio.sleep(AGAIN_S)
            places = await asyncio.to_thread(find_places, self.settings)

        for name in self._entries.keys() - places.keys():
            self._remove(self._entries[name])
        for name, place in places.items():
            entry = self._entries.get(name)
            if entry is None:
                self._add(name, place)
            elif await _has_changed(entry, place):
                self._renew(entry, place)

    def _add(self, name: str, place: Place) -> None:
        entry = Entry(name, place, settings_of(self.settings, place.section))
        self._entries[name] = entry
        self._metrics.follow(
            lambda: 0 if entry.loaded is None else entry.loaded.service.waiting,
            lambda: 0 if entry.loaded is None else entry.loaded.service.held,
            lambda: entry.loaded is not None,
            name,
        )
        log_event("found", model=name)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.name]
        entry.is_removed = True
        self._pool.unload(entry)
        self._metrics.forget(entry.name)
        log_event("removed", model=entry.name)

    def _renew(self, entry: Entry, place: Place) -> None:
        """Take note of other files; a model that is loaded goes on to answer until they are."""
        entry.place = place
        entry.failure = None
        entry.memory = 0
        if entry.loaded is not None:
            self._pool.begin(entry)

    def _forgive(self) -> None:
        """Let every model that has failed be tried again."""
        for entry in self._entries.values():
            entry.failed_stamp = ()

    def _counter(self, state: ModelState) -> Callable[[], float]:
        return lambda: sum(entry.state is state for entry in list(self._entries.values()))


async def _has_changed(entry: Entry, place: Place) -> bool:
    """Whether there are other files than those that were loaded, or that failed to load."""
    # A load that has begun may be of these files; the next look tells. Files that are gone are no
    # other version.
    if entry.loading is not None or not place.stamp:
        return False
    if place.stamp != entry.place.stamp:
        return True
    if entry.failure is None:
        return False
    stamp = await asyncio.to_thread(stamp_of_all, place.section.model_dir)
    return stamp != entry.failed_stamp
