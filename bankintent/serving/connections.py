"""The open connections of a server: how many there may be, how long each may wait, which one goes.

This module knows neither HTTP nor the server; serving/protocol.py reads from the sockets.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from bankintent.config import LimitsSection
from bankintent.serving.metrics import Metrics
from bankintent.serving.telemetry import log_event

SWEEP_SECONDS = 0.25
"""Time between two looks at the connections that have waited for too long."""

CLOSE_SECONDS = 1.0
"""Longest time in which a closing connection may still send what is buffered for its client."""

LINE_SECONDS = 10.0
"""Time between two log lines about closed connections: an attack must not fill the disk."""

GRACE_SECONDS = 0.25
"""Time in which no connection is closed for another: what came on it may not be read yet."""

MOST_REFUSED = 64
"""Connections beyond the limit that are told so and may still read it at one time."""

DESCRIPTORS = 128
"""File descriptors for all that is no connection: files, libraries, and refused connections."""


class Place(Enum):
    """What a connection waits for."""

    SENDING = auto()
    """The client, which has not sent a whole request."""
    ANSWERING = auto()
    """This server, which has the whole request."""
    STALLED = auto()
    """The client, which does not read its answer."""
    IDLE = auto()
    """The next request, after an answer."""
    CLOSING = auto()
    """The client, which is to read the last bytes and leave."""


EVICTABLE = (Place.SENDING, Place.STALLED, Place.IDLE)
"""Places of connections that may be closed for a new one: none of them waits for this server."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Why the server closes a connection, and what it tells the client."""

    reason: str
    """In metrics and log lines, and the `error_type` of the body."""
    status: int
    message: str


LONG_HEAD = Closing("long_head", 431, "the request line and the headers are too long or too many")
SLOW_HEAD = Closing("slow_head", 408, "the headers took too long to arrive")
PIPELINED = Closing("pipelined", 400, "too many requests were sent before the first was answered")
FRAMING = Closing("framing", 400, "the body has more framing than content")
INVALID = Closing("malformed", 400, "this is not a valid HTTP request")
FULL = Closing("connections_full", 503, "too many connections are open; try again")
EVICTED = Closing("evicted", 503, "another connection took the place of this one")
UNREAD = Closing("unread", 408, "the answer was not read in time")


class Connection(Protocol):
    """What this module needs of a connection."""

    place: Place

    def cut(self) -> None:
        """Close at once, without the bytes that are buffered."""
        ...

    def expire(self) -> None:
        """End the wait of this place, which took too long."""
        ...


class Connections:
    """Every open connection by its place, each with the time since when it has been there.

    When all `max_connections` are taken, the oldest of the largest group that waits for its client
    is closed for a new one: a flood of one kind takes places from its own kind.
    """

    def __init__(self, limits: LimitsSection, metrics: Metrics) -> None:
        self.limits = limits
        self.draining = False
        self.lag = 0.0
        """Seconds by which the event loop was late for the last sweep."""
        self._due = 0.0
        self._metrics = metrics
        # A dict keeps the order in which connections came: its first has waited for longest.
        self._places: dict[Place, dict[Connection, float]] = {place: {} for place in Place}
        self._timer: asyncio.TimerHandle | None = None
        self._unlogged: Counter[str] = Counter()
        self._logged = -LINE_SECONDS
        metrics.connections.set_function(lambda: self.open)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return sum(len(group) for group in self._places.values())

    def admit(self, connection: Connection) -> bool:
        """Give a new connection a place, if need be that of another. False where none is free."""
        if self.open >= self.limits.max_connections and not self._evict():
            return False

        self._places[Place.SENDING][connection] = time.monotonic()
        connection.place = Place.SENDING
        self._watch()
        return True

    def linger(self, connection: Connection) -> None:
        """Keep a connection that was not admitted until it has read why."""
        closing = self._places[Place.CLOSING]
        if closing and self.open >= self.limits.max_connections + MOST_REFUSED:
            # The oldest has had the most time to read.
            oldest = next(iter(closing))
            self.forget(oldest)
            oldest.cut()

        closing[connection] = time.monotonic()
        connection.place = Place.CLOSING
        self._watch()

    def move(self, connection: Connection, place: Place) -> None:
        """Note that an admitted connection now waits for something else."""
        if connection.place is place:
            return

        known = self._places[connection.place].pop(connection, None)
        # One that was evicted may still have callbacks to come.
        if known is not None:
            self._places[place][connection] = time.monotonic()
            connection.place = place

    def forget(self, connection: Connection) -> None:
        """Give the connection's place to others."""
        self._places[connection.place].pop(connection, None)

    def count(self, closing: Closing) -> None:
        """Count a connection that is closed for this reason; a line in the log now and then."""
        self._metrics.closed.labels(closing.reason).inc()
        self._unlogged[closing.reason] += 1
        self._log_now_and_then()

    def _evict(self) -> bool:
        """Close the oldest of the largest group that has one to close; False where none has."""
        moment = time.monotonic() - GRACE_SECONDS
        groups = [self._places[place] for place in EVICTABLE]

        for group in sorted(groups, key=len, reverse=True):
            oldest = next(iter(group), None)
            if oldest is not None and group[oldest] <= moment:
                self.forget(oldest)
                self.count(EVICTED)
                oldest.cut()
                return True
        return False

    def _watch(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SWEEP_SECONDS, self._sweep)
            self._due = time.monotonic() + SWEEP_SECONDS

    def _sweep(self) -> None:
        """End every wait that took too long, and come again while there are connections."""
        self._timer = None
        now = time.monotonic()
        self.lag = now - self._due

        for place, seconds in self._longest_waits().items():
            for connection in self._since(place, now - seconds):
                connection.expire()

        self._log_now_and_then()
        if self.open or self._unlogged:
            self._watch()

    def _longest_waits(self) -> dict[Place, float]:
        """The most seconds in each place; the deadline bounds bodies and answers."""
        limits = self.limits
        unread = min(limits.answer_s, CLOSE_SECONDS) if self.draining else limits.answer_s
        return {
            Place.SENDING: limits.header_s,
            Place.STALLED: unread,
            Place.IDLE: limits.keep_alive_s,
            Place.CLOSING: CLOSE_SECONDS,
        }

    def _since(self, place: Place, moment: float) -> list[Connection]:
        """The connections that have been in a place since this moment or longer."""
        found = []
        for connection, since in self._places[place].items():
            if since > moment:
                break
            found.append(connection)
        return found

    def _log_now_and_then(self) -> None:
        now = time.monotonic()
        if not self._unlogged or now - self._logged < LINE_SECONDS:
            return

        log_event("connections closed", logging.WARNING, open=self.open, **self._unlogged)
        self._unlogged.clear()
        self._logged = now


def fit_descriptors(most: int, backlog: int) -> int:
    """The number of connections, at most `most`, that this process may have.

    Raises the limit on its file descriptors as far as the system lets it. As many as `backlog` may
    be accepted before the first of them is refused.
    """
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return most

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + min(backlog, most) + DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return most

    unlimited = hard == resource.RLIM_INFINITY
    allowed = needed if unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return most

    fitting = max((allowed - DESCRIPTORS) // 2, 1)
    log_event(
        "max_connections lowered: the limit on open files is lower",
        logging.WARNING,
        max_connections=fitting,
        wanted=most,
        open_files=allowed,
    )
    return fitting
