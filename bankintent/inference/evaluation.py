"""Evaluation of predictions on labelled rows: one typed result, as metrics.json has it."""

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from bankintent import progress, tracking
from bankintent.bundle import out_of_fold
from bankintent.bundle.layout import Checkpoint, find_manifest
from bankintent.config import BaselineConfig, EvalConfig
from bankintent.corpus.dataset import SplitData
from bankintent.decision.deciding import Decisions
from bankintent.errors import ModelError
from bankintent.files import JsonObject
from bankintent.inference import outside
from bankintent.inference.cross_record import CrossRecord, describe_cross
from bankintent.inference.labelled import CROSS, EvaluationData, LabelledRows
from bankintent.inference.outside import ScopeOnRows, measure_scope
from bankintent.inference.policy_on_rows import PolicyOnRows, measure_policy
from bankintent.inference.predicted import Predicted
from bankintent.inference.runtime import Outputs, require_finite
from bankintent.inference.slicing import Slicing
from bankintent.inference.trained_on import find_known
from bankintent.measures import calibration, metrics, selective, slices
from bankintent.measures.arrays import Bools, Ints
from bankintent.measures.calibration import Binning, CalibrationError, ConfidenceBin
from bankintent.measures.metrics import Bootstrap, ConfusedPair, IntentScores
from bankintent.measures.selective import CoverageAt, SelectiveFigures
from bankintent.measures.slices import Answered, SliceTable

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
class CalibrationRecord:
    """How far scores are from the shares of right answers."""

    equal_width: CalibrationError
    """Over bins of scores of one width; its error is `ece` of the metrics."""
    equal_mass: CalibrationError
    """Over bins of as many rows each."""
    brier: float
    """Brier score, from 0 to 2."""


@dataclass(frozen=True)
class NearSentence:
    """A training sentence that lies near to a row."""

    id: str
    intent: str
    similarity: float
    """Cosine of what the last layer reads of the two."""
    text: str | None
    """None where texts were not asked for, or the bundle holds none."""


@dataclass(frozen=True)
class WeighedWord:
    """A word of a text, or some words of a long one, and what it weighs in the answer."""

    word: str
    weight: float
    """Log-odds of the answered intent that are lost without it; negative where they rise."""


@dataclass(frozen=True)
class WrongRow:
    """A row with another answer than its intent."""

    id: str
    label: str
    """Its intent."""
    predicted: str
    score: float
    """Of the predicted intent."""
    decision: str
    """Whether the model would have given the answer: `answer` or `abstain`."""
    neighbours: list[NearSentence] | None
    """The nearest training sentences, the nearest first; None where the model has no index."""
    text: str | None
    """None where texts were not asked for."""
    words: list[WeighedWord] | None = None
    """The words of the text in its order; None where texts were not asked for."""


@dataclass(frozen=True)
class CleanedRecord:
    """Figures without the rows whose label an audit suspects; not the official ones."""

    about: str
    left_out: int
    """Rows that are suspected."""
    rows: int
    """The others."""
    accuracy: float
    interval: list[float]
    """95 %, as Clopper and Pearson (1934) have it."""
    coverage_at: list[CoverageAt]


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
    calibration: CalibrationRecord
    selective: SelectiveFigures
    """What it could promise if it might decline."""
    policy: PolicyOnRows | None
    """What the policy of the model means on these rows; None where it has none."""
    out_of_scope: ScopeOnRows | None
    """The out-of-scope sentences of the split; None where it has none."""
    slices: list[SliceTable]
    """A table for each column of `by`, in that order."""
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
    wrong: list[WrongRow] | None = None
    """Wrong answers, the most confident first; None for a reference."""
    cleaned: CleanedRecord | None = None
    """None where no suspected rows were named."""
    reference: ReferenceRecord | None = None
    """None for a checkpoint."""

    def to_json(self) -> JsonObject:
        """The object of metrics.json; without the keys of what there is none of."""
        values = dataclasses.asdict(self)
        for key in ("wrong", "cleaned", "reference"):
            if values[key] is None:
                del values[key]
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


def predict(checkpoint: Checkpoint, data: EvaluationData, batch_size: int) -> Predicted:
    """The answers of a checkpoint by its policy, with a progress bar in a terminal.

    Rows that are held out in turn have been answered before the model was published. Raises
    ModelError where a checkpoint was not judged by them.
    """
    if data.source.folds is not None:
        return Predicted.of_checkpoint(_read_out_of_fold(checkpoint, data), checkpoint)
    return _compute(checkpoint, data, batch_size)


def _compute(checkpoint: Checkpoint, data: EvaluationData, batch_size: int) -> Predicted:
    """The answers to the rows, and to the out-of-scope sentences beside them."""
    rows = data.rows
    outside_texts = outside.find_texts(data.source)
    # Imports torch, which references such as majority and TF-IDF are evaluated without.
    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)

    title = f"{checkpoint.name} ({checkpoint.format})"
    with progress.row_progress(title, len(rows) + len(outside_texts)) as advance:
        outputs = predictor.outputs(rows.texts, batch_size, advance)
        others = predictor.outputs(outside_texts, batch_size, advance)
    require_finite(outputs.logits, checkpoint.name)
    require_finite(others.logits, checkpoint.name)

    predicted = Predicted.of_checkpoint(outputs, checkpoint)
    if not outside_texts:
        return predicted
    return replace(predicted, outside=Predicted.of_checkpoint(others, checkpoint))


def _read_out_of_fold(checkpoint: Checkpoint, data: EvaluationData) -> Outputs:
    """The answers that cross-validation has given; of those no features are kept."""
    answers = out_of_fold.read(checkpoint)
    is_own = checkpoint.manifest is not None and checkpoint.manifest.data_hash == data.source.hash
    rows = len(data.rows)
    if not is_own or answers.ids[:rows] != data.rows.ids:
        raise ModelError(
            f"{checkpoint.root} was not judged by the folds of {data.source.path}",
            "Evaluate it on a table of labelled sentences with --data",
        )
    return Outputs(answers.logits[:rows], None)


def evaluate(
    predicted: Predicted,
    data: EvaluationData,
    subject: Subject,
    config: EvalConfig | BaselineConfig,
    train: SplitData | None = None,
    slicings: Sequence[Slicing] = (),
) -> Evaluation:
    """Compute the content of the report from the answers to the rows.

    `train` are the rows that the subject was trained on, where they are at hand: those of `data`
    that are among them are counted. `slicings` divide the rows into slices.
    """
    source = data.source
    labels = data.labels
    true = np.asarray(data.rows.labels)
    decided = predicted.decisions
    answers = decided.labels
    counts = metrics.confusion(true, answers, len(labels))
    right = answers == true
    bootstrap = Bootstrap(config.bootstrap, config.seed, source.repeats)

    return Evaluation(
        checkpoint=SubjectRecord(subject.name, subject.format, labels.hash),
        data=DataRecord(source.name, source.hash),
        split=source.split,
        rows=len(data.rows) // source.repeats,
        metrics=metrics.summary(predicted.logits, true, decided.probabilities),
        intervals=metrics.bootstrap_intervals(true, answers, len(labels), bootstrap),
        bootstrap=BootstrapRecord(config.bootstrap, config.seed),
        per_intent=metrics.per_intent(counts, labels.names),
        confused_pairs=metrics.confused_pairs(true, answers, data.rows.texts, labels.names),
        reliability=calibration.reliability(decided.scores, right),
        calibration=_measure_calibration(decided, true, right, bootstrap),
        selective=selective.measure_selective(decided.scores, right, bootstrap),
        policy=measure_policy(predicted, right, bootstrap),
        out_of_scope=measure_scope(predicted, predicted.outside, bootstrap),
        slices=_measure_slices(slicings, decided, true, bootstrap),
        cross=describe_cross(source, right, subject) if isinstance(subject, Checkpoint) else None,
        machine=MachineRecord(platform.python_version(), platform.machine()),
        absent_intents=data.absent_intents,
        refused_rows=source.refusal_counts,
        trained_on=_count_known(source, train),
    )


def _measure_calibration(
    decided: Decisions, true: Ints, right: Bools, bootstrap: Bootstrap
) -> CalibrationRecord:
    def measure(binning: Binning) -> CalibrationError:
        return calibration.calibration_error(
            decided.scores, right, bootstrap.seed, binning, bootstrap.repeats
        )

    brier = calibration.brier_score(decided.probabilities, true)
    return CalibrationRecord(measure("equal-width"), measure("equal-mass"), brier)


def _measure_slices(
    slicings: Sequence[Slicing], decided: Decisions, true: Ints, bootstrap: Bootstrap
) -> list[SliceTable]:
    answers = Answered(true, decided.labels, decided.scores)
    tables = []
    for one in slicings:
        tables.append(slices.measure_slices(one.by, one.values, answers, bootstrap))
    return tables


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
