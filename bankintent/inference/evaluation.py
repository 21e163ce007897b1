"""Evaluation of predictions on a split: one typed result, which is shown, written and logged."""

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent import console, files, tracking
from bankintent.bundle.layout import Checkpoint
from bankintent.config import BaselineConfig, EvalConfig
from bankintent.corpus import dataset as datasets
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import DataError
from bankintent.inference.runtime import Logits
from bankintent.labels import LabelSchema
from bankintent.measures import metrics, plots
from bankintent.measures.metrics import ConfidenceBin, ConfusedPair, IntentScores

EVALS = Path("artifacts/evals")
"""Folder of the reports, where the API also looks for the plots of a model."""

REPORT = files.ResultFolder(
    "evaluation report",
    ("metrics.json", "report.md", "confusion.png", "reliability.png", "predictions.parquet"),
)
"""The files of a report: a folder that holds any other is not replaced."""

SHOWN_PAIRS = 5
"""Confused pairs that are printed; the report has more."""


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
    config: dict[str, Any]


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
    reference: ReferenceRecord | None = None
    """None for a checkpoint; metrics.json then lacks the key."""

    def to_json(self) -> dict[str, Any]:
        """The object of metrics.json."""
        values = dataclasses.asdict(self)
        if self.reference is None:
            del values["reference"]
        return values


def find_data(checkpoint: Checkpoint, data_dir: Path | None) -> Dataset:
    """The dataset in `data_dir`, or by default the one recorded with the model.

    DataError where none is recorded or its hash differs, LabelError where its labels are not the
    model's.
    """
    manifest = checkpoint.manifest
    recorded_dir = None if manifest is None else manifest.data_dir
    folder = data_dir or recorded_dir
    if folder is None:
        raise DataError(f"{checkpoint.root} records no data", "Name ETL's output with --data-dir")

    data = datasets.load(Path(folder))
    checkpoint.labels.require_same(data.labels, str(checkpoint.root), str(data.path))

    # A folder that the user names may hold other sentences with the same labels.
    if data_dir is None and manifest is not None and manifest.data_hash != data.hash:
        raise DataError(
            f"{data.path} no longer holds the data that {checkpoint.name} was trained on"
            " (its hash differs)",
            f"Run the ETL of that data again, or evaluate on this one with --data-dir {data.path}",
        )

    return data


def default_folder(subject: Subject, split: str, parent: Path = EVALS) -> Path:
    """`artifacts/evals/<run>` for test, `<run>-<split>` for another split.

    So the reports of two splits do not replace each other.
    """
    if split == "test":
        return parent / subject.name
    return parent / f"{subject.name}-{split}"


def predict(checkpoint: Checkpoint, rows: SplitData, batch_size: int) -> Logits:
    """(rows, labels) float32 logits, with a progress bar in a terminal."""
    # Imports torch, which references such as majority and TF-IDF are evaluated without.
    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)

    title = f"{checkpoint.name} ({checkpoint.format})"
    with console.progress(title, len(rows)) as advance:
        return predictor.logits(rows.texts, batch_size, advance)


def evaluate(
    logits: Logits,
    rows: SplitData,
    subject: Subject,
    data: Dataset,
    config: EvalConfig | BaselineConfig,
) -> Evaluation:
    """Compute the content of the report from the (rows, labels) logits."""
    names = data.labels.names
    true = np.asarray(rows.labels)
    predicted = logits.argmax(axis=1)
    counts = metrics.confusion(true, predicted, len(names))

    return Evaluation(
        checkpoint=SubjectRecord(subject.name, subject.format, data.labels.hash),
        data=DataRecord(data.name, data.hash),
        split=config.split,
        rows=len(rows),
        metrics=metrics.summary(logits, true),
        intervals=metrics.bootstrap_intervals(
            true, predicted, len(names), config.bootstrap, config.seed
        ),
        bootstrap=BootstrapRecord(config.bootstrap, config.seed),
        per_intent=metrics.per_intent(counts, names),
        confused_pairs=metrics.confused_pairs(true, predicted, rows.texts, names),
        reliability=metrics.reliability(metrics.softmax(logits), true),
        machine=MachineRecord(platform.python_version(), platform.machine()),
    )


def write(
    folder: Path, result: Evaluation, logits: Logits, rows: SplitData, labels: LabelSchema
) -> None:
    """Write the report folder; an earlier report there is replaced."""
    true = np.asarray(rows.labels)
    predicted = logits.argmax(axis=1)
    counts = metrics.confusion(true, predicted, len(labels))
    confidence = metrics.softmax(logits).max(axis=1)
    title = f"{result.checkpoint.name} on {result.split}"

    with files.replacing(folder, REPORT) as staging:
        plots.confusion_matrix(counts, labels.names, staging / "confusion.png", title)
        plots.reliability_diagram(
            result.reliability, result.metrics["ece"], staging / "reliability.png"
        )

        table = pa.table(
            {
                "id": rows.ids,
                "label": _names_of(true, labels),
                "predicted": _names_of(predicted, labels),
                # float32 has about seven digits.
                "score": np.round(confidence, 6),
            }
        )
        pq.write_table(table, staging / "predictions.parquet")

        files.write_text(staging / "metrics.json", files.json_text(result.to_json()))
        files.write_text(staging / "report.md", _report_text(result))


def _names_of(label_ids: NDArray[np.integer[Any]], labels: LabelSchema) -> list[str]:
    return [labels.names[label_id] for label_id in label_ids]


def log(result: Evaluation, folder: Path, config: EvalConfig | BaselineConfig) -> None:
    """Log the settings, the metrics and the report's files as one MLflow run."""
    name = result.checkpoint.name
    split = result.split
    tags = {
        "dataset": result.data.name,
        "checkpoint": name,
        "split": split,
    }
    values = {f"{split}_{key}": value for key, value in result.metrics.items()}

    if result.reference is not None:
        tags["reference"] = result.reference.name
        values["seconds"] = result.reference.seconds

    with tracking.run(config.tracking, f"{name}-eval-{split}", tags) as tracker:
        tracker.params(config.model_dump(mode="json", exclude={"tracking"}))
        tracker.metrics(values)
        tracker.files(folder)


def show(result: Evaluation, folder: Path) -> None:
    """Print the metrics, the most confused pairs and the path of the report."""
    subject = result.checkpoint
    title = f"{subject.name} ({subject.format}) on {result.rows:,} {result.split} rows"
    header, body = metrics.overview(result.metrics, result.intervals)
    console.print_table(title, header, body)

    pairs = []
    for pair in result.confused_pairs[:SHOWN_PAIRS]:
        pairs.append([pair.true, pair.predicted, str(pair.count)])
    if pairs:
        console.print_table("Most confused", ["true", "predicted", "rows"], pairs)

    place = console.show_path(folder)
    console.say(f"Report: {place} (report.md, confusion.png, reliability.png)")


def _report_text(result: Evaluation) -> str:
    """The text of report.md."""
    origin = f"model loaded as {result.checkpoint.format}"
    if result.reference is not None:
        origin = result.reference.about
    header, body = metrics.overview(result.metrics, result.intervals)

    lines = [
        f"# {result.checkpoint.name} on {result.data.name}, {result.split}",
        "",
        f"{result.rows:,} rows; {origin}; intervals from",
        f"{result.bootstrap.resamples:,} bootstrap resamples of the rows.",
        "",
        *console.markdown_table(header, body),
        "",
        "![confusion matrix](confusion.png)",
        "",
        "![calibration](reliability.png)",
        "",
        "## Most confused pairs",
        "",
        *_pairs_table(result.confused_pairs),
        "",
        "## Intents, worst F1 first",
        "",
        *_intents_table(result.per_intent),
    ]
    return "\n".join(lines) + "\n"


def _pairs_table(pairs: list[ConfusedPair]) -> list[str]:
    header = ["true", "predicted", "rows", "examples"]

    body = []
    for pair in pairs:
        # A line break in a sentence would end the table's row.
        examples = [" ".join(text.split()) for text in pair.examples]
        cells = [pair.true, pair.predicted, str(pair.count)]
        cells.append(" / ".join(examples))
        body.append(cells)
    return console.markdown_table(header, body)


def _intents_table(intents: list[IntentScores]) -> list[str]:
    header = ["intent", "precision", "recall", "F1", "rows"]
    by_f1 = sorted(intents, key=lambda row: (row.f1, row.intent))

    body = []
    for row in by_f1:
        precision = f"{row.precision:.3f}"
        recall = f"{row.recall:.3f}"
        f1 = f"{row.f1:.3f}"
        body.append([row.intent, precision, recall, f1, str(row.support)])
    return console.markdown_table(header, body)
