"""Two models on the same rows: their paired difference, and what changes with the other one.

Differences are those of B minus A: A is what one has, B what may take its place.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bankintent.bundle.layout import Checkpoint, open_checkpoint
from bankintent.config import CompareModelsConfig
from bankintent.errors import DataError, LabelError
from bankintent.files import JsonObject
from bankintent.inference import labelled, trained_on
from bankintent.inference.evaluation import (
    BootstrapRecord,
    DataRecord,
    SubjectRecord,
    predict,
    report_folder,
)
from bankintent.inference.label_names import Renames, describe_missing, read_renames
from bankintent.inference.labelled import EvaluationData
from bankintent.labels import LabelSchema
from bankintent.measures import metrics, paired
from bankintent.measures.arrays import Bools, Floats, Ints

COMPARISONS = Path("artifacts/comparisons")
"""Folder of the reports."""


@dataclass(frozen=True)
class Pair:
    """Two models with the same intents, by name."""

    a: Checkpoint
    b: Checkpoint
    labels: LabelSchema
    """The intents of both, after renaming, in the order of A."""
    renames: Renames


@dataclass(frozen=True)
class Answers:
    """The answers of one model to all rows."""

    predicted: Ints
    """(rows,) ids of the pair's labels."""
    scores: Floats
    """(rows,) softmax probability of the answer."""


@dataclass(frozen=True)
class ModelFigures:
    """One model on all rows."""

    model: SubjectRecord
    path: str
    metrics: dict[str, float]
    """accuracy and macro_f1."""
    intervals: dict[str, list[float]]
    """Metric -> lower and upper end of its 95 % interval."""
    trained_on: int | None
    """Rows whose text also stands in its training data; None where that is not at hand."""


@dataclass(frozen=True)
class Difference:
    """The accuracy of B minus that of A on some rows."""

    rows: int
    a_accuracy: float
    b_accuracy: float
    difference: float
    interval: list[float]
    """Lower and upper end of its 95 % interval, from resampled rows."""
    only_a: int
    """Rows that A alone answers correctly."""
    only_b: int
    p: float
    """Of the exact McNemar test."""


@dataclass(frozen=True)
class IntentChange:
    """Correct answers of both models among the rows of one intent."""

    intent: str
    rows: int
    a_right: int
    b_right: int


@dataclass(frozen=True)
class ModelComparison:
    """The result of a comparison; its fields are the keys of metrics.json, in that order."""

    a: ModelFigures
    b: ModelFigures
    data: DataRecord
    split: str
    difference: Difference
    changed: int
    """Rows that the two models answer differently."""
    unseen: Difference | None
    """The difference on the rows that neither was trained on; None where those are all or none, or
    where the training data of one is not at hand."""
    intents: list[IntentChange]
    """Of the intents with rows, those that B loses most by first."""
    absent_intents: list[str]
    refused_rows: dict[str, int]
    bootstrap: BootstrapRecord

    def to_json(self) -> JsonObject:
        """The object of metrics.json."""
        return dataclasses.asdict(self)


def open_pair(settings: CompareModelsConfig) -> Pair:
    """Open and verify both models.

    Raises LabelError that names the intents that only one of them has, and what opening raises.
    """
    a = open_checkpoint(settings.model_a)
    b = open_checkpoint(settings.model_b)
    renames = read_renames(settings.label_map)

    labels = LabelSchema(tuple(dict.fromkeys(_renamed(a, renames))))
    others = LabelSchema(tuple(dict.fromkeys(_renamed(b, renames))))
    only_a = [name for name in labels.names if name not in others.label2id]
    only_b = [name for name in others.names if name not in labels.label2id]
    if only_a or only_b:
        faults = []
        if only_a:
            faults.append(describe_missing(only_a, others, "A", "B"))
        if only_b:
            faults.append(describe_missing(only_b, labels, "B", "A"))
        raise LabelError(
            f"{settings.model_a} (A) and {settings.model_b} (B) have other intents:"
            f" {'; '.join(faults)}",
            "Give the names that are the same intent with --map (`old name: new name`), or train"
            " both on the same intents",
        )
    return Pair(a, b, labels, renames)


def _renamed(checkpoint: Checkpoint, renames: Renames) -> list[str]:
    """The names of a model's intents in id order, after renaming."""
    return [renames.get(name, name) for name in checkpoint.labels.names]


def find_common_data(pair: Pair, settings: CompareModelsConfig) -> EvaluationData:
    """The rows that the settings name, by default those of the data that both models record.

    Raises DataError where the models record different data, and what reading raises.
    """
    if settings.data_dir is None and _data_hash(pair.a) != _data_hash(pair.b):
        raise DataError(
            f"{settings.model_a} and {settings.model_b} were trained on different data",
            "Name the rows to compare them on with --data",
        )
    # A sentence counts once: several answers of a model to it are no independent rows.
    rows = labelled.find_rows(pair.a, settings).of_first_repeat()
    return rows.of(pair.labels, pair.renames, "the models")


def _data_hash(checkpoint: Checkpoint) -> str | None:
    return None if checkpoint.manifest is None else checkpoint.manifest.data_hash


def answer_rows(
    checkpoint: Checkpoint, pair: Pair, data: EvaluationData, settings: CompareModelsConfig
) -> Answers:
    """The answers of one model of the pair, in float32 as `python -m eval` computes them."""
    decisions = predict(checkpoint, data, settings.batch_size).decisions
    ids = [pair.labels.label2id[name] for name in _renamed(checkpoint, pair.renames)]
    return Answers(np.asarray(ids)[decisions.labels], decisions.scores)


def compare_answers(
    pair: Pair, data: EvaluationData, a: Answers, b: Answers, settings: CompareModelsConfig
) -> ModelComparison:
    """The figures of both models and of their difference."""
    true = np.asarray(data.rows.labels)
    a_right = a.predicted == true
    b_right = b.predicted == true
    a_known = _find_known(pair.a, data)
    b_known = _find_known(pair.b, data)

    return ModelComparison(
        a=_figures(pair.a, data, a.predicted, a_known, settings),
        b=_figures(pair.b, data, b.predicted, b_known, settings),
        data=DataRecord(data.source.name, data.source.hash),
        split=data.source.split,
        difference=_measure_difference(a_right, b_right, settings),
        changed=int(np.sum(a.predicted != b.predicted)),
        unseen=_unseen(a_right, b_right, a_known, b_known, settings),
        intents=_intent_changes(true, a_right, b_right, data.labels),
        absent_intents=data.absent_intents,
        refused_rows=data.source.refusal_counts,
        bootstrap=BootstrapRecord(settings.bootstrap, settings.seed),
    )


def _find_known(checkpoint: Checkpoint, data: EvaluationData) -> Bools | None:
    """(rows,) whether a text stands in the training data; None where that is not at hand."""
    train = trained_on.trained_rows(checkpoint, data.source)
    if train is None or data.source.folds is not None:
        return None
    return np.asarray(trained_on.find_known(data.rows.texts, train))


def _figures(
    checkpoint: Checkpoint,
    data: EvaluationData,
    predicted: Ints,
    known: Bools | None,
    settings: CompareModelsConfig,
) -> ModelFigures:
    true = np.asarray(data.rows.labels)
    num_labels = len(data.labels)
    counts = metrics.confusion(true, predicted, num_labels)
    macro_f1 = metrics.macro_f1(counts, metrics.occurring(true, num_labels))

    return ModelFigures(
        model=SubjectRecord(checkpoint.name, checkpoint.format, checkpoint.labels.hash),
        path=str(checkpoint.root),
        metrics={"accuracy": float((predicted == true).mean()), "macro_f1": float(macro_f1)},
        intervals=metrics.bootstrap_intervals(
            true, predicted, num_labels, metrics.Bootstrap(settings.bootstrap, settings.seed)
        ),
        trained_on=None if known is None else int(known.sum()),
    )


def _measure_difference(a_right: Ints, b_right: Ints, settings: CompareModelsConfig) -> Difference:
    """Of (rows,) booleans: whether each model answers a row correctly."""
    test = paired.mcnemar(a_right, b_right)
    # Of one seed each: only rows are drawn.
    interval = paired.bootstrap_difference(
        b_right[None, :], a_right[None, :], settings.bootstrap, settings.seed
    )
    a_accuracy = float(a_right.mean())
    b_accuracy = float(b_right.mean())
    return Difference(
        rows=len(a_right),
        a_accuracy=a_accuracy,
        b_accuracy=b_accuracy,
        difference=b_accuracy - a_accuracy,
        interval=interval,
        only_a=test.only_a,
        only_b=test.only_b,
        p=test.p,
    )


def _unseen(
    a_right: Ints,
    b_right: Ints,
    a_known: Bools | None,
    b_known: Bools | None,
    settings: CompareModelsConfig,
) -> Difference | None:
    """The difference on rows that neither model was trained on, where they are a part of all."""
    if a_known is None or b_known is None:
        return None

    fresh = ~(a_known | b_known)
    if fresh.all() or not fresh.any():
        return None
    return _measure_difference(a_right[fresh], b_right[fresh], settings)


def _intent_changes(
    true: Ints, a_right: Ints, b_right: Ints, labels: LabelSchema
) -> list[IntentChange]:
    """The intents with rows, those that B loses most by first."""
    rows = np.bincount(true, minlength=len(labels))
    a_counts = np.bincount(true[a_right], minlength=len(labels))
    b_counts = np.bincount(true[b_right], minlength=len(labels))

    changes = []
    # Stable: of equal changes the intent with the lower id comes first.
    for label in np.argsort(b_counts - a_counts, kind="stable"):
        if rows[label] > 0:
            name = labels.names[label]
            change = IntentChange(
                name, int(rows[label]), int(a_counts[label]), int(b_counts[label])
            )
            changes.append(change)
    return changes


def pair_folder(pair: Pair, data: EvaluationData) -> Path:
    """`artifacts/comparisons/<a>-vs-<b>`, with the table or another split than test at its end."""
    return report_folder(f"{pair.a.name}-vs-{pair.b.name}", data.source, COMPARISONS)
