"""The batcher with fake functions. Events, not sleeps, order what happens."""

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import REPOSITORY

from bankintent.serving.batching import Batch, Batcher, Bounds, choose_batch, isolate
from bankintent.serving.refusals import QueueFull

IntBatcher = Batcher[int, int, int]
Build = Callable[..., IntBatcher]


class Model:
    """Doubles numbers. Works only while `go` is set; sets `busy` when a batch has begun."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.busy = threading.Event()
        self.go.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.busy.set()
        assert self.go.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [2 * item for item in items]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def build(model: Model) -> Iterator[Build]:
    """Makes batchers of small bounds over the model; all are closed at the end."""
    batchers: list[IntBatcher] = []

    def make(
        capacity: int = 100, max_items: int = 4, max_size: int = 1000, **options: Any
    ) -> IntBatcher:
        functions: dict[str, Any] = {"prepare": list, "work": model}
        bounds = Bounds(capacity, max_items, max_size)
        batcher: IntBatcher = Batcher(**(functions | options), bounds=bounds)
        batchers.append(batcher)
        return batcher

    yield make
    model.go.set()
    for batcher in batchers:
        batcher.close()


async def hold(model: Model, batcher: IntBatcher, value: int = 0) -> "asyncio.Task[list[int]]":
    """Make the model busy with one item; everything after it waits."""
    model.go.clear()
    model.busy.clear()
    first = asyncio.create_task(batcher.run([value]))
    await asyncio.to_thread(model.busy.wait, 10)
    return first


async def start(*calls: Awaitable[Any]) -> "list[asyncio.Task[Any]]":
    """Start calls and return when all of them are in the queue."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


def double(item: int) -> int:
    return 2 * item


def own_size(item: int) -> int:
    """A number is its own size."""
    return item


def test_an_idle_batcher_starts_with_what_there_is(model: Model, build: Build) -> None:
    assert asyncio.run(build().run([1])) == [2]
    assert model.batches == [[1]]


def test_results_come_in_the_order_of_the_values(build: Build) -> None:
    values = list(range(50))
    assert asyncio.run(build().run(values)) == [double(value) for value in values]


def test_what_arrives_during_work_goes_together(model: Model, build: Build) -> None:
    async def scenario() -> None:
        batcher = build()
        first = await hold(model, batcher)
        others = await start(batcher.run([1]), batcher.run([2]), batcher.run([3]))
        model.go.set()
        assert await asyncio.gather(first, *others) == [[0], [2], [4], [6]]

    asyncio.run(scenario())
    assert model.batches == [[0], [1, 2, 3]]


def test_a_batch_is_never_larger_than_allowed(model: Model, build: Build) -> None:
    values = [5, 7, 10, 20, 21, 30, 50, 5, 5, 6, 8]

    async def scenario() -> None:
        batcher = build(max_items=4, max_size=40, size=own_size)
        first = await hold(model, batcher, 1)
        others = await start(batcher.run(values))
        model.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(scenario())
    assert sorted(itertools.chain(*model.batches[1:])) == sorted(values)
    for batch in model.batches:
        assert len(batch) <= 4
        assert max(batch) * len(batch) <= 40 or len(batch) == 1


def test_batches_hold_items_of_like_size_and_the_oldest_is_always_in_the_next(
    model: Model, build: Build
) -> None:
    async def scenario() -> None:
        batcher = build(max_items=3, size=own_size)
        first = await hold(model, batcher, 1)
        others = await start(batcher.run([100, 10, 99, 11, 98, 12]))
        model.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(scenario())
    assert model.batches == [[1], [100, 99, 98], [10, 11, 12]]


def test_a_full_queue_refuses_all_of_a_call_or_none(model: Model, build: Build) -> None:
    async def scenario() -> None:
        batcher = build(capacity=4)
        first = await hold(model, batcher)
        others = await start(batcher.run([1, 2]))

        with pytest.raises(QueueFull):
            await batcher.run([3, 4])
        assert batcher.held == 3

        others += await start(batcher.run([5]))
        model.go.set()
        assert await asyncio.gather(first, *others) == [[0], [2, 4], [10]]
        assert batcher.held == 0
        assert batcher.waiting == 0

    asyncio.run(scenario())
    assert sorted(itertools.chain(*model.batches)) == [0, 1, 2, 5]


def test_a_cancelled_item_is_not_worked_on_and_its_neighbours_are(
    model: Model, build: Build
) -> None:
    async def scenario() -> None:
        batcher = build()
        first = await hold(model, batcher)
        one, two, three = await start(batcher.run([1]), batcher.run([2]), batcher.run([3]))

        two.cancel()
        await asyncio.wait([two])
        assert batcher.held == 3

        model.go.set()
        assert await asyncio.gather(first, one, three) == [[0], [2], [6]]

    asyncio.run(scenario())
    assert model.batches == [[0], [1, 3]]


def test_cancelling_during_work_costs_the_neighbours_nothing(model: Model, build: Build) -> None:
    async def scenario() -> None:
        batcher = build()
        first = await hold(model, batcher)
        one, two = await start(batcher.run([1]), batcher.run([2]))

        model.busy.clear()
        model.go.set()
        await first
        await asyncio.to_thread(model.busy.wait, 10)
        one.cancel()
        assert await two == [4]

    asyncio.run(scenario())


def test_a_failing_item_costs_its_neighbours_nothing(model: Model, build: Build) -> None:
    async def scenario() -> None:
        batcher = build(max_items=8)
        first = await hold(model, batcher)
        calls = [batcher.run([value]) for value in (1, 2, -1, 3, 4)]
        others = await start(*calls)
        model.go.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        shown = [str(result) for result in results]
        assert shown == ["[0]", "[2]", "[4]", "minus one", "[6]", "[8]"]

    asyncio.run(scenario())


def test_an_item_that_cannot_be_prepared_costs_its_neighbours_nothing(
    model: Model, build: Build
) -> None:
    def prepare(values: list[int]) -> list[int]:
        return [1 // value for value in values]

    async def scenario() -> None:
        batcher = build(prepare=prepare)
        first = await hold(model, batcher, 1)
        others = await start(batcher.run([1]), batcher.run([0]), batcher.run([1]))
        model.go.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(result) for result in results] == [list, list, ZeroDivisionError, list]

    asyncio.run(scenario())


def test_the_functions_run_on_one_thread_that_is_not_the_event_loops(build: Build) -> None:
    threads = set()

    def note(items: list[int]) -> list[int]:
        threads.add(threading.current_thread().name)
        return items

    asyncio.run(build(prepare=note, work=note).run([1, 2, 3]))
    assert threads == {"batcher-0"}


def test_several_workers_work_at_once_and_all_end(build: Build) -> None:
    together = threading.Barrier(3, timeout=10)

    def work(items: list[int]) -> list[int]:
        together.wait()  # passes only when three batches are in work
        return [double(item) for item in items]

    batcher = build(work=work, max_items=1, workers=3)
    assert asyncio.run(batcher.run([1, 2, 3])) == [2, 4, 6]

    batcher.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("batcher")]


def test_workers_divide_what_waits(build: Build) -> None:
    """No worker is left without work while another one has a batch that could be split."""
    batches: list[list[int]] = []
    both = threading.Event()

    def work(items: list[int]) -> list[int]:
        batches.append(items)
        if len(batches) == 2:
            both.set()
        # The first batch ends only when the other worker has one too.
        assert both.wait(10)
        return [double(item) for item in items]

    # All arrive at once, and one batch has room for all of them.
    batcher = build(work=work, max_items=8, workers=2)
    assert asyncio.run(batcher.run([1, 2, 3, 4, 5, 6])) == [2, 4, 6, 8, 10, 12]
    assert len(batches[0]) == 3
    assert sorted(itertools.chain(*batches)) == [1, 2, 3, 4, 5, 6]


def test_one_worker_takes_all_that_fits(model: Model, build: Build) -> None:
    assert asyncio.run(build(max_items=4).run([1, 2, 3, 4, 5, 6])) == [2, 4, 6, 8, 10, 12]
    assert model.batches == [[1, 2, 3, 4], [5, 6]]


def test_too_few_results_are_an_error_and_not_a_shift(build: Build) -> None:
    batcher = build(work=lambda items: items[1:])
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        asyncio.run(batcher.run([1, 2]))


def test_closing_finishes_what_is_held(model: Model, build: Build) -> None:
    async def scenario() -> None:
        batcher = build()
        first = await hold(model, batcher)
        others = await start(batcher.run([1]), batcher.run([2]))
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        model.go.set()
        assert await asyncio.gather(first, *others) == [[0], [2], [4]]
        await closing

    asyncio.run(scenario())


def test_batches_are_observed_with_the_sizes_of_their_items(build: Build) -> None:
    batches: list[Batch] = []
    batcher = build(size=own_size, observe=batches.append)
    asyncio.run(batcher.run([3, 4]))
    assert [batch.sizes for batch in batches] in ([[3, 4]], [[3], [4]])


def test_an_item_larger_than_the_budget_goes_alone(build: Build) -> None:
    batcher = build(max_size=10, size=own_size)
    assert asyncio.run(batcher.run([50])) == [100]
    assert choose_batch([], 3, 10) == []


def test_isolating_tries_the_halves_and_keeps_the_order() -> None:
    calls = []

    def function(items: list[int]) -> list[int]:
        calls.append(items)
        return [10 // item for item in items]

    results = isolate(function, [1, 2, 0, 5])
    assert results[:2] == [10, 5]
    assert results[3] == 2
    assert isinstance(results[2].error, ZeroDivisionError)
    assert calls == [[1, 2, 0, 5], [1, 2], [0, 5], [0], [5]]


def test_the_batcher_knows_neither_models_nor_http() -> None:
    program = (
        "import sys\n"
        "import bankintent.serving.batching\n"
        "foreign = {'starlette', 'fastapi', 'numpy', 'torch', 'bankintent.inference'}\n"
        "print(sorted(foreign & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert result.stdout.strip() == "[]", result.stderr
