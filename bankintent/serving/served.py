"""What a process serves, in one form for one model and for several by name."""

from collections.abc import Callable
from typing import Protocol

from bankintent.config import ServeConfig
from bankintent.inference.runtime import Runtime
from bankintent.serving.entries import Description, Loaded
from bankintent.serving.refusals import UnknownModel
from bankintent.serving.service import Service, State
from bankintent.texts import list_some

Finder = Callable[[ServeConfig], Callable[[], Runtime]]
"""Finds and verifies the model of a config, and returns what loads it."""


class Served(Protocol):
    """One model, or several by name. Its methods are called on the event loop."""

    settings: ServeConfig
    """Of the server."""

    @property
    def state(self) -> State:
        """Whether the process takes texts."""

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered, of all models."""

    @property
    def default(self) -> str | None:
        """The model of requests that name none; None where they have to name one."""

    def names(self) -> list[str]:
        """The names of the models, sorted."""

    def describe(self, most: int) -> list[Description]:
        """The first `most` models by name."""
        ...

    def take(self, name: str | None) -> Loaded | None:
        """The model of a name, or the default one, in use until it is released.

        None where it has to be loaded first. Raises UnknownModel, Invalid where a request has to
        name one, and NotReady where it cannot be served.
        """

    def release(self, loaded: Loaded) -> None:
        """A request has ended that took this model."""

    def peek(self, name: str | None) -> Service | None:
        """The service of a model that is loaded; None of any other. Nothing is loaded."""

    async def load(self, name: str | None) -> None:
        """Load a model, or wait for who loads it. How that ended, `take` says."""

    async def find(self) -> None:
        """Find what is served, before the port opens; a UserError where that cannot be."""

    async def start(self) -> None:
        """Load what is to be loaded at the start, then be ready."""

    def reload(self) -> None:
        """Look at once whether files have changed; called by a signal."""

    def drain(self) -> None:
        """Refuse new texts from here on; those that were admitted are still answered."""

    async def close(self) -> None:
        """Finish what is held and end all threads."""


def unknown(names: list[str]) -> UnknownModel:
    """The refusal of a name that there is not, with some of those that there are."""
    if not names:
        return UnknownModel("there is no such model, and no other")
    return UnknownModel(f"there is no such model; there is {list_some(names)}")
