"""Evaluation of predictions on labelled rows: one typed result, as metrics.json has it."""

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bankintent import progress, tracking
from bankintent.bundle import out_of_fold
from bankintent.bundle.layout import Checkpoint, find_manifest
from bankintent.config import BaselineConfig, EvalConfig
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ModelError
from bankintent.files import JsonObject
from bankintent.inference.cross_record import CrossRecord, describe_cross
from bankintent.inference.labelled import CROSS, EvaluationData, LabelledRows, find_known
from bankintent.inference.runtime import Logits, require_finite
from bankintent.measures import metrics
from bankintent.measures.metrics import ConfidenceBin, ConfusedPair, IntentScores

EVALS = Path("artifacts/evals")
"""Folder of the reports, where the API also looks for the plots of a model."""


class Subject(Protocol):
    """Anything that can be evaluated: a checkpoint, or a reference that is none."""

    @property
    def name(self) -> str:
        """Name of the report."""

    @property
    def format(self) -> str:
        """The form in which it was loaded."""


@dataclass(frozen=True)
class SubjectRecord:
    """The model that was evaluated."""

    name: str
    format: str
    labels_hash: str


@dataclass(frozen=True)
class DataRecord:
    """The data that it was evaluated on."""

    name: str
    data_hash: str


@dataclass(frozen=True)
class BootstrapRecord:
    """The resampling behind the intervals."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class MachineRecord:
    """The machine that computed the logits."""

    python: str
    machine: str


@dataclass(frozen=True)
class ReferenceRecord:
    """How a reference that is no checkpoint was made."""

    name: str
    about: str
    """A phrase for the report: how it predicts."""
    seconds: float
    config: JsonObject


@dataclass(frozen=True)
class TrivialRecord:
    """A classifier without an encoder, fitted on the model's training rows, on the same rows."""

    about: str
    """Its method in words."""
    train_rows: int
    accuracy: float
    difference: float
    """Accuracy of the model minus its accuracy."""
    interval: list[float]
    """Lower and upper end of the 95 % interval of the difference, from resampled rows."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation; its fields are the keys of metrics.json, in that order."""

    checkpoint: SubjectRecord
    data: DataRecord
    split: str
    rows: int
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    """Metric -> lower and upper end of its 95 % interval."""
    bootstrap: BootstrapRecord
    per_intent: list[IntentScores]
    """In id order."""
    confused_pairs: list[ConfusedPair]
    """Most frequent first."""
    reliability: list[ConfidenceBin]
    """Lowest confidence first."""
    machine: MachineRecord
    absent_intents: list[str]
    """Intents without rows; macro-F1 is over the others."""
    refused_rows: dict[str, int]
    """Rows of a table that were left out, by their reason."""
    trained_on: int | None
    """Rows whose text also stands in the training data; None where that is not at hand."""
    cross: CrossRecord | None = None
    """How the rows were held out, where they were in turn; None where a split was."""
    trivial: TrivialRecord | None = None
    """None where there is no such classifier to compare with."""
    no_trivial: str | None = None
    """The reason, where there should be one."""
    reference: ReferenceRecord | None = None
    """None for a checkpoint; metrics.json then lacks the key."""

    def to_json(self) -> JsonObject:
        """The object of metrics.json."""
        values = dataclasses.asdict(self)
        if self.reference is None:
            del values["reference"]
        return values


def report_folder(name: str, data: LabelledRows, parent: Path = EVALS) -> Path:
    """`<parent>/<name>`, with the table, or another split than test, at its end.

    So the reports of two splits or tables do not replace each other.
    """
    if data.stem is not None:
        name = f"{name}-{data.stem}"
    if data.split not in ("test", CROSS):
        name = f"{name}-{data.split}"
    return parent / name


def predict(checkpoint: Checkpoint, data: EvaluationData, batch_size: int) -> Logits:
    """(rows, labels) float32 logits, with a progress bar in a terminal.

    Rows that are held out in turn have been answered before the model was published. Raises
    ModelError where a checkpoint was not judged by them.
    """
    if data.source.folds is not None:
        return _read_out_of_fold(checkpoint, data)

    rows = data.rows
    # Imports torch, which references such as majority and TF-IDF are evaluated without.
    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)

    title = f"{checkpoint.name} ({checkpoint.format})"
    with progress.row_progress(title, len(rows)) as advance:
        logits = predictor.logits(rows.texts, batch_size, advance)
    return require_finite(logits, checkpoint.name)


def _read_out_of_fold(checkpoint: Checkpoint, data: EvaluationData) -> Logits:
    answers = out_of_fold.read(checkpoint)
    is_own = checkpoint.manifest is not None and checkpoint.manifest.data_hash == data.source.hash
    rows = len(data.rows)
    if not is_own or answers.ids[:rows] != data.rows.ids:
        raise ModelError(
            f"{checkpoint.root} was not judged by the folds of {data.source.path}",
            "Evaluate it on a table of labelled sentences with --data",
        )
    return answers.logits[:rows]


def evaluate(
    logits: Logits,
    data: EvaluationData,
    subject: Subject,
    config: EvalConfig | BaselineConfig,
    train: SplitData | None = None,
) -> Evaluation:
    """Compute the content of the report from the (rows, labels) logits.

    `train` are the rows that the subject was trained on, where they are at hand: those of `data`
    that are among them are counted.
    """
    source = data.source
    labels = data.labels
    true = np.asarray(data.rows.labels)
    predicted = logits.argmax(axis=1)
    counts = metrics.confusion(true, predicted, len(labels))
    right = predicted == true

    return Evaluation(
        checkpoint=SubjectRecord(subject.name, subject.format, labels.hash),
        data=DataRecord(source.name, source.hash),
        split=source.split,
        rows=len(data.rows) // source.repeats,
        metrics=metrics.summary(logits, true),
        intervals=metrics.bootstrap_intervals(
            true,
            predicted,
            len(labels),
            metrics.Bootstrap(config.bootstrap, config.seed, source.repeats),
        ),
        bootstrap=BootstrapRecord(config.bootstrap, config.seed),
        per_intent=metrics.per_intent(counts, labels.names),
        confused_pairs=metrics.confused_pairs(true, predicted, data.rows.texts, labels.names),
        reliability=metrics.reliability(metrics.softmax(logits), true),
        cross=describe_cross(source, right, subject) if isinstance(subject, Checkpoint) else None,
        machine=MachineRecord(platform.python_version(), platform.machine()),
        absent_intents=data.absent_intents,
        refused_rows=source.refusal_counts,
        trained_on=_count_known(source, train),
    )


def _count_known(source: LabelledRows, train: SplitData | None) -> int | None:
    # Each answer out of fold is by a model that has not seen the sentence.
    if train is None or source.folds is not None:
        return None
    return sum(find_known(source.texts, train))


def log(result: Evaluation, folder: Path, config: EvalConfig | BaselineConfig) -> None:
    """Log the settings, the metrics and the report's files as one MLflow run."""
    name = result.checkpoint.name
    split = result.split
    tags = {
        tracking.KIND: tracking.EVALUATION,
        "dataset": result.data.name,
        "checkpoint": name,
        "split": split,
    }
    values = tracking.headline(result.metrics)
    values |= {f"{split}_{key}": value for key, value in result.metrics.items()}

    if result.reference is not None:
        tags[tracking.KIND] = tracking.REFERENCE
        tags["reference"] = result.reference.name
        values["seconds"] = result.reference.seconds
    if isinstance(config, EvalConfig):
        tags |= _training_tags(config.checkpoint_path)
    if result.trivial is not None:
        values[f"{split}_trivial_accuracy"] = result.trivial.accuracy

    with tracking.run(config.tracking, f"{name}-eval-{split}", tags) as tracker:
        tracker.params(config.model_dump(mode="json", exclude={"tracking"}))
        tracker.metrics(values)
        tracker.files(folder)


def _training_tags(checkpoint: Path) -> dict[str, str]:
    """What tells of the run that trained a bundle; nothing for a checkpoint of other origin."""
    manifest = find_manifest(checkpoint)
    if manifest is None:
        return {}

    tags = {"regime": manifest.settings.get("regime"), tracking.TRAINING_RUN: manifest.run_id}
    return {key: str(value) for key, value in tags.items() if value}
