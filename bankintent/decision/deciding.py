"""The one function that turns logits and features into answers and refusals."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.policy import Policy, Temperature
from bankintent.decision.prototypes import Nearness
from bankintent.decision.scope_scores import gather, weighted_sum
from bankintent.measures.metrics import softmax

Floats = NDArray[np.floating[Any]]

LARGEST_LOG_TEMPERATURE = 5.0
"""Temperatures stay between exp(-5) and exp(5), wherever a text lies."""


TEXTS_AT_ONCE = 1024
"""Texts that are decided together: the scores of a policy are several numbers for each intent."""

DECIMALS = 6
"""Decimals of a score that is written down; the next ones are rounding errors of float32."""


class Verdict(StrEnum):
    """What is done with a text."""

    ANSWER = "answer"
    ABSTAIN = "abstain"


class Reason(StrEnum):
    """Why a text is not answered; empty where it is."""

    NONE = ""
    OUT_OF_SCOPE = "out_of_scope"
    """It does not look like any of the model's intents."""
    BELOW_THRESHOLD = "below_threshold"
    """The score of the best intent is too low to be trusted."""
    CLOSE_CALL = "close_call"
    """One of the two best intents is right with a score that would be enough, but not which."""


REASONS = tuple(Reason)
"""Reason of each code in `Decisions.reasons`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one text."""

    label: int
    """Id of the best intent, also where the text is not answered."""
    score: float
    """Probability of it, calibrated where the model has a policy."""
    second: int
    """Id of the second-best intent; that of the best where there is only one intent."""
    margin: float
    """Score of the best minus that of the second."""
    in_scope: bool
    verdict: Verdict
    reason: Reason

    @property
    def close_to(self) -> tuple[int, int] | None:
        """Ids of the two intents of a close call, the best first; None of any other decision."""
        if self.reason is not Reason.CLOSE_CALL:
            return None
        return self.label, self.second


@dataclass(frozen=True, slots=True)
class Decisions:
    """The answers to some texts."""

    probabilities: Floats
    """(texts, labels) calibrated where the model has a policy; a row sums to 1."""
    labels: NDArray[np.intp]
    """(texts,) ids of the best intents: those of the highest logits, whatever the policy."""
    seconds: NDArray[np.intp]
    """(texts,) ids of the second-best intents."""
    reasons: NDArray[np.int8]
    """(texts,) indices in REASONS."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def scores(self) -> Floats:
        """(texts,) probability of the best intent."""
        return _at(self.probabilities, self.labels)

    @property
    def margins(self) -> Floats:
        """(texts,) probability of the best intent minus that of the second."""
        return self.scores - _at(self.probabilities, self.seconds)

    @property
    def in_scope(self) -> NDArray[np.bool_]:
        """(texts,) whether each looks like one of the model's intents."""
        return self.reasons != REASONS.index(Reason.OUT_OF_SCOPE)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(texts,) whether each is answered."""
        return self.reasons == REASONS.index(Reason.NONE)

    def of(self, row: int) -> Decision:
        """The answer to one text."""
        label = int(self.labels[row])
        second = int(self.seconds[row])
        score = float(self.probabilities[row, label])
        reason = REASONS[self.reasons[row]]
        return Decision(
            label=label,
            score=score,
            second=second,
            margin=score - float(self.probabilities[row, second]),
            in_scope=reason is not Reason.OUT_OF_SCOPE,
            verdict=Verdict.ANSWER if reason is Reason.NONE else Verdict.ABSTAIN,
            reason=reason,
        )


def decide(
    logits: NDArray[np.float32], features: NDArray[np.float32] | None, policy: Policy | None
) -> Decisions:
    """The answers to texts with (texts, labels) logits and (texts, width) features.

    Without a policy the probabilities are the softmax of the logits, and every text is answered.
    The features may be None where the policy does not need them, and where there are no texts.
    """
    texts = len(logits)
    if texts <= TEXTS_AT_ONCE:
        return _decide_at_once(logits, features, policy)

    made = Decisions(
        probabilities=np.empty(logits.shape),
        labels=np.empty(texts, dtype=np.intp),
        seconds=np.empty(texts, dtype=np.intp),
        reasons=np.empty(texts, dtype=np.int8),
    )
    for start in range(0, texts, TEXTS_AT_ONCE):
        rows = slice(start, start + TEXTS_AT_ONCE)
        part = _decide_at_once(logits[rows], None if features is None else features[rows], policy)
        made.probabilities[rows] = part.probabilities
        made.labels[rows] = part.labels
        made.seconds[rows] = part.seconds
        made.reasons[rows] = part.reasons
    return made


def _decide_at_once(
    logits: NDArray[np.float32], features: NDArray[np.float32] | None, policy: Policy | None
) -> Decisions:
    labels = logits.argmax(axis=1)
    seconds = _second_best(logits, labels)
    if policy is None or len(logits) == 0:
        probabilities = softmax(logits)
        return Decisions(probabilities, labels, seconds, np.zeros(len(labels), dtype=np.int8))

    evidence = gather(logits, features, policy.geometry)
    temperatures = temperatures_of(policy.record.temperature, evidence.nearness, len(labels))
    probabilities = softmax(logits / temperatures[:, np.newaxis])

    reasons = np.zeros(len(labels), dtype=np.int8)
    _mark_low_scores(reasons, probabilities, labels, seconds, policy)
    # Last: a text that is none of the intents is refused for that, whatever its score.
    rule = policy.record.out_of_scope
    if rule is not None:
        # A sum that is no number is at least nothing: such a text is refused, not answered.
        is_inside = weighted_sum(evidence, rule.weights) >= rule.threshold
        reasons[~is_inside] = REASONS.index(Reason.OUT_OF_SCOPE)
    return Decisions(probabilities, labels, seconds, reasons)


def _second_best(logits: NDArray[np.float32], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    if logits.shape[1] == 1:
        return labels
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return others.argmax(axis=1)


def rank_intents(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """(..., count) ids of the best intents by (..., labels) logits, best first; of equal ones the
    lower id."""
    # By the logits, as the best is chosen: of two that differ, the probabilities may be the same.
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]


def temperatures_of(
    temperature: Temperature, near: Nearness | None, texts: int
) -> NDArray[np.float64]:
    """(texts,) the temperature of each text, by which its logits are divided."""
    logs = np.full(texts, temperature.bias)
    if near is not None:
        logs += temperature.own * near.own + temperature.other * near.other
    return np.exp(np.clip(logs, -LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE))


def _mark_low_scores(
    reasons: NDArray[np.int8],
    probabilities: Floats,
    labels: NDArray[np.intp],
    seconds: NDArray[np.intp],
    policy: Policy,
) -> None:
    if policy.minimum is None:
        return

    scores = _at(probabilities, labels)
    needed = policy.minimum[labels]
    is_low = scores < needed
    both = scores + _at(probabilities, seconds)
    is_close = is_low & (both >= needed) & (labels != seconds)

    reasons[is_low] = REASONS.index(Reason.BELOW_THRESHOLD)
    reasons[is_close] = REASONS.index(Reason.CLOSE_CALL)


def _at(values: Floats, columns: NDArray[np.intp]) -> Floats:
    """One value of each row."""
    chosen: Floats = values[np.arange(len(columns)), columns]
    return chosen


def count_reasons(decisions: Decisions) -> dict[Reason, int]:
    """How many texts are refused for each reason."""
    counts = np.bincount(decisions.reasons, minlength=len(Reason))
    return {reason: int(counts[code]) for code, reason in enumerate(Reason) if reason}
