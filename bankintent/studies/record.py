"""One finished run as a JSON file, and the rows that all runs of a study answered."""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError

from bankintent import files
from bankintent.config import Regime, Section
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import DataError


class Record(Section):
    """A JSON file with one line for each of its fields: compact, and still readable line by line."""

    def save(self, path: Path) -> None:
        values = self.model_dump(mode="json")
        lines = [
            f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False, allow_nan=False)}"
            for k, v in values.items()
        ]
        files.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

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
    """Inference of the merged model, texts in, logits out, in the process and on the machine of the run."""

    single_ms: float
    """Median over single sentences."""
    batched_per_second: float
    """Sentences a second in batches of 32, texts of like length together."""
    sentences: int
    """How many sentences were timed."""


class RunRecord(Record):
    """Everything that the report needs of one run; no file but this one is kept of it."""

    key: str
    """Hash of what makes the run: settings, data, split."""
    regime: Regime
    backbone: str
    """The base model's public name."""
    seed: int
    split: str
    settings: dict[str, Any]
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
    """To the published bundle, its checks included; None likewise."""
    peak_memory_bytes: int
    """Of the GPU where there is one, else the process's resident peak."""
    bytes: dict[Literal["merged", "adapter"], int]
    """Sizes of what a user may ship."""
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


class Chosen(Record):
    """A finished sweep: the chosen values and every trial behind them."""

    key: str
    metric: str
    folds: int | None
    """Of the cross-validation; None where the validation split chose."""
    values: dict[str, Any]
    """Config keys and values that the comparison's runs use."""
    value: float
    """Their metric, the mean over the folds."""
    trials: list[dict[str, Any]]
    """state, values, value and the metric after each epoch, in order."""

    @property
    def words(self) -> str:
        """For people: what was chosen, by what, out of how many."""
        values = ", ".join(
            f"{key} = {v:.4g}" if isinstance(v, float) else f"{key} = {v}"
            for key, v in self.values.items()
        )
        place = (
            "the validation split"
            if self.folds is None
            else f"{self.folds}-fold cross-validation of train"
        )
        pruned = sum(trial["state"] != "complete" for trial in self.trials)
        metric = {"macro_f1": "macro-F1"}.get(self.metric, self.metric)
        return (
            f"{values}, chosen by {metric} on {place} ({100 * self.value:.2f} %)"
            f" from {len(self.trials)} trials, {pruned} of them stopped early"
        )


class Rows(Record):
    """The rows that every run of a study answers."""

    dataset: str
    """Name of the data's source."""
    split: str
    data_hash: str
    rows_hash: str
    labels: list[str]
    """Label names in id order."""
    true: list[int]
    """True label id of each row."""

    @classmethod
    def of(cls, data: Dataset, split: str) -> Self:
        rows = data.read(split)
        name = data.name
        return cls(
            dataset=name,
            split=split,
            data_hash=data.hash,
            rows_hash=rows_hash(rows),
            labels=list(data.labels.names),
            true=rows.labels,
        )


def rows_hash(rows: SplitData) -> str:
    """sha256 of the row ids and true labels, in order."""
    return files.sha256_text(json.dumps([rows.ids, rows.labels], ensure_ascii=False))
