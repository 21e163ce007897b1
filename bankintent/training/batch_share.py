"""A process's part of every batch, where several processes train on the rows of one."""

import math
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Protocol

from bankintent.training import processes
from bankintent.training.features import EncodedRows
from bankintent.training.losses import NO_ROW


class Sampler(Sized, Protocol):
    """Row numbers in the order of an epoch."""

    def __iter__(self) -> Iterator[int]: ...


class BatchShare:
    """A batch sampler: the rows of this process in each batch of all processes.

    The main process draws the order of an epoch, as it would alone. So a batch has the rows that it
    would have with one process, and the sum over the processes is its loss.
    """

    def __init__(self, sampler: Sampler, batch_size: int) -> None:
        self._sampler = sampler
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._sampler) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = processes.from_main(lambda: list(self._sampler))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            yield own_share(batch, processes.rank(), processes.count())


def own_share(batch: Sequence[int], rank: int, count: int) -> list[int]:
    """Every `count`-th row of a batch, from `rank` on.

    They differ by one at most. A process for which no row is left gets a filler, because each has
    to take part in every step.
    """
    return list(batch[rank::count]) or [filler(batch[0])]


def filler(row: int) -> int:
    """The number by which `RowsWithFillers` gives a row that counts for nothing."""
    return -1 - row


class RowsWithFillers:
    """Encoded rows; under a number below zero a copy of a row that has no label."""

    def __init__(self, rows: EncodedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number >= 0:
            return self._rows[number]
        return self._rows[-1 - number] | {"labels": NO_ROW}
