"""A model that a server knows by name: where it is, how it is served, and what state it is in."""

import asyncio
import time
from dataclasses import dataclass, field
from enum import StrEnum

from bankintent.config import ModelSection, ServeConfig
from bankintent.serving.service import Service
from bankintent.serving.watching import Place, Stamp


class ModelState(StrEnum):
    """The state of one of several models, as `GET /models` shows it."""

    UNLOADED = "not loaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(eq=False)
class Loaded:
    """A loaded model and who uses it."""

    name: str | None
    """None of the only model."""
    service: Service
    memory: int
    """Bytes."""
    users: int = 0
    """Requests that use it now."""
    is_retired: bool = False
    """It takes no new requests and is closed when the last one ends."""


@dataclass(eq=False)
class Entry:
    """One of several models."""

    name: str
    place: Place
    settings: ServeConfig
    """Of this model alone."""
    loaded: Loaded | None = None
    """The version that answers."""
    loading: "asyncio.Task[None] | None" = None
    failure: str | None = None
    """Why the newest files cannot be served; an older version may still answer."""
    failed_stamp: Stamp = ()
    """Of all files at that time."""
    used: float = field(default_factory=time.monotonic)
    """When it was asked last."""
    is_removed: bool = False
    """It is not to be served any more."""
    memory: int = 0
    """Bytes that it was seen to take; 0 before it was ever loaded."""

    @property
    def state(self) -> ModelState:
        """Ready also while a new version is loading beside the one that answers."""
        if self.loaded is not None:
            return ModelState.READY
        if self.loading is not None:
            return ModelState.LOADING
        return ModelState.UNLOADED if self.failure is None else ModelState.FAILED


@dataclass(frozen=True, slots=True)
class Description:
    """What `GET /models` says of a model."""

    name: str
    state: ModelState
    version: str | None
    """Of the version that answers; None where none is loaded."""
    reason: str | None
    """Why the newest files cannot be served."""
    memory: int
    """Bytes; 0 where it is not loaded."""
    held: int
    """Texts admitted and not yet answered."""


def describe(entry: Entry) -> Description:
    """What there is to say of a model."""
    loaded = entry.loaded
    return Description(
        name=entry.name,
        state=entry.state,
        version=None if loaded is None else loaded.service.facts.version,
        reason=entry.failure,
        memory=0 if loaded is None else loaded.memory,
        held=0 if loaded is None else loaded.service.held,
    )


def settings_of(settings: ServeConfig, section: ModelSection) -> ServeConfig:
    """The settings of one of several models: its own keys, and for the others the server's."""
    own = section.model_dump(include={"runtime", "threads", "cache"}, exclude_none=True)
    limits = section.limits.model_dump(exclude_none=True)
    batching = section.batching.model_dump(exclude_none=True)
    changed = {
        "model_dir": section.model_dir,
        "limits": settings.limits.model_copy(update=limits),
        "batching": settings.batching.model_copy(update=batching),
        **own,
    }
    return settings.model_copy(update=changed)
