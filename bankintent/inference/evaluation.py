"""What a checkpoint gets right and wrong on a split: one result, shown, written and logged the same way."""

import platform
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
from bankintent.errors import DataError, OutputError
from bankintent.labels import LabelSchema
from bankintent.measures import metrics, plots

EVALS = Path("artifacts/evals")
FILES = {"metrics.json", "report.md", "confusion.png", "reliability.png", "predictions.parquet"}
Logits = NDArray[np.float32]


class Subject(Protocol):
    """What is evaluated: a checkpoint, or a reference that is none."""

    @property
    def name(self) -> str:
        """Name of the report."""

    @property
    def format(self) -> str:
        """In which form it was read."""


def find_data(checkpoint: Checkpoint, data_dir: Path | None) -> Dataset:
    """The data that was named, else the data recorded with the model; its labels must be the model's."""
    if data_dir is None and checkpoint.manifest is None:
        raise DataError(f"{checkpoint.root} records no data", "Name ETL's output with --data-dir")
    manifest = checkpoint.manifest or {}
    data = datasets.load(data_dir or Path(manifest["data_dir"]))
    checkpoint.labels.require_same(data.labels, str(checkpoint.root), str(data.path))
    if data_dir is None and manifest["data_hash"] != data.hash:
        raise DataError(
            f"{data.path} no longer holds the data that {checkpoint.name} was trained on (its hash differs)",
            f"Run the ETL of that data again, or evaluate on this one with --data-dir {data.path}",
        )
    return data


def default_folder(subject: Subject, split: str, place: Path = EVALS) -> Path:
    """`artifacts/evals/<run>` for test; other splits go beside it, so that neither overwrites the other."""
    return place / (subject.name if split == "test" else f"{subject.name}-{split}")


def predict(checkpoint: Checkpoint, rows: SplitData, batch_size: int) -> Logits:
    """(rows, labels) float32 logits, with a progress bar in a terminal."""
    from rich.progress import Progress

    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)
    with Progress(
        console=console.stdout, transient=True, disable=not console.stdout.is_terminal
    ) as progress:
        task = progress.add_task(f"{checkpoint.name} ({checkpoint.format})", total=len(rows))
        return predictor.logits(rows.texts, batch_size, lambda done: progress.advance(task, done))


def evaluate(
    logits: Logits,
    rows: SplitData,
    subject: Subject,
    data: Dataset,
    config: EvalConfig | BaselineConfig,
) -> dict[str, Any]:
    """Everything that the report says, as plain JSON values."""
    names = data.labels.names
    true, predicted = np.asarray(rows.labels), logits.argmax(axis=1)
    counts = metrics.confusion(true, predicted, len(names))
    return {
        "checkpoint": {
            "name": subject.name,
            "format": subject.format,
            "labels_hash": data.labels.hash,
        },
        "data": {"name": data.name, "data_hash": data.hash},
        "split": config.split,
        "rows": len(rows),
        "metrics": metrics.summary(logits, true),
        "intervals": metrics.bootstrap_intervals(
            true, predicted, len(names), config.bootstrap, config.seed
        ),
        "bootstrap": {"resamples": config.bootstrap, "seed": config.seed},
        "per_intent": metrics.per_intent(counts, names),
        "confused_pairs": metrics.confused_pairs(true, predicted, rows.texts, names),
        "reliability": metrics.reliability(metrics.softmax(logits), true),
        "machine": {"python": platform.python_version(), "machine": platform.machine()},
    }


def require_free(folder: Path) -> None:
    """Raise OutputError where `folder` holds something else than a report, which is replaced."""
    files.recover(folder)
    if folder.exists() and not (folder.is_dir() and set(files.list_files(folder)) <= FILES):
        raise OutputError(f"{folder} exists and is no evaluation report", "Name another output_dir")


def write(
    folder: Path, result: dict[str, Any], logits: Logits, rows: SplitData, labels: LabelSchema
) -> None:
    """Write the report folder beside its place and rename it."""
    require_free(folder)
    with files.exclusive(folder) as staging:
        staging.mkdir(exist_ok=True)
        true, predicted = np.asarray(rows.labels), logits.argmax(axis=1)
        counts = metrics.confusion(true, predicted, len(labels))
        title = f"{result['checkpoint']['name']} on {result['split']}"
        plots.confusion_matrix(counts, labels.names, staging / "confusion.png", title)
        plots.reliability_diagram(
            result["reliability"], result["metrics"]["ece"], staging / "reliability.png"
        )
        table = pa.table(
            {
                "id": rows.ids,
                "label": [labels.names[i] for i in true],
                "predicted": [labels.names[i] for i in predicted],
                "score": np.round(metrics.softmax(logits).max(axis=1), 6),
            }
        )
        pq.write_table(table, staging / "predictions.parquet")
        files.write_text(staging / "metrics.json", files.json_text(result))
        files.write_text(staging / "report.md", markdown(result))
        files.publish(staging, folder)


def log(result: dict[str, Any], folder: Path, config: EvalConfig | BaselineConfig) -> None:
    """One MLflow run with the settings, the metrics and the report's files."""
    name, split, reference = result["checkpoint"]["name"], result["split"], result.get("reference")
    tags = {"dataset": result["data"]["name"], "checkpoint": name, "split": split}
    values = {f"{split}_{key}": value for key, value in result["metrics"].items()}
    if reference:
        tags["reference"], values["seconds"] = reference["name"], reference["seconds"]
    with tracking.run(config.tracking, f"{name}-eval-{split}", tags) as tracker:
        tracker.params(config.model_dump(mode="json", exclude={"tracking"}))
        tracker.metrics(values)
        tracker.files(folder)


def show(result: dict[str, Any], folder: Path) -> None:
    """Print the table, the most confused pairs and where the rest is."""
    name, split = result["checkpoint"]["name"], result["split"]
    table = metrics.overview(result["metrics"], result["intervals"])
    console.print_table(
        f"{name} ({result['checkpoint']['format']}) on {result['rows']:,} {split} rows", *table
    )
    pairs = [[p["true"], p["predicted"], str(p["count"])] for p in result["confused_pairs"][:5]]
    if pairs:
        console.print_table("Most confused", ["true", "predicted", "rows"], pairs)
    console.say(f"Report: {console.show_path(folder)} (report.md, confusion.png, reliability.png)")


def markdown(result: dict[str, Any]) -> str:
    """report.md."""

    checkpoint = result["checkpoint"]
    origin = (
        result["reference"]["about"]
        if "reference" in result
        else f"model loaded as {checkpoint['format']}"
    )
    lines = [f"# {checkpoint['name']} on {result['data']['name']}, {result['split']}", ""]
    lines += [f"{result['rows']:,} rows; {origin}; intervals from"]
    lines += [f"{result['bootstrap']['resamples']:,} bootstrap resamples of the rows.", ""]
    lines += console.markdown_table(*metrics.overview(result["metrics"], result["intervals"]))
    lines += ["", "![confusion matrix](confusion.png)", "", "![calibration](reliability.png)", ""]
    lines += ["## Most confused pairs", ""]
    lines += console.markdown_table(
        ["true", "predicted", "rows", "examples"],
        [
            [
                p["true"],
                p["predicted"],
                str(p["count"]),
                " / ".join(" ".join(text.split()) for text in p["examples"]),
            ]
            for p in result["confused_pairs"]
        ],
    )
    lines += ["", "## Intents, worst F1 first", ""]
    ordered = sorted(result["per_intent"], key=lambda row: (row["f1"], row["intent"]))
    lines += console.markdown_table(
        ["intent", "precision", "recall", "F1", "rows"],
        [
            [
                r["intent"],
                f"{r['precision']:.3f}",
                f"{r['recall']:.3f}",
                f"{r['f1']:.3f}",
                str(r["support"]),
            ]
            for r in ordered
        ],
    )
    return "\n".join(lines) + "\n"
