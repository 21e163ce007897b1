"""Reads what ETL wrote: Parquet splits, the label schema and the manifest that identifies them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import files, typed_json
from bankintent.corpus.folds import Folds
from bankintent.corpus.mapped import MappedColumn, map_tables, read_batches
from bankintent.distribution import command
from bankintent.errors import DataError
from bankintent.files import JsonObject
from bankintent.labels import LabelSchema

MANIFEST = "manifest.json"

OUT_OF_SCOPE = "out_of_scope"
"""Stem of the file of sentences that have none of the intents."""

UNLABELLED = "unlabelled"
"""Stem of the file of sentences without labels."""

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
FOLDS = "folds"
"""Stem of the file that says which rows of train each fold holds out."""

FOLDS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        # One item for each repeat.
        pa.field("folds", pa.list_(pa.int64()), nullable=False),
    ]
)
UNLABELLED_SCHEMA = pa.schema([SCHEMA.field("id"), SCHEMA.field("text")])

UNKNOWN = -1
"""In the place of the label id of a sentence that has none, as in scikit-learn."""

Columns = dict[str, Sequence[str | None]]
"""The values of more columns of some rows, by name, aligned with the rows; None where one is empty.
"""


@dataclass(frozen=True)
class SplitData:
    """One split, aligned lists in file order; those of texts may be on disk (`read_mapped`)."""

    ids: Sequence[str]
    texts: Sequence[str]
    labels: list[int]
    """Label ids, UNKNOWN where a sentence has none."""
    columns: Columns = field(default_factory=dict)
    """The columns of `keep_columns`, in that order; empty where there are none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_mapped(self) -> bool:
        """Whether its texts are on disk, and are not to be read into memory as a whole."""
        return isinstance(self.texts, MappedColumn)

    @classmethod
    def empty(cls) -> "SplitData":
        return cls([], [], [])

    def __add__(self, other: "SplitData") -> "SplitData":
        columns: Columns = {}
        # Of rows without a column, such as sentences without labels, nothing is known.
        for name in self.columns | other.columns:
            ours = self.columns.get(name, [None] * len(self))
            theirs = other.columns.get(name, [None] * len(other))
            columns[name] = [*ours, *theirs]

        return SplitData(
            [*self.ids, *other.ids],
            [*self.texts, *other.texts],
            self.labels + other.labels,
            columns,
        )

    def without_labels(self) -> "SplitData":
        """The same rows, their labels unknown."""
        return replace(self, labels=[UNKNOWN] * len(self))

    def take(self, rows: Sequence[int]) -> "SplitData":
        """The rows of these indices, in this order."""
        return SplitData(
            [self.ids[index] for index in rows],
            [self.texts[index] for index in rows],
            [self.labels[index] for index in rows],
            take_columns(self.columns, rows),
        )

    def few_shot(self, k: int, seed: int) -> "SplitData":
        """At most `k` rows of each label, drawn with `seed`, in file order.

        The draws of one seed are nested: the rows of a smaller `k` are among those of a larger
        one. Raises DataError where no label has `k` rows.
        """
        labels = np.asarray(self.labels)
        largest = int(np.bincount(labels).max())
        if k > largest:
            raise DataError(
                f"no intent has {k} training rows, the largest has {largest}",
                "Ask for fewer of each",
            )

        # A whole permutation of each label is drawn, also for a small k: that nests the draws.
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        for label in np.unique(labels):
            rows_of_label = np.flatnonzero(labels == label)
            rows += rng.permutation(rows_of_label)[:k].tolist()
        return self.take(sorted(rows))


def take_columns(columns: Columns, rows: Sequence[int]) -> Columns:
    """The values of the rows of these indices, in this order."""
    taken: Columns = {}
    for name, values in columns.items():
        taken[name] = [values[index] for index in rows]
    return taken


@dataclass(frozen=True)
class SourceConfig:
    """What is read of the settings of ETL."""

    dataset_name: str


@dataclass(frozen=True)
class FileHash:
    """One file that ETL wrote."""

    sha256: str


@dataclass(frozen=True)
class DataManifest:
    """What is read of the manifest of ETL's output; the file has more."""

    config: SourceConfig
    source: JsonObject
    """Where the rows come from: name, license, revision and the like."""
    labels_hash: str
    data_hash: str
    """sha256 of the rows of all splits and the labels."""
    files: dict[str, FileHash]
    """Name of a file -> the file."""
    split: str | None = None
    """How the rows were divided."""
    unlabelled_hash: str | None = None
    """The hash of the sentences without labels; None where there are none."""
    out_of_scope_hash: str | None = None
    """The hash of the sentences that have none of the intents; None where there are none, or where
    an ETL that does not record it wrote them."""
    languages: dict[str, float] = field(default_factory=dict)
    """ISO 639 code -> share of the sentences; empty where ETL did not look."""
    against_former: JsonObject | None = None
    """What became of the rows of the output before it; None where there was none."""


@dataclass(frozen=True)
class Dataset:
    """An ETL output folder whose manifest and labels have been read and agree."""

    path: Path
    labels: LabelSchema
    manifest: DataManifest

    @property
    def name(self) -> str:
        """The user's name of the source: a Hub name, or the last part of its path."""
        return Path(self.manifest.config.dataset_name).name

    @property
    def hash(self) -> str:
        """sha256 of the rows of all splits and the labels; independent of the file format."""
        return self.manifest.data_hash

    @property
    def unlabelled_hash(self) -> str | None:
        """The same of the sentences without labels, None where there are none.

        It is apart from `hash`, so that runs that do not use them do not change with them.
        """
        return self.manifest.unlabelled_hash

    @property
    def out_of_scope_hash(self) -> str | None:
        """The same of the sentences that have none of the intents, None where there are none.

        It is apart from `hash`, because no label is learned from them.
        """
        return self.manifest.out_of_scope_hash

    @property
    def is_cross(self) -> bool:
        """Whether it has no val and test rows: cross-validation judges by those of train."""
        return f"{FOLDS}.parquet" in self.manifest.files

    def read_folds(self) -> Folds:
        """Which rows of train each fold holds out; only where `is_cross`."""
        path = self.path / f"{FOLDS}.parquet"
        self._require_intact(path)
        table = pq.read_table(path, schema=FOLDS_SCHEMA)
        return Folds(np.asarray(table["folds"].to_pylist(), dtype=np.int64).T)

    def require_held_out(self) -> None:
        """Raise DataError where the data has no val and test rows."""
        if self.is_cross:
            raise DataError(
                f"{self.path} has no val and test rows: all are trained on, and cross-validation"
                " judges by them",
                "Run ETL again with --set split=stable to hold some out",
            )

    def read(self, split: str) -> SplitData:
        """Read a split, with the columns that ETL kept (`SplitData.columns`).

        Raises DataError where it is missing, empty or not the file that ETL wrote.
        """
        path = self._find(split)

        is_labelled = split != UNLABELLED
        schema = _schema_of(path, SCHEMA if is_labelled else UNLABELLED_SCHEMA)
        table = pq.read_table(path, schema=schema)

        ids = table["id"].to_pylist()
        texts = table["text"].to_pylist()
        if not is_labelled:
            return SplitData(ids, texts, [UNKNOWN] * len(ids))
        columns = {name: table[name].to_pylist() for name in _kept_names(schema)}
        return SplitData(ids, texts, table["label"].to_pylist(), columns)

    def read_mapped(self, split: str, folder: Path) -> SplitData:
        """The same as `read`, of a labelled split: only its label ids are in memory.

        The rest lies in a file of `folder` that is gone when the process ends.
        """
        path = self._find(split)
        schema = _schema_of(path, SCHEMA)
        table = map_tables(read_batches(path, schema), schema, folder)

        columns = {name: MappedColumn(table[name]) for name in _kept_names(schema)}
        ids = MappedColumn(table["id"])
        texts = MappedColumn(table["text"])
        return SplitData(ids, texts, table["label"].to_pylist(), dict(columns))

    def count(self, split: str) -> int:
        """The rows that the file of a split says it has; 0 where there is none.

        Nothing is verified: `read` hashes the file.
        """
        try:
            return int(pq.read_metadata(self.path / f"{split}.parquet").num_rows)
        except (OSError, pa.ArrowInvalid):
            return 0

    def _find(self, split: str) -> Path:
        """The file of a split, intact and with rows."""
        if split in ("val", "test"):
            self.require_held_out()
        path = self.path / f"{split}.parquet"
        self._require_intact(path)
        if pq.read_metadata(path).num_rows == 0:
            raise DataError(
                f"{path} holds no rows", "Change the split in data.yaml and run ETL again"
            )
        return path

    def _require_intact(self, path: Path) -> None:
        recorded = self.manifest.files.get(path.name)
        if not path.is_file() or recorded is None:
            raise DataError(f"{path} does not exist", f"Run ETL again ({command('etl')})")

        if files.sha256(path) != recorded.sha256:
            raise DataError(
                f"{path} is not the file that ETL wrote (its sha256 differs)", "Run ETL again"
            )

    def read_unlabelled(self) -> SplitData:
        """The sentences without labels; no rows where `unlabelled` was not set."""
        if f"{UNLABELLED}.parquet" not in self.manifest.files:
            return SplitData.empty()
        return self.read(UNLABELLED)

    def read_out_of_scope(self) -> dict[str, list[str]]:
        """The texts that have none of the intents, by split (train, val, test) and in file order.

        Splits without such rows are left out, and the result is empty where there are none at all.
        Raises DataError where the file is not the one that ETL wrote.
        """
        path = self.path / f"{OUT_OF_SCOPE}.parquet"
        if path.name not in self.manifest.files:
            return {}
        self._require_intact(path)

        table = pq.read_table(path, schema=OUT_OF_SCOPE_SCHEMA)
        texts: dict[str, list[str]] = {}
        for split, text in zip(table["split"].to_pylist(), table["text"].to_pylist(), strict=True):
            texts.setdefault(split, []).append(text)
        return texts


def read_out_of_scope(data_dir: Path) -> dict[str, list[str]]:
    """`Dataset.read_out_of_scope` of an ETL output; raises like it and like `load`."""
    return load(data_dir).read_out_of_scope()


def load(path: Path) -> Dataset:
    """Open ETL's output; DataError where there is none, LabelError where its labels are others."""
    manifest = _read_manifest(path)
    labels = LabelSchema.load(path / "labels.json")

    # labels.json is whole by its own hash, but may be that of another ETL output.
    if labels.hash != manifest.labels_hash:
        raise DataError(
            f"{path}: labels.json does not belong to this data (its hash differs)", "Run ETL again"
        )
    return Dataset(path, labels, manifest)


def _read_manifest(folder: Path) -> DataManifest:
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        return typed_json.parse(DataManifest, text)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} holds no ETL output (no {MANIFEST})",
            f"Run {command('etl')} with the data.yaml whose output_dir is {folder},"
            " or set data_dir",
        ) from None
    except ValueError:
        raise DataError(f"{folder}/{MANIFEST} is not what ETL writes", "Run ETL again") from None


def _kept_names(schema: pa.Schema) -> list[str]:
    """The columns of `keep_columns` in a schema of rows."""
    return [name for name in schema.names if name not in SCHEMA.names]


def _schema_of(path: Path, own: pa.Schema) -> pa.Schema:
    """The columns that ETL gives every row, and those of `keep_columns` behind them."""
    kept = [name for name in pq.read_schema(path).names if name not in own.names]
    return pa.schema([*own, *(pa.field(name, pa.string()) for name in kept)])
