"""The JSON records of a study: finished runs, finished sweeps, the rows that all runs answer."""

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from bankintent import files
from bankintent.config import Regime, Section
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import DataError
from bankintent.files import JsonObject
from bankintent.measures.shares import in_percent

BundlePart = Literal["merged", "adapter"]

PARTS: tuple[BundlePart, ...] = ("merged", "adapter")
"""Parts of a bundle that a user may ship."""

METRIC_NAMES = {"macro_f1": "macro-F1"}
"""Names of metrics in sentences, where they differ from the key."""


class JsonRecord(Section):
    """A JSON file with one line for each of its fields: compact, and readable line by line."""

    def save(self, path: Path) -> None:
        """Write the record atomically."""
        fields = []
        for key, value in self.model_dump(mode="json").items():
            # NaN is no JSON: a record with one could not be read again.
            value_text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            fields.append(f"{json.dumps(key)}: {value_text}")

        lines = ",\n".join(fields)
        files.write_text(path, f"{{\n{lines}\n}}\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record; DataError where the file is not one."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            raise DataError(
                f"{path} is not a record of this kind", "Remove it; the run is then made again"
            ) from None


class Latency(Section):
    """Inference of the merged model, texts in, logits out, in the process of the run."""

    single_ms: float
    """Median over single sentences."""
    batched_per_second: float
    """Sentences a second in batches of 32, texts of similar length together."""
    sentences: int
    """Number of sentences that were timed."""


class RunRecord(JsonRecord):
    """Everything that the report needs of one run; no other file of the run is needed."""

    key: str
    """Hash of what makes the run: settings, data, split."""
    regime: Regime
    backbone: str
    """The base model's public name."""
    seed: int
    split: str
    settings: JsonObject
    """The train.yaml in effect."""
    data_hash: str
    labels_hash: str
    rows_hash: str
    """Hash of the ids and true labels of the rows behind `predicted`."""
    train_rows: int
    trainable_parameters: int
    total_parameters: int
    train_seconds: float | None
    """From loading to the last epoch's validation; None where an interrupted run was continued."""
    run_seconds: float | None
    """From loading to the published bundle, its checks included; None in the same case."""
    peak_memory_bytes: int
    """Of the GPU where there is one, otherwise the process's resident peak."""
    bytes: dict[BundlePart, int]
    """Size of each part that the bundle has."""
    latency: Latency
    precision: str
    hardware: str
    versions: dict[str, str]
    finished: str
    """UTC, to the second."""
    history: list[dict[str, float]]
    """Training loss and validation metrics of each epoch."""
    metrics: dict[str, dict[str, float]]
    """split -> metric -> value, of the merged model in float32."""
    predicted: list[int]
    """Label id predicted for each row of the split, in file order."""


class SweepResult(JsonRecord):
    """A finished sweep: the chosen values and every trial behind them."""

    key: str
    metric: str
    folds: int | None
    """Of the cross-validation; None where the validation split was used."""
    values: JsonObject
    """Config keys and values that the comparison's runs use."""
    value: float
    """The metric of these values, the mean over the folds."""
    trials: list[JsonObject]
    """state, values, value and the metric after each epoch, in order."""

    def describe(self) -> str:
        """For people: the chosen values, the metric behind them and the number of trials."""
        settings = []
        for key, value in self.values.items():
            value_text = f"{value:.4g}" if isinstance(value, float) else str(value)
            settings.append(f"{key} = {value_text}")

        if self.folds is None:
            place = "the validation split"
        else:
            place = f"{self.folds}-fold cross-validation of train"
        metric = METRIC_NAMES.get(self.metric, self.metric)
        percent = in_percent(self.value)
        # A failed trial counts too: its training stopped at the overflow.
        stopped = sum(trial["state"] != "complete" for trial in self.trials)

        return (
            f"{', '.join(settings)}, chosen by {metric} on {place} ({percent})"
            f" from {len(self.trials)} trials, {stopped} of them stopped early"
        )


class StudyRows(JsonRecord):
    """The rows that every run of a study answers."""

    dataset: str
    """Name of the data's source."""
    split: str
    data_hash: str
    unlabelled_hash: str | None = None
    """Hash of the data's sentences without labels, which is in the keys of runs that use them."""
    rows_hash: str
    labels: list[str]
    """Label names in id order."""
    true: list[int]
    """True label id of each row."""

    @classmethod
    def of(cls, data: Dataset, split: str) -> Self:
        """Read the split of a dataset."""
        rows = data.read(split)
        return cls(
            dataset=data.name,
            split=split,
            data_hash=data.hash,
            unlabelled_hash=data.unlabelled_hash,
            rows_hash=rows_hash(rows),
            labels=list(data.labels.names),
            true=rows.labels,
        )


def rows_hash(rows: SplitData) -> str:
    """sha256 of the row ids and true labels, in order."""
    return files.sha256_text(json.dumps([rows.ids, rows.labels], ensure_ascii=False))
