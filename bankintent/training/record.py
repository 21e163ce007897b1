"""The record of a training run: its figures in metrics.json, the manifest and the model cards."""

import platform
import re
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import bankintent
from bankintent import public_names
from bankintent.bundle.attribution import HUB_NAMES, public_name
from bankintent.bundle.record import Parity
from bankintent.corpus.dataset import SplitData
from bankintent.corpus.rows import SourceIdentity
from bankintent.export.publish import Exported
from bankintent.files import JsonObject
from bankintent.measures import metrics
from bankintent.measures.learning import CurvePoint, foretell_doubling
from bankintent.tracking import Tracker
from bankintent.training.cross_validation import CrossValidation
from bankintent.training.fit import Fitted, TrainingRun
from bankintent.training.identity import Identity
from bankintent.training.methods.distillation import TeacherRecord
from bankintent.training.prefix import prefix_of
from bankintent.training.selection import Published

RESAMPLES = 2000
"""Bootstrap resamples of the validation rows behind the intervals."""

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors")
"""Libraries whose versions are recorded."""


@dataclass(frozen=True)
class DataFacts:
    """The data of a run."""

    name: str
    source: SourceIdentity
    """Its origin, as ETL's manifest has it."""
    hash: str
    train_rows: int
    """Labelled training rows, after the few-shot draw."""
    val_rows: int
    unlabelled_rows: int


@dataclass(frozen=True)
class ConfusionCount:
    """The frequency of one mistake."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class CrossFacts:
    """A cross-validation: the figures are of other models than the published one.

    Each was trained in the same way, without the rows that it answers.
    """

    folds: int
    repeats: int
    accuracies: list[float]
    """One for each repeat."""
    not_judged: list[str]
    """Intents with too few different sentences to hold one out."""
    learning_curve: list[CurvePoint]
    doubling: float | None
    """Accuracy that a linear probe is expected to have with twice the sentences; None where the
    last doubling gave nothing."""
    seconds: float


@dataclass(frozen=True)
class Validation:
    """Intervals and confusions on the validation split.

    It holds no sentences: a card is public, and they may not be.
    """

    rows: int
    intervals: dict[str, list[float]]
    """Metric -> its 95 % interval."""
    bootstrap: dict[str, int]
    """The number of resamples, and their seed."""
    confused_pairs: list[ConfusionCount]
    cross: CrossFacts | None = None
    """How the rows were held out, where they were by turns; None where a split was."""


@dataclass(frozen=True)
class Judgement:
    """The quality of a model, on rows that it has not been trained on."""

    figures: dict[str, float]
    """Metric -> value."""
    validation: Validation


@dataclass(frozen=True)
class TrainingFacts:
    """The cost of training, and the figures of its epochs."""

    trainable_parameters: int
    total_parameters: int
    seconds: float
    epochs: float
    sentences_per_second: float
    peak_memory_bytes: int
    precision: str
    hardware: str
    processes: int
    """How many have trained together."""
    effective_batch: int
    """Sentences in one optimizer step, whatever their number."""
    history: list[dict[str, float]]
    published: Published
    prefix: str | None
    """Text that its tokenizer puts before every sentence."""


@dataclass(frozen=True)
class TrainingRecord:
    """Everything that a bundle records of the run that made it, as plain JSON values."""

    name: str
    base_model: str
    """The public name of the backbone; a folder's name if it has none."""
    base_model_id: str | None
    """The Hub id of the backbone, if it is on the Hub."""
    labels: list[str]
    config: JsonObject
    identity: Identity
    labels_hash: str
    data: DataFacts
    metrics: dict[str, dict[str, float]]
    """Split -> its metrics."""
    validation: Validation
    training: TrainingFacts
    parity: Parity
    versions: dict[str, str]
    tracked: JsonObject | None
    """The MLflow run that is to hold the bundle."""
    run_id: str | None
    """The MLflow run that trained it, also where that holds no bundle."""
    distilled_from: TeacherRecord | None
    """The teacher of a student."""
    answering: list[str]
    """When the model answers by the policy that was fitted with it, in lines."""

    def metrics_file(self) -> JsonObject:
        """The content of metrics.json."""
        content: JsonObject = {
            "metrics": self.metrics,
            "validation": asdict(self.validation),
            "training": asdict(self.training),
            "parity": asdict(self.parity),
        }
        if self.distilled_from is not None:
            content["distilled_from"] = asdict(self.distilled_from)

        return content

    def manifest(self) -> JsonObject:
        """The content of manifest.json, but for the list of files."""
        return {
            "name": self.name,
            "identity": self.identity,
            "labels_hash": self.labels_hash,
            "data_hash": self.data.hash,
            "data_dir": self.config["data_dir"],
            "base_model": self.base_model,
            "parity": asdict(self.parity),
            "versions": self.versions,
            "run_id": self.run_id,
        }

    def card_facts(self) -> JsonObject:
        """The values that the model cards are rendered from."""
        # The identity leaves `keep` out where it is `last`; a recipe must have it.
        settings = self.identity["settings"] | {"keep": self.config["keep"]}
        return asdict(self) | {"settings": settings}


def judge(run: TrainingRun, exported: Exported, cross: CrossValidation | None) -> Judgement:
    """The figures of the validation rows, or those of cross-validation."""
    names = run.data.labels.names
    seed = run.config.seed
    if cross is None:
        val = run.rows.val
        figures = metrics.summary(exported.val_logits, np.asarray(val.labels))
        return Judgement(figures, validation(exported.val_logits, val, names, seed))

    repeats = cross.folds.repeats
    pooled = cross.logits.reshape(-1, len(names))
    rows = SplitData(cross.ids * repeats, cross.texts * repeats, cross.true.tolist() * repeats)
    figures = metrics.summary(pooled, np.asarray(rows.labels))
    judged = validation(pooled, rows, names, seed, repeats)
    return Judgement(figures, replace(judged, cross=_cross_facts(cross, names)))


def _cross_facts(cross: CrossValidation, names: tuple[str, ...]) -> CrossFacts:
    judged = set(cross.true.tolist())
    return CrossFacts(
        folds=cross.folds.count,
        repeats=cross.folds.repeats,
        accuracies=cross.accuracies,
        not_judged=[name for label, name in enumerate(names) if label not in judged],
        learning_curve=cross.curve,
        doubling=foretell_doubling(cross.curve),
        seconds=round(cross.seconds, 1),
    )


def gather(
    run: TrainingRun, identity: Identity, fitted: Fitted, judgement: Judgement, parity: Parity
) -> TrainingRecord:
    """The record of a trained and exported model."""
    config = run.config
    labels = run.data.labels
    backbone = fitted.backbone.name

    return TrainingRecord(
        name=config.output_dir.name,
        base_model=public_name(backbone),
        base_model_id=hub_id(backbone),
        labels=list(labels.names),
        config=public_names.settings(config.model_dump()),
        identity=identity,
        labels_hash=labels.hash,
        data=_data_facts(run),
        metrics={"val": judgement.figures},
        validation=judgement.validation,
        training=_training_facts(fitted, config.effective_batch),
        parity=parity,
        versions=versions(),
        tracked=tracked(run.tracker, config.tracking.uri),
        run_id=run.tracker.run_id,
        distilled_from=fitted.teacher,
        answering=[],
    )


def _data_facts(run: TrainingRun) -> DataFacts:
    source = dict(run.data.manifest.source)
    if run.config.pseudo_labels is None:
        # The run did not look at the sentences without labels: it owes them no credit.
        source.pop("unlabelled", None)

    return DataFacts(
        name=run.data.name,
        source=source,
        hash=run.data.hash,
        train_rows=len(run.rows.train),
        val_rows=len(run.rows.val),
        unlabelled_rows=len(run.rows.unlabelled),
    )


def _training_facts(fitted: Fitted, effective_batch: int) -> TrainingFacts:
    cost = fitted.fit

    return TrainingFacts(
        trainable_parameters=fitted.parameters.trainable,
        total_parameters=fitted.parameters.total,
        seconds=round(cost.seconds, 1),
        epochs=cost.epochs,
        sentences_per_second=round(cost.sentences_per_second, 1),
        peak_memory_bytes=cost.peak_memory_bytes,
        precision=cost.precision,
        hardware=cost.hardware,
        processes=cost.processes,
        effective_batch=effective_batch,
        history=cost.history,
        published=cost.published,
        prefix=prefix_of(fitted.backbone.tokenizer),
    )


def validation(
    logits: np.ndarray, rows: SplitData, names: tuple[str, ...], seed: int, repeats: int = 1
) -> Validation:
    """Bootstrap intervals and the most confused pairs; `logits` are (rows, labels).

    With `repeats` the rows are as many copies of the same sentences, one after the other.
    """
    true = np.asarray(rows.labels)
    predicted = logits.argmax(axis=1)

    pairs = metrics.confused_pairs(true, predicted, rows.texts, names, examples=0)
    counts = []
    for pair in pairs:
        counts.append(ConfusionCount(pair.true, pair.predicted, pair.count))
    return Validation(
        rows=len(true) // repeats,
        intervals=metrics.bootstrap_intervals(
            true, predicted, len(names), metrics.Bootstrap(RESAMPLES, seed, repeats)
        ),
        bootstrap={"resamples": RESAMPLES, "seed": seed},
        confused_pairs=counts,
    )


def hub_id(backbone: str) -> str | None:
    """The Hub id of a backbone; None for a folder, also for one that is gone."""
    name = HUB_NAMES.get(backbone, backbone)
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    return name if is_id and not Path(name).is_dir() else None


def tracked(tracker: Tracker, uri: str) -> JsonObject | None:
    """The MLflow run that is to hold the bundle; None if there is none.

    The address of a server is left out, and that of a file outside the working folder: who reads a
    card elsewhere could not open it.
    """
    if not tracker.keeps_models:
        return None
    public = public_names.uri(uri)
    return {"run_id": tracker.run_id, "uri": uri if uri == public else None}


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that made the model."""
    own = {"bankintent": bankintent.__version__, "python": platform.python_version()}
    return own | {package: version(package) for package in PACKAGES}
