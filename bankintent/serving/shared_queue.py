"""One queue for all models on a shared base: a batch may hold texts of several of them.

Each model has a lane of it with a bound of its own, and the lanes are taken in turn: a flood of
texts for one model fills its lane and leaves the others their turns.
"""

import math
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bankintent.config import BatchingSection
from bankintent.inference.runtime import Outputs, SharedBase, TenantRuntime, Tokens
from bankintent.serving.batching import Batch, Batcher, Bounds, Failure
from bankintent.serving.refusals import QueueFull
from bankintent.serving.service import Answer, decide_all, tokenize_seen

Item = tuple["Lane", Tokens]


class BaseQueue:
    """The queue of a base, from which the models on it take their lanes."""

    def __init__(
        self,
        base: SharedBase,
        batching: BatchingSection,
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self._base = base
        self._lanes = 0
        # Each lane has a bound of its own, and connections bound them all.
        bounds = Bounds(sys.maxsize, batching.max_texts, batching.max_tokens)
        self._batcher: Batcher[Any, Item, Answer] = Batcher(
            prepare, self._work, size_of, bounds=bounds, workers=base.workers, observe=observe
        )

    def lane(self, runtime: TenantRuntime, capacity: int) -> "Lane":
        """A lane for a model on this base, with places for so many texts."""
        # Two versions of a model may be served at once: each has a lane.
        self._lanes += 1
        return Lane(runtime, capacity, self._batcher, str(self._lanes))

    def close(self) -> None:
        """Finish what is held, then end the threads; blocks until then."""
        self._batcher.close()

    def _work(self, items: list[Item]) -> list[Answer | Failure]:
        """The answers to one batch; a model that fails alone fails for its own texts only."""
        lanes = {lane for lane, _ in items}
        for lane in lanes:
            lane.begin(sum(1 for other, _ in items if other is lane))
        try:
            pairs = [(lane.runtime, tokens) for lane, tokens in items]
            outputs = self._base.mixed_outputs(pairs)
            if len(outputs) != len(items):
                raise RuntimeError(f"{len(outputs)} outputs for {len(items)} items")
            return answer_mixed(items, outputs)
        finally:
            for lane in lanes:
                lane.end(sum(1 for other, _ in items if other is lane))


class Lane:
    """The queue of one model on a shared base."""

    def __init__(
        self,
        runtime: TenantRuntime,
        capacity: int,
        batcher: Batcher[Any, Item, Answer],
        name: str,
    ) -> None:
        self.runtime = runtime
        self._capacity = capacity
        self._batcher = batcher
        self._name = name
        self._held = 0
        self._in_work = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Texts that no batch has taken yet."""
        # What was cancelled while it was in work is held no longer.
        return max(0, self._held - self._in_work)

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered; never more than the capacity."""
        return self._held

    async def run(self, values: Sequence[str], deadline: float = math.inf) -> list[Answer]:
        """The answer to each text, in order. Either all are admitted or QueueFull is raised."""
        if self._held + len(values) > self._capacity:
            raise QueueFull(f"{self._held} of {self._capacity} places in the queue are taken")

        # Only the event loop changes this number.
        self._held += len(values)
        try:
            own = [(self, text) for text in values]
            return await self._batcher.run(own, deadline, self._name)
        finally:
            self._held -= len(values)

    def begin(self, texts: int) -> None:
        """A batch has taken so many texts; called on a thread of the batcher."""
        with self._lock:
            self._in_work += texts

    def end(self, texts: int) -> None:
        """A batch with so many texts is done."""
        with self._lock:
            self._in_work -= texts

    def close(self) -> None:
        """Nothing: the queue goes on for other models, and who waits here has his answer."""


def size_of(item: Item) -> int:
    """The length of an item in tokens."""
    return len(item[1])


def prepare(values: list[tuple[Lane, str]]) -> list[Item | Failure]:
    """The tokens of the texts; where those of a model fail, its texts are looked at one by one."""
    items: list[Item | Failure] = []
    for lane, text in values:
        try:
            items.append((lane, tokenize_seen(lane.runtime, [text])[0]))
        except Exception as error:  # noqa: BLE001 (it belongs to the caller of this text)
            items.append(Failure(error))
    return items


def answer_mixed(items: list[Item], outputs: list[Outputs]) -> list[Answer | Failure]:
    """The answers to a batch, each decided by the policy of its own model."""
    rows: dict[Lane, list[int]] = {}
    for row, (lane, _) in enumerate(items):
        rows.setdefault(lane, []).append(row)

    answers: dict[int, Answer | Failure] = {}
    for lane, own in rows.items():
        decided = decide_own(lane, [items[row][1] for row in own], [outputs[row] for row in own])
        answers |= dict(zip(own, decided, strict=True))
    return [answers[row] for row in range(len(items))]


def decide_own(
    lane: Lane, tokens: list[Tokens], outputs: list[Outputs]
) -> Sequence[Answer | Failure]:
    """The answers of one model; where they fail together, each alone."""
    try:
        return decide_all(lane.runtime, tokens, stack(outputs))
    except Exception as error:  # noqa: BLE001 (it belongs to the callers of this model)
        if len(tokens) == 1:
            return [Failure(error)]

    decided: list[Answer | Failure] = []
    for one, output in zip(tokens, outputs, strict=True):
        decided += decide_own(lane, [one], [output])
    return decided


def stack(outputs: Sequence[Outputs]) -> Outputs:
    """Outputs of one row each as one; all are of one model."""
    logits = np.concatenate([output.logits for output in outputs])
    features = [output.features for output in outputs]
    given = [one for one in features if one is not None]
    return Outputs(logits, np.concatenate(given) if len(given) == len(outputs) else None)
