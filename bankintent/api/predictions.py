"""The answer to a text, as Python has it: the fields of an answer of the HTTP API."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bankintent.decision.deciding import Decisions, Floats
    from bankintent.inference.runtime import Outputs, Tokens

DecisionName = Literal["answer", "abstain"]
"""What a model does with a text."""

ReasonName = Literal["", "out_of_scope", "below_threshold", "close_call"]
"""Why it abstains; empty where it answers."""


@dataclass(frozen=True, slots=True)
class Score:
    """An intent and its probability."""

    label: str
    score: float
    """From 0 to 1, with six decimals; calibrated where the model has a policy."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text; its fields are those of an answer of the HTTP API.

    `dataclasses.asdict` makes it a dictionary for JSON, and `pandas.DataFrame` takes a list of
    predictions as rows.
    """

    label: str
    """The best intent, also where the model abstains: `answer` is the label to act on."""
    score: float
    """Probability of the label, from 0 to 1, with six decimals; calibrated where the model has a
    policy."""
    decision: DecisionName
    """`answer`, or `abstain` where the label is not to be acted on."""
    reason: ReasonName
    """Why the model abstains: `out_of_scope` (the text looks like none of its intents),
    `below_threshold` (the score is too low to be trusted), `close_call` (one of two intents, but
    not which). Empty where it answers."""
    in_scope: bool
    """Whether the text looks like one of the model's intents."""
    close_to: tuple[str, str] | None
    """The two intents of a close call, the best first; None otherwise."""
    top_k: tuple[Score, ...]
    """The best intents, best first, also where the model abstains."""
    truncated: bool
    """The text was longer than the model reads; its end was cut off."""

    @property
    def answer(self) -> str | None:
        """The label, or None where the model abstains: the value for a program to act on."""
        return self.label if self.decision == "answer" else None


def make_predictions(
    items: "Sequence[Tokens]",
    outputs: "Outputs",
    decided: "Decisions",
    labels: Sequence[str],
    top_k: int,
) -> "Iterator[Prediction]":
    """The predictions of some texts from their tokens, outputs and decisions, in order.

    `labels` are the names of the label ids; of more than there are, `top_k` gives all.
    """
    # Late, so that the classes of this module can be imported without NumPy.
    from bankintent.decision.deciding import rank_intents

    best = rank_intents(outputs.logits, top_k)
    for row, item in enumerate(items):
        decision = decided.of(row)
        probabilities = decided.probabilities[row]
        scores = tuple(_score(probabilities, int(label), labels) for label in best[row])
        close = decision.close_to

        yield Prediction(
            label=scores[0].label,
            score=scores[0].score,
            decision=decision.verdict.value,
            reason=decision.reason.value,
            in_scope=decision.in_scope,
            close_to=None if close is None else (labels[close[0]], labels[close[1]]),
            top_k=scores,
            truncated=item.truncated,
        )


def _score(probabilities: "Floats", label: int, labels: Sequence[str]) -> Score:
    from bankintent.decision.deciding import DECIMALS

    return Score(labels[label], round(float(probabilities[label]), DECIMALS))
