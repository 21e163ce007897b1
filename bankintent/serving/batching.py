"""A bounded queue that groups waiting items into batches for a plain function.

An idle batcher starts at once with the items that wait, which its workers divide among them. While
they work, arriving items wait, and the next batch takes those of similar size together: dynamic
batching without a timer, after Mosec. This module depends neither on a model nor on HTTP.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bankintent.serving.lanes import Lanes
from bankintent.serving.refusals import QueueFull

In = TypeVar("In")
Item = TypeVar("Item")
Out = TypeVar("Out")

WINDOW = 16
"""Most items that are prepared and wait to be chosen, in multiples of the largest batch.

Among more items there are more of similar size, so that less is padded; but each batch sorts them
all.
"""


@dataclass(slots=True)
class Ticket(Generic[In, Item, Out]):
    """One item on its way. Cancelling the future removes it from the queue."""

    value: In
    future: asyncio.Future[Out]
    """Read on every thread, but settled and cancelled on its event loop only."""
    loop: asyncio.AbstractEventLoop
    deadline: float = math.inf
    """When nobody waits for the result any more, by `time.monotonic`."""
    lane: str = ""
    """Who sent it: those of each lane are taken in turn."""
    item: Item | None = None
    size: int = 0
    watcher: "Watcher | None" = None
    admitted: float = 0.0
    """When it was admitted, by `time.monotonic`; 0 where nobody watches."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The measurements of one call of the work function."""

    sizes: list[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Passage:
    """How the items of one caller went through one batch; times are of `time.monotonic`."""

    items: int
    admitted: float
    """When the first of them was admitted."""
    taken: float
    """When the batch took them."""
    batch: Batch


Watcher = Callable[[Passage], None]

WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
"""Where a caller of `run` sets one, it gets each of its passages, on the batcher's thread."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a queue and of its batches."""

    capacity: int
    """Most items that are admitted and not yet answered."""
    max_items: int
    """Most items in a batch."""
    max_size: int
    """Largest size of a batch of several items, each padded to the largest of them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that a function raised for one item."""

    error: Exception


class Batcher(Generic[In, Item, Out]):
    """`prepare` turns inputs into items, `size` measures an item, `work` turns items into results.

    All three are plain functions that are called on the batcher's own threads only: `prepare` and
    `size` by one thread at a time, `work` by as many as there are `workers`. Results come in the
    order of the items. An error in a batch of several is tracked down to the items that cause it:
    the others get their results; a function that knows them gives a Failure in the place of each.
    `observe` gets each batch, on the thread that worked on it.
    """

    def __init__(
        self,
        prepare: Callable[[list[In]], Sequence[Item | Failure]],
        work: Callable[[list[Item]], Sequence[Out | Failure]],
        size: Callable[[Item], int] = lambda item: 1,
        *,
        bounds: Bounds,
        workers: int = 1,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self._prepare = prepare
        self._work = work
        self._size = size
        self._observe = observe
        self._bounds = bounds

        self._held = 0
        self._arrived = Lanes[Ticket[In, Item, Out]]()
        self._ready: list[Ticket[In, Item, Out]] = []
        self._closing = False

        # Two locks. `_turn` lets one thread at a time wait, prepare and choose; it guards `_ready`.
        # `_wake` guards `_arrived` and `_closing`; the event loop takes it too, so it is held for
        # moments only and never while items are prepared. A thread takes `_turn` first and `_wake`
        # inside it; `run` and `close` take `_wake` alone. So no two threads can block each other.
        self._turn = threading.Lock()
        self._wake = threading.Condition()

        self._workers = workers
        self._threads = []
        for number in range(workers):
            # A daemon does not keep the process alive where nobody calls `close`.
            thread = threading.Thread(target=self._serve, name=f"batcher-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._arrived) + len(self._ready)

    @property
    def held(self) -> int:
        """Items admitted and not yet answered; never more than the capacity."""
        return self._held

    async def run(
        self, values: Sequence[In], deadline: float = math.inf, lane: str = ""
    ) -> list[Out]:
        """The result of each value, in order. Either all are admitted or QueueFull is raised.

        Values of different lanes are taken in turn.

        Raises what `prepare` or `work` raised for the first value that failed. Cancelling the call
        removes the values from the queue that no batch has taken, and so does the `deadline`, a
        time of `time.monotonic`: such a call has no result and waits until it is cancelled.
        """
        capacity = self._bounds.capacity
        if self._held + len(values) > capacity:
            raise QueueFull(f"{self._held} of {capacity} places in the queue are taken")

        loop = asyncio.get_running_loop()
        watcher = WATCHER.get()
        admitted = time.monotonic() if watcher else 0.0
        tickets = []
        futures = []
        for value in values:
            ticket = Ticket[In, Item, Out](value, loop.create_future(), loop, deadline, lane)
            ticket.watcher = watcher
            ticket.admitted = admitted
            tickets.append(ticket)
            futures.append(ticket.future)

        # Only the event loop changes this number, so that it needs no lock.
        self._held += len(tickets)
        try:
            with self._wake:
                self._arrived.extend(tickets)
                # One notification is enough: only the thread that holds `_turn` waits for it.
                self._wake.notify()
            return await asyncio.gather(*futures)
        finally:
            self._held -= len(tickets)
            # `gather` ends at the first error and leaves the other futures pending.
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Finish what is held, then end the threads; blocks until then."""
        with self._wake:
            self._closing = True
            self._wake.notify()

        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """The life of one thread: batch after batch until the batcher closes."""
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            if batch:
                self._work_on(batch)

    def _work_on(self, batch: list[Ticket[In, Item, Out]]) -> None:
        items = [ticket.item for ticket in batch]
        sizes = [ticket.size for ticket in batch]

        taken = time.monotonic()
        started = time.perf_counter()
        results = isolate(self._work, items)
        measured = Batch(sizes, time.perf_counter() - started)

        self._observe(measured)
        deliver(batch, results)
        tell_watchers(batch, measured, taken)

    def _next_batch(self) -> list[Ticket[In, Item, Out]] | None:
        """The next batch; None when the batcher is closed and has no items.

        It is empty where all items that had arrived failed, were cancelled or are too late.
        """
        with self._turn:
            fresh = self._take_arrived()
            if fresh is None:
                return None

            self._make_ready(fresh)
            self._ready = awaited(self._ready)

            most = min(self._bounds.max_items, self._share())
            batch = choose_batch(self._ready, most, self._bounds.max_size)
            # By `id`, because a ticket, which is a mutable dataclass, has no hash.
            taken = {id(ticket) for ticket in batch}
            self._ready = [ticket for ticket in self._ready if id(ticket) not in taken]
            return batch

    def _share(self) -> int:
        """How many of the prepared items one worker takes: the others find some to work on too."""
        return -(-len(self._ready) // self._workers)  # rounded up

    def _take_arrived(self) -> list[Ticket[In, Item, Out]] | None:
        """Arrived tickets for the free places of the window; None when closed and without items.

        Waits only while there are no items at all: prepared ones are worked on without waiting.
        """
        with self._wake:
            self._wake.wait_for(self._may_go_on)
            if not self._arrived and not self._ready:
                return None

            free_places = WINDOW * self._bounds.max_items - len(self._ready)
            count = min(free_places, len(self._arrived))
            return [self._arrived.popleft() for _ in range(count)]

    def _may_go_on(self) -> bool:
        return bool(self._arrived or self._ready or self._closing)

    def _make_ready(self, tickets: list[Ticket[In, Item, Out]]) -> None:
        """Prepare tickets for the window; the callers of those that fail get the errors."""
        tickets = awaited(tickets)
        values = [ticket.value for ticket in tickets]
        items = isolate(self._prepare, values)

        failed = []
        failures = []
        for ticket, item in zip(tickets, items, strict=True):
            if isinstance(item, Failure):
                failed.append(ticket)
                failures.append(item)
            else:
                ticket.item = item
                ticket.size = self._size(item)
                self._ready.append(ticket)

        deliver(failed, failures)


def awaited(tickets: list[Ticket[In, Item, Out]]) -> list[Ticket[In, Item, Out]]:
    """The tickets whose callers still wait.

    Also looks at the deadline: a busy event loop cancels late.
    """
    now = time.monotonic()
    return [ticket for ticket in tickets if ticket.deadline > now and not ticket.future.cancelled()]


def choose_batch(
    tickets: Sequence[Ticket[Any, Any, Any]], max_items: int, max_size: int
) -> list[Ticket[Any, Any, Any]]:
    """The oldest ticket, and those nearest to it in size as far as they fit.

    With the oldest in each batch no ticket waits for ever, and similar sizes need little padding.
    """
    if not tickets:
        return []

    oldest = tickets[0]

    def distance(ticket: Ticket[Any, Any, Any]) -> int:
        return abs(ticket.size - oldest.size)

    batch: list[Ticket[Any, Any, Any]] = []
    largest = 0
    # The sort is stable, so the oldest comes first: no other one is nearer to its size.
    for ticket in sorted(tickets, key=distance):
        if len(batch) == max_items:
            break

        new_largest = max(largest, ticket.size)
        fits = new_largest * (len(batch) + 1) <= max_size
        # The first is taken even where it alone is too large; otherwise it would wait for ever.
        if not batch or fits:
            batch.append(ticket)
            largest = new_largest

    return batch


def isolate(function: Callable[[list[Any]], Sequence[Any]], items: list[Any]) -> list[Any]:
    """The function's result for each item, or a Failure.

    After an error it is called for each half alone, down to the items that cause it.
    """
    if not items:
        return []

    try:
        results = list(function(items))
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
    except Exception as error:  # noqa: BLE001 (it belongs to the callers, not to the thread)
        half = len(items) // 2
        if half == 0:
            return [Failure(error)]

        return isolate(function, items[:half]) + isolate(function, items[half:])
    return results


def tell_watchers(tickets: Sequence[Ticket[Any, Any, Any]], measured: Batch, taken: float) -> None:
    """Tell each watcher of these tickets how they went through their batch."""
    watched: dict[int, tuple[Watcher, list[float]]] = {}
    for ticket in tickets:
        if ticket.watcher is not None:
            _, times = watched.setdefault(id(ticket.watcher), (ticket.watcher, []))
            times.append(ticket.admitted)

    for watcher, times in watched.values():
        watcher(Passage(len(times), min(times), taken, measured))


def deliver(tickets: Sequence[Ticket[Any, Any, Any]], results: Sequence[Any]) -> None:
    """Settle the tickets' futures on their event loop, which is woken once for all of them."""

    def settle() -> None:
        for ticket, result in zip(tickets, results, strict=True):
            # Cancelled during the work.
            if ticket.future.done():
                continue

            if isinstance(result, Failure):
                ticket.future.set_exception(result.error)
            else:
                ticket.future.set_result(result)

    # Futures of asyncio are not thread-safe, and this runs on a thread of the batcher.
    if tickets:
        tickets[0].loop.call_soon_threadsafe(settle)
