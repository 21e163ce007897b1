"""One model behind one queue, in three states: loading, ready, draining."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from bankintent.config import ServeConfig
from bankintent.decision.deciding import Decision, Floats, decide
from bankintent.decision.policy import Policy
from bankintent.errors import ConfigError, ModelError
from bankintent.explanation.explainer import Explainer
from bankintent.inference import choice
from bankintent.inference.runtime import Logits, ModelFacts, Outputs, Runtime, Tokens
from bankintent.serving.batching import Batcher, Bounds
from bankintent.serving.metrics import ModelMetrics
from bankintent.serving.refusals import Invalid, NotReady
from bankintent.serving.telemetry import log_event

WARM_UP = [
    "a short text",
    "a text of middling length, as people write it " * 2,
    "a long text " * 60,
] * 8
"""Texts of several lengths: the first batches of a runtime are slow, so no user should get them."""


def find_model(settings: ServeConfig) -> Callable[[], Runtime]:
    """Find and verify the model that the settings name, and return what loads it.

    Raises a UserError where there is no such model.
    """
    if settings.model_dir is None:
        raise ConfigError(
            "no model is named", "Set MODEL_DIR, for example MODEL_DIR=artifacts/models/quickstart"
        )

    return choice.find(settings.model_dir, settings.runtime, settings.threads).load


class State(StrEnum):
    """The state of a service, in the words of `/health/ready`."""

    LOADING = "the model is still loading"
    READY = "ready"
    DRAINING = "the process is about to end"


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one text."""

    outputs: Outputs
    """(labels,) logits and (width,) features, float32."""
    probabilities: Floats
    """(labels,), calibrated where the model has a policy."""
    decision: Decision
    truncated: bool
    tokens: int

    @property
    def logits(self) -> Logits:
        """(labels,) float32."""
        return self.outputs.logits


class Recent:
    """A cache of the answers to the `most` texts that were asked last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def find(self, texts: Sequence[str]) -> dict[str, Answer]:
        """The cached answers to these texts, which become the most recent ones."""
        answers = {text: self._answers[text] for text in texts if text in self._answers}
        # The end of the dictionary is the most recent; `keep` drops from its front.
        for text in answers:
            self._answers.move_to_end(text)
        return answers

    def keep(self, answers: dict[str, Answer]) -> None:
        """Add answers and drop those that were not used for the longest time."""
        self._answers |= answers
        while len(self._answers) > self.most:
            self._answers.popitem(last=False)


class Queue(Protocol):
    """Where the texts of a model wait for a batch: its own queue, or a part of a shared one."""

    @property
    def waiting(self) -> int:
        """Texts that no batch has taken yet."""

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered."""

    async def run(self, values: Sequence[str], deadline: float = math.inf) -> list[Answer]:
        """The answer to each text, in order. Raises QueueFull, or what failed for a text."""
        ...

    def close(self) -> None:
        """Finish what is held; blocks until then."""


SharedQueue = Callable[[Any, ServeConfig], Queue]
"""Gives the queue of a runtime that shares its base with others, under the settings of its model.
"""


class Service:
    """Loads one model, answers texts with it in batches, and finishes what it admitted at the end.

    It depends neither on the app nor on the process that it runs in. `name` is that of its model
    where there are several; otherwise the model has that of its folder. `share` gives the queue of
    a model on a shared base.
    """

    def __init__(
        self,
        settings: ServeConfig,
        metrics: ModelMetrics,
        name: str | None = None,
        share: SharedQueue | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.name = name
        self.state = State.LOADING
        self._share = share
        self._recent = Recent(settings.cache)
        self._runtime: Runtime | None = None
        self._explainer: Explainer | None = None
        self._batcher: Queue | None = None

        metrics.follow(
            queue=lambda: self.waiting,
            held=lambda: self.held,
            ready=lambda: self.state is State.READY,
        )

    @property
    def waiting(self) -> int:
        """Texts that no batch has taken yet."""
        return self._batcher.waiting if self._batcher else 0

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered."""
        return self._batcher.held if self._batcher else 0

    @property
    def has_model(self) -> bool:
        """Whether the facts about the model are known."""
        return self._runtime is not None

    @property
    def facts(self) -> ModelFacts:
        """The facts about the model; NotReady until it is loaded."""
        if self._runtime is None:
            raise NotReady(self.state.value)
        facts = self._runtime.facts
        return facts if self.name is None else replace(facts, name=self.name)

    @property
    def folder_name(self) -> str:
        """The name of the model's folder, by which evaluations call it."""
        if self._runtime is None:
            raise NotReady(self.state.value)
        return self._runtime.facts.name

    @property
    def policy(self) -> Policy | None:
        """The model's policy, None where it has none; NotReady until it is loaded."""
        if self._runtime is None:
            raise NotReady(self.state.value)
        return self._runtime.policy

    @property
    def explainer(self) -> Explainer:
        """Explains the model's answers; NotReady until it is loaded."""
        if self._explainer is None:
            raise NotReady(self.state.value)
        return self._explainer

    async def start(self, load: Callable[[], Runtime]) -> None:
        """Load the model, warm it up through the queue, then be ready.

        Raises a UserError where the model cannot be served.
        """
        runtime = await asyncio.to_thread(load)
        self._runtime = runtime
        self._explainer = Explainer(runtime.facts.folder, runtime.facts.labels)
        facts = self.facts

        # A shared base is warm: what is new is only checked.
        is_shared = self._share is not None and hasattr(runtime, "base")
        self._batcher = self._share_queue(runtime) if is_shared else self._make_batcher(runtime)
        # A short queue would refuse all of the texts at once.
        most = 1 if is_shared else self.settings.limits.max_queue
        try:
            answers = await self._batcher.run(WARM_UP[:most])
        except FloatingPointError as error:
            raise ModelError(f"{facts.name}: {error}", "Train it again") from None

        expected_shape = (len(facts.labels),)
        if any(answer.logits.shape != expected_shape for answer in answers):
            raise ModelError(
                f"{facts.name} does not give one score for each of its labels", "Train it again"
            )

        # A signal may have come while the model was loading: draining is final.
        if self.state is State.LOADING:
            self.state = State.READY
            log_event("ready", model=facts.name, version=facts.version, runtime=facts.runtime)

    def _share_queue(self, runtime: Runtime) -> Queue:
        assert self._share is not None
        return self._share(runtime, self.settings)

    def _make_batcher(self, runtime: Runtime) -> Batcher[str, Tokens, Answer]:
        batching = self.settings.batching
        bounds = Bounds(
            capacity=self.settings.limits.max_queue,
            max_items=batching.max_texts,
            max_size=batching.max_tokens,
        )

        def answer(items: list[Tokens]) -> list[Answer]:
            return answer_batch(runtime, items)

        def tokenize(texts: list[str]) -> list[Tokens]:
            return tokenize_seen(runtime, texts)

        return Batcher(
            tokenize,
            answer,
            len,
            bounds=bounds,
            workers=runtime.workers,
            observe=self.metrics.observe_batch,
        )

    async def compute(self, texts: Sequence[str], deadline: float = math.inf) -> list[Answer]:
        """One answer for each text, in order, none of them from the cache. Raises as `classify`.

        For texts that nobody has sent: the cache is for those that may be sent again.
        """
        if self.state is not State.READY or self._batcher is None:
            raise NotReady(self.state.value)
        return await self._batcher.run(texts, deadline)

    async def classify(self, texts: Sequence[str], deadline: float = math.inf) -> list[Answer]:
        """One answer for each text, in order. Raises NotReady or QueueFull.

        What no batch has taken at the deadline, a time of `time.monotonic`, is not computed.
        """
        if self.state is not State.READY or self._batcher is None:
            raise NotReady(self.state.value)

        if self._recent.most == 0:
            return await self._batcher.run(texts, deadline)

        answers = self._recent.find(texts)
        repeated = [text for text in texts if text in answers]
        self.metrics.count_cached(len(repeated))

        # A text that appears twice in the request is computed once.
        missing = list(dict.fromkeys(text for text in texts if text not in answers))
        if missing:
            new_answers = await self._batcher.run(missing, deadline)
            by_text = dict(zip(missing, new_answers, strict=True))
            self._recent.keep(by_text)
            # Not read from the cache, which may be smaller than this request.
            answers |= by_text

        return [answers[text] for text in texts]

    def drain(self) -> None:
        """Refuse new texts from here on; those that were admitted are still answered."""
        self.state = State.DRAINING

    async def close(self) -> None:
        """Finish what the queue still holds and end its threads."""
        self.drain()

        if self._batcher is not None:
            # In a thread: the event loop must go on to send the answers.
            await asyncio.to_thread(self._batcher.close)

    def unload(self) -> None:
        """Let go of the model, once closed."""
        self._runtime = None
        self._explainer = None
        self._batcher = None
        self._recent = Recent(0)


def tokenize_seen(runtime: Runtime, texts: list[str]) -> list[Tokens]:
    """The tokens of the texts. Raises Invalid where one has none: it is a blank to this model.

    A tokenizer that marks neither begin nor end of a text gives none for characters that it drops.
    """
    items = runtime.tokenize(texts)
    if any(len(item) == 0 for item in items):
        raise Invalid("a text is blank to this model, which reads none of its characters")
    return items


def answer_batch(runtime: Runtime, items: list[Tokens]) -> list[Answer]:
    """The model's answers to the items of one batch, each answered or refused by its policy."""
    outputs = runtime.outputs(items)
    return decide_all(runtime, items, outputs)


def decide_all(runtime: Runtime, items: Sequence[Tokens], outputs: Outputs) -> list[Answer]:
    """The answers that a model's outputs of some items give, by its policy.

    Raises FloatingPointError where a score is not finite.
    """
    # JSON has no NaN, and no intent can be chosen from one.
    if not np.isfinite(outputs.logits).all():
        raise FloatingPointError("the model gave a score that is not finite")

    decisions = decide(outputs.logits, outputs.features, runtime.policy)
    answers = []
    for row, item in enumerate(items):
        answer = Answer(
            outputs=outputs.row(row),
            probabilities=decisions.probabilities[row].copy(),
            decision=decisions.of(row),
            truncated=item.truncated,
            tokens=len(item),
        )
        answers.append(answer)
    return answers
