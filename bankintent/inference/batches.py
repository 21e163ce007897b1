"""The outputs of many texts: in batches of like length, as many at once as the runtime allows."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bankintent.inference.runtime import Outputs, OutputTable, Runtime, Tokens

if TYPE_CHECKING:
    from bankintent.progress import Advance


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of items in batches of like length, shortest first.

    A batch holds at most `max_tokens` when it is padded to its longest item, or a single item.
    """
    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for index in shortest_first:
        padded_tokens = lengths[index] * (len(batch) + 1)
        if batch and padded_tokens > max_tokens:
            yield batch
            batch = []
        batch.append(index)

    if batch:
        yield batch


def compute(
    items: Sequence[Tokens],
    groups: Sequence[list[int]],
    runtime: Runtime,
    pool: ThreadPoolExecutor,
    advance: "Advance" = lambda _: None,
) -> Outputs:
    """The outputs of all items in their order; as many batches at once as the pool has threads.

    `groups` are the batches, as indices of items. `advance` counts the items that are done.
    """

    def compute_one(batch: list[int]) -> Outputs:
        return runtime.outputs([items[index] for index in batch])

    # A single batch needs no other thread.
    run = map if len(groups) == 1 else pool.map
    table = OutputTable(len(items), len(runtime.facts.labels))
    for batch, outputs in zip(groups, run(compute_one, groups), strict=True):
        table.fill(batch, outputs)
        advance(len(batch))
    return table.outputs()


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that drops the calls it has not begun when the block ends early."""
    # The pool's own `with` would compute all of them first, for example after Ctrl-C.
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
