"""One model behind one queue, and the three states of its life: loading, ready, draining."""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bankintent.config import ServeConfig
from bankintent.errors import ConfigError, ModelError
from bankintent.inference import runtime as runtimes
from bankintent.inference.runtime import Logits, ModelFacts, Runtime, Tokens
from bankintent.serving.batching import Batcher
from bankintent.serving.limits import NotReady
from bankintent.serving.telemetry import Metrics, log

WARM_UP = [
    "a short text",
    "a text of middling length, as people write it " * 2,
    "a long text " * 60,
] * 8


def find_model(settings: ServeConfig) -> Callable[[], Runtime]:
    """Find and verify the model that the settings name, and give what loads it; a UserError says what is wrong."""
    if settings.model_dir is None:
        raise ConfigError(
            "no model is named", "Set MODEL_DIR, for example MODEL_DIR=artifacts/models/quickstart"
        )
    threads = settings.threads or runtimes.cores()
    # Batches of a few sentences gain more from a thread each than from several threads on one.
    return runtimes.find(settings.model_dir, settings.runtime, threads, workers=threads)


class State(StrEnum):
    """What `/health/ready` reports."""

    LOADING = "the model is still loading"
    READY = "ready"
    DRAINING = "the process is about to end"


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's word on one text."""

    logits: Logits
    truncated: bool
    tokens: int


class Recent:
    """The answers to the texts that were asked last, at most as many as it may hold."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def find(self, texts: Sequence[str]) -> dict[str, Answer]:
        """Those of the texts that are known."""
        found = {text: self._answers[text] for text in texts if text in self._answers}
        for text in found:
            self._answers.move_to_end(text)
        return found

    def keep(self, answers: dict[str, Answer]) -> None:
        """Add answers and drop those that were not asked for the longest time."""
        self._answers |= answers
        while len(self._answers) > self.most:
            self._answers.popitem(last=False)


class Service:
    """Loads a runtime, batches what it is asked, and comes to an end in order."""

    def __init__(self, settings: ServeConfig) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.state = State.LOADING
        self._recent = Recent(settings.cache)
        self._runtime: Runtime | None = None
        self._batcher: Batcher[str, Tokens, Answer] | None = None
        self.metrics.follow(
            queue=lambda: self._batcher.waiting if self._batcher else 0,
            held=lambda: self._batcher.held if self._batcher else 0,
            ready=lambda: self.state is State.READY,
        )

    async def start(self, load: Callable[[], Runtime]) -> None:
        """Load the model and warm it up through the queue itself, then be ready. UserError where it cannot serve."""
        runtime = await asyncio.to_thread(load)
        limits, batching = self.settings.limits, self.settings.batching
        self._runtime = runtime
        self._batcher = Batcher(
            runtime.tokenize,
            self._answer,
            len,
            capacity=limits.max_queue,
            max_items=batching.max_texts,
            max_size=batching.max_tokens,
            workers=runtime.workers,
            observe=self.metrics.observe_batch,
        )
        answers = await self._batcher.run(WARM_UP[: limits.max_queue])
        if any(answer.logits.shape != (len(runtime.facts.labels),) for answer in answers):
            raise ModelError(
                f"{runtime.facts.name} does not give one score for each of its labels",
                "Train it again",
            )
        if self.state is State.LOADING:
            self.state = State.READY
            log(
                "ready",
                model=runtime.facts.name,
                version=runtime.facts.version,
                runtime=runtime.facts.runtime,
            )

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model; NotReady until it is loaded."""
        if self._runtime is None:
            raise NotReady(self.state.value)
        return self._runtime.facts

    async def classify(self, texts: Sequence[str]) -> list[Answer]:
        """One answer for each text, in order. Raises NotReady or QueueFull."""
        if self.state is not State.READY or self._batcher is None:
            raise NotReady(self.state.value)
        if not self._recent.most:
            return await self._batcher.run(texts)
        answers = self._recent.find(texts)
        self.metrics.cached.inc(sum(text in answers for text in texts))
        if missing := list(dict.fromkeys(text for text in texts if text not in answers)):
            fresh = dict(zip(missing, await self._batcher.run(missing), strict=True))
            self._recent.keep(fresh)
            answers |= fresh
        return [answers[text] for text in texts]

    def _answer(self, items: list[Tokens]) -> list[Answer]:
        assert self._runtime is not None
        logits = self._runtime.logits(items)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gave a score that is not finite")
        return [
            Answer(row, item.truncated, len(item)) for row, item in zip(logits, items, strict=True)
        ]

    def drain(self) -> None:
        """Take nothing new from now on; end the process by force where it still lives after `shutdown_s`."""
        self.state = State.DRAINING
        seconds = self.settings.limits.shutdown_s
        log("draining", held=self._batcher.held if self._batcher else 0, at_most_seconds=seconds)
        end = threading.Timer(seconds, self._cut)
        end.daemon = True
        end.start()

    def _cut(self) -> None:
        log("cut off", held=self._batcher.held if self._batcher else 0)
        os._exit(1)

    async def close(self) -> None:
        """Finish what the queue still holds and end its thread."""
        self.state = State.DRAINING
        if self._batcher is not None:
            await asyncio.to_thread(self._batcher.close)
