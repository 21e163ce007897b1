"""What an evaluation out of fold says besides its figures: whose they are, and what to do next."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bankintent import typed_json
from bankintent.bundle import inside, layout
from bankintent.bundle.layout import Checkpoint
from bankintent.errors import ModelError
from bankintent.inference.labelled import LabelledRows
from bankintent.measures.learning import CurvePoint, foretell_doubling
from bankintent.measures.metrics import ConfusedPair, IntentScores
from bankintent.measures.shares import in_percent, in_points
from bankintent.texts import list_some

WEAK_F1 = 0.7
"""F1 below which an intent is pointed out."""

SAME_SHARE = 0.25
"""Share of the sentences of two intents that are taken for the other one, from which the two may be
one intent."""

SAME_ROWS = 3
"""Least number of such sentences."""

WORTH_POINTS = 0.01
"""Gain of accuracy from which more sentences are worth collecting."""


@dataclass(frozen=True)
class CrossRecord:
    """A cross-validation: which model each figure belongs to, and what more data would give."""

    folds: int
    repeats: int
    accuracies: list[float]
    """One for each repeat."""
    trained_on: int
    """Sentences that the published model is trained on."""
    not_judged: list[str]
    learning_curve: list[CurvePoint]
    """Of a linear probe of the frozen encoder; empty where the bundle records none."""
    doubling: float | None
    """Accuracy of the probe that is expected with twice the sentences."""


@dataclass(frozen=True)
class RecordedCross:
    """What is read of the record of a cross-validation in a bundle."""

    learning_curve: list[CurvePoint] = field(default_factory=list)


@dataclass(frozen=True)
class RecordedValidation:
    """The same of the record of a validation."""

    cross: RecordedCross | None = None
    """None where the bundle was judged otherwise."""


@dataclass(frozen=True)
class BundleMetrics:
    """What is read of a bundle's metrics.json; earlier releases record no validation."""

    validation: RecordedValidation = field(default_factory=RecordedValidation)


def describe_cross(
    source: LabelledRows, right: NDArray[np.bool_], checkpoint: Checkpoint
) -> CrossRecord | None:
    """The record of rows that are held out in turn; None for those of a split.

    `right` is (rows,): whether each answer is correct.
    """
    if source.folds is None:
        return None

    # The answers of one repeat stand together.
    right_of_repeats = right.reshape(source.repeats, -1)
    accuracies = right_of_repeats.mean(axis=1)

    judged = set(source.intents)
    not_judged = [name for name in checkpoint.labels.names if name not in judged]

    curve = _read_curve(checkpoint)
    doubling = None
    if len(curve) > 1:
        doubling = foretell_doubling(curve)

    return CrossRecord(
        folds=source.folds.count,
        repeats=source.repeats,
        accuracies=accuracies.tolist(),
        trained_on=source.folds.assignment.shape[1],
        not_judged=not_judged,
        learning_curve=curve,
        doubling=doubling,
    )


def _read_curve(checkpoint: Checkpoint) -> list[CurvePoint]:
    """The curve that the bundle records."""
    if checkpoint.manifest is None or layout.METRICS not in checkpoint.manifest.files:
        return []

    layout.verify(checkpoint.root, checkpoint.manifest, layout.METRICS)
    text = inside.read_text(checkpoint.root, layout.METRICS)
    try:
        cross = typed_json.parse(BundleMetrics, text).validation.cross
    except ValueError:
        raise ModelError(
            f"{checkpoint.root}/{layout.METRICS} is not what training writes", "Train again"
        ) from None
    return [] if cross is None else cross.learning_curve


def whose_figures(record: CrossRecord, rows: int) -> list[str]:
    """Which model each figure belongs to, a sentence each."""
    models = record.folds * record.repeats
    lines = [
        f"Each of the {rows:,} sentences was answered by a model that had not seen it:"
        f" {models} trainings by the same recipe, each without a {_part(record.folds)} of them."
    ]
    if record.repeats > 1:
        lowest = in_percent(min(record.accuracies))
        highest = in_percent(max(record.accuracies))
        lines.append(
            f"Accuracy by repeat: {lowest} to {highest}; the intervals resample sentences."
        )
    lines.append(
        f"The published model is trained on all {record.trained_on:,} sentences. It has no figure"
        " of its own; with more to learn from than those models it should be no worse."
    )
    if record.not_judged:
        names = list_some(record.not_judged)
        verb = "is" if len(record.not_judged) == 1 else "are"
        lines.append(
            f"{len(record.not_judged)} of its intents {verb} not judged, for want of different"
            f" sentences: {names}."
        )
    return lines


def _part(folds: int) -> str:
    names = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth"}
    return names.get(folds, f"{folds}th")


def next_steps(
    record: CrossRecord, intents: list[IntentScores], pairs: list[ConfusedPair]
) -> list[str]:
    """What would help most, an item each."""
    steps = _weak_intents(record, intents)
    steps += _same_intents(intents, pairs)
    steps += _more_sentences(record)
    return steps


def _weak_intents(record: CrossRecord, intents: list[IntentScores]) -> list[str]:
    weak = []
    for intent in intents:
        # An intent without rows was not judged.
        if intent.support and intent.f1 < WEAK_F1:
            weak.append(intent)
    if not weak:
        return []

    weak.sort(key=lambda intent: (intent.f1, intent.intent))
    named = []
    for intent in weak:
        sentences = intent.support // record.repeats
        named.append(f"{intent.intent} (F1 {intent.f1:.2f}, {sentences} sentences)")
    return [f"- more sentences for {list_some(named)}"]


def _same_intents(intents: list[IntentScores], pairs: list[ConfusedPair]) -> list[str]:
    """Pairs of intents that are taken for each other so often that they may be one."""
    support = {intent.intent: intent.support for intent in intents}

    # Both directions of a confusion are one pair.
    confused: dict[tuple[str, str], int] = {}
    for pair in pairs:
        first, second = sorted([pair.true, pair.predicted])
        known = confused.get((first, second), 0)
        confused[first, second] = known + pair.count

    steps = []
    for (first, second), count in confused.items():
        rows = support[first] + support[second]
        if count >= SAME_ROWS and count >= SAME_SHARE * rows:
            steps.append(
                f"- {first} and {second} may be one intent: {count} of {rows} answers to their"
                " sentences name the other. Join them, or make their sentences differ"
            )
    return steps


def _more_sentences(record: CrossRecord) -> list[str]:
    curve = record.learning_curve
    if len(curve) < 2 or curve[-1].accuracy == 1:
        return []

    # The last point has all sentences, the one before it half of them.
    half = curve[-2]
    whole = curve[-1]
    gained = in_points(whole.accuracy - half.accuracy)
    last = f"from {half.rows:,} to {whole.rows:,} sentences a linear probe gained {gained}"
    if record.doubling is None or record.doubling - whole.accuracy < WORTH_POINTS:
        return [f"- other sentences, not more of the same: {last} points"]

    expected = in_points(record.doubling - whole.accuracy)
    return [f"- twice the sentences: {last} points, another doubling should give about {expected}"]
