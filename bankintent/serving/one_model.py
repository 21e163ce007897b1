"""A server with one model, which is loaded at the start."""

import asyncio
from collections.abc import Callable

from bankintent.config import ServeConfig
from bankintent.inference.runtime import Runtime
from bankintent.serving.entries import Description, Loaded, ModelState
from bankintent.serving.metrics import Metrics
from bankintent.serving.served import Finder, unknown
from bankintent.serving.service import Service, State


class OneModel:
    """One model. It has the name of its folder, and requests need not name it."""

    def __init__(self, settings: ServeConfig, metrics: Metrics, find: Finder) -> None:
        self.service = Service(settings, metrics)
        self._find = find
        self._load: Callable[[], Runtime] | None = None
        # It is never unloaded: nobody has to count who uses it.
        self._loaded = Loaded(None, self.service, 0)

    @property
    def settings(self) -> ServeConfig:
        """Of the server and of its model."""
        return self.service.settings

    @settings.setter
    def settings(self, settings: ServeConfig) -> None:
        self.service.settings = settings

    @property
    def state(self) -> State:
        """That of the model."""
        return self.service.state

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered."""
        return self.service.held

    @property
    def default(self) -> str | None:
        """The model."""
        names = self.names()
        return names[0] if names else None

    def names(self) -> list[str]:
        """The name of the model; none until it is loaded."""
        service = self.peek(None)
        return [] if service is None else [service.facts.name]

    def describe(self, most: int) -> list[Description]:
        """The model; nothing until it is loaded."""
        service = self.peek(None)
        if service is None:
            return []

        facts = service.facts
        return [Description(facts.name, ModelState.READY, facts.version, None, 0, self.held)]

    def take(self, name: str | None) -> Loaded:
        """The model, in any state; UnknownModel for another name."""
        # Before it is loaded it has no name; then the service itself says so.
        if name is not None and name != self.service.facts.name:
            raise unknown(self.names())
        return self._loaded

    def release(self, loaded: Loaded) -> None:
        """Nothing."""

    def peek(self, name: str | None) -> Service | None:
        """The service, once the model is loaded."""
        return self.service if self.service.has_model else None

    async def load(self, name: str | None) -> None:
        """Nothing: it is loaded at the start."""

    async def find(self) -> None:
        """Find and verify the model. Raises a UserError where there is none."""
        self._load = await asyncio.to_thread(self._find, self.settings)

    async def start(self) -> None:
        """Load the model and warm it up. Raises a UserError where it cannot be served."""
        assert self._load is not None
        await self.service.start(self._load)

    def reload(self) -> None:
        """Nothing: a model in use is replaced by a new process."""

    def drain(self) -> None:
        """Refuse new texts from here on."""
        self.service.drain()

    async def close(self) -> None:
        """Finish what is held."""
        await self.service.close()
