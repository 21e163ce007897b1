"""ETL's output on disk: Parquet splits, the label schema and a manifest that says what they are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import files
from bankintent.corpus import report as data_report
from bankintent.corpus.cleaning import Example
from bankintent.corpus.sources import OUT_OF_SCOPE
from bankintent.corpus.splits import Splits
from bankintent.errors import DataError, OutputError
from bankintent.labels import LabelSchema

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("label_text", pa.string(), nullable=False),
    ]
)
OUT_OF_SCOPE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
UNLABELLED_SCHEMA = pa.schema([SCHEMA.field("id"), SCHEMA.field("text")])
UNLABELLED = "unlabelled"

UNKNOWN = -1
"""In the place of the label of a sentence that has none, as in scikit-learn."""


@dataclass(frozen=True)
class SplitData:
    """One split in memory, aligned lists in file order."""

    ids: list[str]
    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls) -> "SplitData":
        return cls([], [], [])

    def __add__(self, other: "SplitData") -> "SplitData":
        return SplitData(self.ids + other.ids, self.texts + other.texts, self.labels + other.labels)

    def without_labels(self) -> "SplitData":
        """The same rows, their labels unknown."""
        return replace(self, labels=[UNKNOWN] * len(self))

    def take(self, rows: Sequence[int]) -> "SplitData":
        """The rows of these indices, in the order given."""
        return SplitData(
            [self.ids[i] for i in rows],
            [self.texts[i] for i in rows],
            [self.labels[i] for i in rows],
        )

    def few_shot(self, k: int, seed: int) -> "SplitData":
        """At most `k` rows of each label, drawn with `seed`, in file order; DataError where no label has as many.

        The draws of one seed are nested: the rows of a smaller `k` are among those of a larger one.
        """
        rng, labels = np.random.default_rng(seed), np.asarray(self.labels)
        most = int(np.bincount(labels).max())
        if k > most:
            raise DataError(
                f"no intent has {k} training rows, the largest has {most}", "Ask for fewer of each"
            )
        kept = [rng.permutation(np.flatnonzero(labels == label))[:k] for label in np.unique(labels)]
        return self.take(sorted(np.concatenate(kept).tolist()))


@dataclass(frozen=True)
class Dataset:
    """An ETL output folder whose manifest and labels have been read and agree."""

    path: Path
    labels: LabelSchema
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """What the user called the source: a Hub name, or the last part of its path."""
        return Path(str(self.manifest["config"]["dataset_name"])).name

    @property
    def hash(self) -> str:
        """sha256 of the rows of all splits and the labels, as ETL recorded it; independent of the file format."""
        return str(self.manifest["data_hash"])

    @property
    def unlabelled_hash(self) -> str | None:
        """The same of the sentences without labels, None where there are none: runs that leave them aside do not change
        with them."""
        return self.manifest.get("unlabelled_hash")

    def read(self, split: str) -> SplitData:
        """Read a split; DataError where it is missing, empty or not the file that ETL wrote."""
        path = self.path / f"{split}.parquet"
        recorded = self.manifest["files"].get(path.name, {}).get("sha256")
        if not path.is_file() or recorded is None:
            raise DataError(f"{path} does not exist", "Run ETL again (python -m etl)")
        if files.sha256(path) != recorded:
            raise DataError(
                f"{path} is not the file that ETL wrote (its sha256 differs)", "Run ETL again"
            )
        table = pq.read_table(path, schema=UNLABELLED_SCHEMA if split == UNLABELLED else SCHEMA)
        if table.num_rows == 0:
            raise DataError(
                f"{path} holds no rows", "Change the split in data.yaml and run ETL again"
            )
        ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
        return SplitData(
            ids, texts, table["label"].to_pylist() if split != UNLABELLED else [UNKNOWN] * len(ids)
        )

    def read_unlabelled(self) -> SplitData:
        """The sentences without labels that ETL found; no rows where `unlabelled` was not set."""
        return (
            self.read(UNLABELLED)
            if f"{UNLABELLED}.parquet" in self.manifest["files"]
            else SplitData.empty()
        )


def load(path: Path) -> Dataset:
    """Open ETL's output; DataError where there is none, LabelError where its labels are not its own."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        recorded = manifest["labels_hash"], manifest["data_hash"], manifest["files"]
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} holds no ETL output (no manifest.json)",
            "Run python -m etl --config configs/data.yaml, or set data_dir",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}/manifest.json is not what ETL writes", "Run ETL again") from None
    labels = LabelSchema.load(path / "labels.json")
    if labels.hash != recorded[0]:
        raise DataError(
            f"{path}: labels.json does not belong to this data (its hash differs)", "Run ETL again"
        )
    return Dataset(path, labels, manifest)


def write(
    path: Path,
    splits: Splits,
    out_of_scope: dict[str, list[Example]],
    unlabelled: list[Example],
    labels: LabelSchema,
    report: dict[str, Any],
    config: dict[str, Any],
) -> None:
    """Write the whole folder beside its place and rename it: a reader sees the old data or the new."""
    files.recover(path)
    if path.exists() and (
        not path.is_dir() or (any(path.iterdir()) and not (path / "manifest.json").is_file())
    ):
        raise OutputError(f"{path} exists and is no ETL output", "Name another output_dir")
    with files.exclusive(path) as staging:
        if staging.exists():
            _remove_leftover(staging)
        staging.mkdir()
        for name, rows in splits.items():
            pq.write_table(_table(rows, labels), staging / f"{name}.parquet", compression="zstd")
        if out_of_scope:
            oos = [(e.id, e.text, split) for split, rows in out_of_scope.items() for e in rows]
            columns = [pa.array(column, pa.string()) for column in zip(*oos, strict=True)]
            oos_table = pa.Table.from_arrays(columns, schema=OUT_OF_SCOPE_SCHEMA)
            pq.write_table(oos_table, staging / f"{OUT_OF_SCOPE}.parquet", compression="zstd")
        if unlabelled:
            columns = [pa.array([e.id for e in unlabelled]), pa.array([e.text for e in unlabelled])]
            unlabelled_table = pa.Table.from_arrays(columns, schema=UNLABELLED_SCHEMA)
            pq.write_table(unlabelled_table, staging / f"{UNLABELLED}.parquet", compression="zstd")
        labels.save(staging / "labels.json")
        files.write_text(staging / "report.json", files.json_text(report))
        files.write_text(staging / "report.md", data_report.markdown(report))
        manifest = {
            "source": report["source"],
            "config": config,
            "labels_hash": labels.hash,
            "data_hash": _data_hash(splits, labels),
            "files": {
                name: {
                    "sha256": files.sha256(staging / name),
                    "size": (staging / name).stat().st_size,
                }
                for name in files.list_files(staging)
            },
        }
        if unlabelled:
            manifest["unlabelled_hash"] = _data_hash({UNLABELLED: unlabelled}, labels)
        files.write_text(staging / "manifest.json", files.json_text(manifest))
        files.publish(staging, path)


def _remove_leftover(staging: Path) -> None:
    known = {"train", "val", "test", OUT_OF_SCOPE, UNLABELLED, "labels", "report", "manifest"}
    for path in staging.iterdir():
        if path.name.lstrip(".").partition(".")[0] not in known:
            raise OutputError(f"{staging} holds {path.name}, which ETL did not write", "Remove it")
        path.unlink()
    staging.rmdir()


def _table(rows: list[Example], labels: LabelSchema) -> pa.Table:
    return pa.Table.from_arrays(
        [
            pa.array([row.id for row in rows], pa.string()),
            pa.array([row.text for row in rows], pa.string()),
            pa.array([labels.label2id[row.label_text] for row in rows], pa.int64()),
            pa.array([row.label_text for row in rows], pa.string()),
        ],
        schema=SCHEMA,
    )


def _data_hash(splits: Splits, labels: LabelSchema) -> str:
    rows = {
        name: [[row.id, row.text, row.label_text] for row in part] for name, part in splits.items()
    }
    return files.sha256_text(json.dumps([labels.names, rows], ensure_ascii=False))
