"""Waiting items become batches: one bounded queue, some threads, and a function on a list that knows nothing of either.

An idle batcher starts at once with what there is; while it works, what arrives waits and goes together next time, with
items of like size (dynamic batching without a timer, after Mosec). Nothing here knows a model.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bankintent.serving.limits import QueueFull

In = TypeVar("In")
Item = TypeVar("Item")
Out = TypeVar("Out")

WINDOW = 16
"""Items that are prepared ahead and chosen from, in multiples of the largest batch."""


@dataclass(slots=True)
class Ticket(Generic[In, Item, Out]):
    """One item on its way. Cancelling the future, from the event loop, takes it out of the queue."""

    value: In
    future: asyncio.Future[Out]
    loop: asyncio.AbstractEventLoop
    item: Item | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call of the work function was, for the metrics."""

    sizes: list[int]
    seconds: float


class Batcher(Generic[In, Item, Out]):
    """`prepare` turns inputs into items, `size` measures an item, `work` turns items into results, in order.

    All three are plain functions, called on the batcher's own threads only: `prepare` and `size` by one at a time,
    `work` by as many as there are `workers`. `work` gets at most `max_items` items and, padded to the largest, at most
    `max_size`. An error in a batch of several is tracked down to the items that cause it: the others get their results.
    """

    def __init__(
        self,
        prepare: Callable[[list[In]], Sequence[Item]],
        work: Callable[[list[Item]], Sequence[Out]],
        size: Callable[[Item], int] = lambda item: 1,
        *,
        capacity: int,
        max_items: int,
        max_size: int,
        workers: int = 1,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self._prepare, self._work, self._size, self._observe = prepare, work, size, observe
        self._capacity, self._max_items, self._max_size = capacity, max_items, max_size
        self._held = 0
        self._arrived: deque[Ticket[In, Item, Out]] = deque()
        self._ready: list[Ticket[In, Item, Out]] = []
        self._wake = threading.Condition()
        self._turn = threading.Lock()
        self._closing = False
        names = [f"batcher-{number}" for number in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, name=name, daemon=True) for name in names
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._arrived) + len(self._ready)

    @property
    def held(self) -> int:
        """Items admitted and not yet answered; never more than the capacity."""
        return self._held

    async def run(self, values: Sequence[In]) -> list[Out]:
        """The result of each value, in order; all are admitted or none, else QueueFull.

        Raises what `prepare` or `work` raised for the first value that failed. Cancelling the call takes what has not
        begun out of the queue.
        """
        if self._held + len(values) > self._capacity:
            raise QueueFull(f"{self._held} of {self._capacity} places in the queue are taken")
        loop = asyncio.get_running_loop()
        tickets = [Ticket[In, Item, Out](value, loop.create_future(), loop) for value in values]
        self._held += len(tickets)
        try:
            with self._wake:
                self._arrived.extend(tickets)
                self._wake.notify()
            return await asyncio.gather(*(ticket.future for ticket in tickets))
        finally:
            self._held -= len(tickets)
            for ticket in tickets:
                ticket.future.cancel()

    def close(self) -> None:
        """Finish what is held, then end the threads; blocks until then."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                started = time.perf_counter()
                results = isolate(self._work, [ticket.item for ticket in batch])
                self._observe(
                    Batch([ticket.size for ticket in batch], time.perf_counter() - started)
                )
                deliver(batch, results)

    def _next(self) -> list[Ticket[In, Item, Out]] | None:
        """The next batch (empty where all of it was cancelled), by one thread at a time; None at the end."""
        with self._turn:
            if not self._take():
                return None
            batch = choose(self._ready, self._max_items, self._max_size)
            taken = {id(ticket) for ticket in batch}
            self._ready = [ticket for ticket in self._ready if id(ticket) not in taken]
            return batch

    def _take(self) -> bool:
        """Move arrivals into the window and prepare them; wait only while there is nothing at all. False at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._arrived or self._ready or self._closing)
            if not self._arrived and not self._ready:
                return False
            room = WINDOW * self._max_items - len(self._ready)
            fresh = [self._arrived.popleft() for _ in range(min(room, len(self._arrived)))]
        fresh = [ticket for ticket in fresh if not ticket.future.cancelled()]
        items = isolate(self._prepare, [ticket.value for ticket in fresh])
        failed = [index for index, item in enumerate(items) if isinstance(item, Failure)]
        deliver([fresh[index] for index in failed], [items[index] for index in failed])
        for ticket, item in zip(fresh, items, strict=True):
            if not isinstance(item, Failure):
                ticket.item, ticket.size = item, self._size(item)
                self._ready.append(ticket)
        self._ready = [ticket for ticket in self._ready if not ticket.future.cancelled()]
        return True


@dataclass(frozen=True, slots=True)
class Failure:
    """What a function raised for one item."""

    error: Exception


def choose(
    tickets: Sequence[Ticket[Any, Any, Any]], max_items: int, max_size: int
) -> list[Ticket[Any, Any, Any]]:
    """The oldest, and those nearest to it in size as far as they fit: nothing starves, and little is padded."""
    chosen: list[Ticket[Any, Any, Any]] = []
    largest = 0
    for ticket in sorted(tickets, key=lambda ticket: abs(ticket.size - tickets[0].size)):
        grown = max(largest, ticket.size)
        if len(chosen) < max_items and (not chosen or grown * (len(chosen) + 1) <= max_size):
            chosen.append(ticket)
            largest = grown
    return chosen


def isolate(function: Callable[[list[Any]], Sequence[Any]], items: list[Any]) -> list[Any]:
    """The function's result for each item, or a Failure; after an error each half is tried by itself."""
    if not items:
        return []
    try:
        results = list(function(items))
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
    except Exception as error:  # noqa: BLE001 (a boundary: what was raised belongs to the callers, not to the thread)
        half = len(items) // 2
        return (
            isolate(function, items[:half]) + isolate(function, items[half:])
            if half
            else [Failure(error)]
        )
    return results


def deliver(tickets: Sequence[Ticket[Any, Any, Any]], results: Sequence[Any]) -> None:
    """Hand results over to the event loop that waits for them, which is woken once."""

    def settle() -> None:
        for ticket, result in zip(tickets, results, strict=True):
            if ticket.future.done():
                continue
            if isinstance(result, Failure):
                ticket.future.set_exception(result.error)
            else:
                ticket.future.set_result(result)

    if tickets:
        tickets[0].loop.call_soon_threadsafe(settle)
