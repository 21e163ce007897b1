"""Sums up a scored table: rows by intent, rows without an answer, accuracy where labels exist."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bankintent.gradio_app.upload import RowAnswer
from bankintent.serving.page.wording import REFUSALS

TOP_INTENTS = 10
"""Intents that a summary lists; the rows of all others are counted together."""

TOP_LABELS = 5
"""Labels that the model does not know, of which a summary gives the names."""

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows have something in common."""

    name: str
    rows: int
    share: float
    """Of the rows that were predicted."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of the answered rows with a label that the model knows were predicted so."""

    right: int
    rows: int
    low: float
    high: float
    """Ends of the 95 % interval of the share, after Wilson (1927)."""

    @property
    def share(self) -> float:
        return self.right / self.rows


@dataclass(frozen=True, slots=True)
class Labelled:
    """The comparison with the labels that a table has already."""

    accuracy: Accuracy | None
    """None where no row can be compared."""
    without_label: int
    """Predicted rows whose label is empty."""
    unknown: list[Count]
    """Labels that the model does not have, most frequent first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said about a scored table as a whole."""

    rows: int
    predicted: int
    intents: list[Count]
    """The TOP_INTENTS most frequent."""
    other_intents: int
    other_rows: int
    notes: list[Count]
    """Remarks on rows, and how many rows have each."""
    labelled: Labelled | None
    """None where the table has no column of labels."""
    refused: list[Count] = field(default_factory=list)
    """Rows on which the model abstains, by reason in words. They count as predicted nowhere."""

    @property
    def refused_rows(self) -> int:
        return sum(count.rows for count in self.refused)


def sum_up(
    answers: Sequence[RowAnswer], labels: Sequence[str] | None, model_labels: Iterable[str]
) -> Summary:
    """The summary of a scored table.

    `labels` are those that the table has already, one for each row and empty where a row has none;
    None where it has no such column.
    """
    predicted = [answer.answer for answer in answers if answer.answer is not None]
    intents = _count(predicted, len(predicted))
    others = intents[TOP_INTENTS:]
    notes = [answer.note for answer in answers if answer.note]
    refused = [describe_refusal(answer) for answer in answers if answer.is_refused]

    labelled = None
    if labels is not None:
        labelled = compare_with_labels(answers, labels, set(model_labels))
    return Summary(
        rows=len(answers),
        predicted=len(predicted),
        intents=intents[:TOP_INTENTS],
        other_intents=len(others),
        other_rows=sum(count.rows for count in others),
        notes=_count(notes, len(answers)),
        labelled=labelled,
        refused=_count(refused, len(answers)),
    )


def describe_refusal(answer: RowAnswer) -> str:
    """The reason why the model abstains, in words; empty where it answers."""
    reason = answer.decision.reason if answer.decision is not None else ""
    # A newer API may have other reasons.
    return REFUSALS.get(reason, reason)


def compare_with_labels(
    answers: Sequence[RowAnswer], labels: Sequence[str], known: set[str]
) -> Labelled:
    """Predictions beside the labels of the same rows."""
    right = 0
    compared = 0
    without_label = 0
    unknown = []

    for answer, label in zip(answers, labels, strict=True):
        if answer.answer is None:
            continue

        if not label:
            without_label += 1
        elif label not in known:
            unknown.append(label)
        else:
            compared += 1
            right += answer.answer == label

    accuracy = measure(right, compared) if compared else None
    return Labelled(accuracy, without_label, _count(unknown, len(answers)))


def measure(right: int, rows: int) -> Accuracy:
    """A share of rows with its 95 % interval."""
    from scipy import stats

    interval = stats.binomtest(right, rows).proportion_ci(LEVEL, method="wilson")
    return Accuracy(right, rows, float(interval.low), float(interval.high))


def _count(names: Sequence[str], rows: int) -> list[Count]:
    """How often each name occurs, most frequent first, equally frequent ones by name."""
    counted = Counter(sorted(names)).most_common()
    return [Count(name, count, count / rows) for name, count in counted]
