"""Labelled rows to evaluate on: ETL's output, a labelled table, or a folder of tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bankintent import console, files
from bankintent.bundle.layout import Checkpoint
from bankintent.config import CompareModelsConfig, DataConfig, EvalConfig
from bankintent.corpus import dataset as datasets
from bankintent.corpus import sources
from bankintent.corpus.cleaning import Example, clean
from bankintent.corpus.dataset import Columns, Dataset, SplitData, take_columns
from bankintent.corpus.folds import Folds
from bankintent.corpus.refusals import (
    RefusedRow,
    count_reasons,
    describe_refused,
    list_reasons,
    require_allowed,
)
from bankintent.corpus.rows import SPLIT_NAMES, Source
from bankintent.errors import DataError
from bankintent.inference import own_columns
from bankintent.inference.label_names import Renames, label_ids, read_renames
from bankintent.labels import LabelSchema
from bankintent.texts import list_some

CROSS = "cross"
"""In the place of a split: the rows are held out in turn."""

WHOLE = "all"
"""The part of a source that has no splits."""

TABLE_KEYS = (
    "text_column",
    "label_column",
    "encoding",
    "delimiter",
    "sheet",
    "header",
    "bad_rows",
)
"""Keys of an evaluation that are those of data.yaml: how a table is read."""

Settings = EvalConfig | CompareModelsConfig


@dataclass(frozen=True)
class LabelledRows:
    """Rows to evaluate on, with the names of their intents as the data has them."""

    path: Path
    name: str
    """The user's name of the data: of ETL's source, or of the table."""
    hash: str
    """Of ETL's whole output, or of a table's rows; it changes with every text and intent."""
    split: str
    """train, val or test; test for a table as such, cross for rows that are held out in turn."""
    ids: Sequence[str]
    texts: Sequence[str]
    intents: list[str]
    dataset: Dataset | None = None
    """ETL's output, where the rows are from one."""
    refusals: tuple[RefusedRow, ...] = ()
    """Rows of a table that were left out."""
    folds: Folds | None = None
    """Of the rows of train, where the rows are those that cross-validation holds out."""
    columns: Columns = field(default_factory=dict)
    """Other columns of the data: those that ETL kept, or those of a table, which are read where an
    evaluation is divided by columns."""

    @property
    def repeats(self) -> int:
        """How often each sentence stands among the rows: once for each answer out of fold."""
        return 1 if self.folds is None else self.folds.repeats

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.path.name or str(self.path)

    @property
    def stem(self) -> str | None:
        """The name of a table in the name of a report; None for ETL's output."""
        if self.dataset is not None:
            return None

        path = self.path.resolve()
        stem = path.name if path.is_dir() else plain_stem(path)
        # The report of a table val.csv must not be that of the split val of ETL's output.
        if stem.lower() in SPLIT_NAMES:
            return f"{path.parent.name}-{stem}"
        return stem

    @property
    def refusal_counts(self) -> dict[str, int]:
        """Rows that were left out, by their reason."""
        return count_reasons(self.refusals)

    def describe_refusals(self) -> str | None:
        """How many rows of a table were left out, and why; None where there are none."""
        count = len(self.refusals)
        if count == 0:
            return None
        reasons = list_reasons(self.refusal_counts)
        return f"{count:,} of {count + len(self.ids):,} rows left out: {reasons}"

    def of_first_repeat(self) -> "LabelledRows":
        """Each sentence once, with its first answer out of fold; other rows as they are."""
        if self.folds is None:
            return self
        sentences = len(self.ids) // self.repeats
        return replace(
            self,
            ids=self.ids[:sentences],
            texts=self.texts[:sentences],
            intents=self.intents[:sentences],
            columns=take_columns(self.columns, range(sentences)),
            folds=Folds(self.folds.assignment[:1]),
        )

    def of(self, labels: LabelSchema, renames: Renames, model: str) -> "EvaluationData":
        """The rows with the label ids of a model; LabelError where it lacks an intent of theirs."""
        ids = label_ids(self.intents, labels, renames, self.where, model)
        return EvaluationData(self, SplitData(self.ids, self.texts, ids), labels)


@dataclass(frozen=True)
class EvaluationData:
    """Rows with the label ids of the model that is evaluated on them."""

    source: LabelledRows
    rows: SplitData
    labels: LabelSchema
    """The model's, some of which may not occur in the rows."""

    @property
    def absent_intents(self) -> list[str]:
        """Intents of the model without rows, in id order."""
        occurring = set(self.rows.labels)
        return [name for label, name in enumerate(self.labels.names) if label not in occurring]

    @classmethod
    def of_split(cls, data: Dataset, split: str) -> "EvaluationData":
        """A split of ETL's output, for a model with its labels."""
        return read_dataset(data, split).of(data.labels, {}, str(data.path))


def find_rows(checkpoint: Checkpoint, settings: Settings) -> LabelledRows:
    """The rows that the settings name, by default those of the data recorded with the model.

    Raises DataError where there are none, where more rows are refused than `bad_rows` allows, or
    where the recorded folder holds other data.
    """
    if settings.data_dir is None:
        return _read_chosen(recorded_data(checkpoint), settings)

    path = settings.data_dir.expanduser()
    if (path / datasets.MANIFEST).is_file():
        return _read_chosen(datasets.load(path), settings)
    if not path.exists():
        raise DataError(
            f"{settings.data_dir} does not exist",
            "Name ETL's output, a labelled table, or a folder of tables with --data-dir",
        )
    return read_table(path, settings)


def find_data(checkpoint: Checkpoint, settings: EvalConfig) -> EvaluationData:
    """The rows of `find_rows` with the label ids of the model.

    Raises what `find_rows` raises, and LabelError where the model lacks an intent of the data.
    """
    renames = read_renames(settings.label_map)
    rows = find_rows(checkpoint, settings)
    return rows.of(checkpoint.labels, renames, str(checkpoint.root))


def _read_chosen(data: Dataset, settings: Settings) -> LabelledRows:
    """The chosen split; of data without a test split, the rows that are held out in turn."""
    asks_for_split = "split" in settings.model_fields_set
    if data.is_cross and not asks_for_split:
        return read_held_out(data)
    return read_dataset(data, settings.split)


def recorded_data(checkpoint: Checkpoint) -> Dataset:
    """ETL's output that a model was trained on.

    Raises DataError where none is recorded, or where it is not there or holds other data.
    """
    manifest = checkpoint.manifest
    if manifest is None or manifest.data_dir is None:
        raise DataError(
            f"{checkpoint.root} records no data",
            "Name ETL's output or a labelled table with --data-dir",
        )

    data = datasets.load(Path(manifest.data_dir))
    if manifest.data_hash != data.hash:
        raise DataError(
            f"{data.path} no longer holds the data that {checkpoint.name} was trained on"
            " (its hash differs)",
            f"Run the ETL of that data again, or evaluate on this one with --data-dir {data.path}",
        )
    # The hash is also of the labels: these differ only where a bundle was put together by hand.
    checkpoint.labels.require_same(data.labels, str(checkpoint.root), str(data.path))
    return data


def read_dataset(data: Dataset, split: str) -> LabelledRows:
    """One split of ETL's output; raises like `Dataset.read`."""
    rows = data.read(split)
    intents = [data.labels.names[label] for label in rows.labels]
    return LabelledRows(
        path=data.path,
        name=data.name,
        hash=data.hash,
        split=split,
        ids=rows.ids,
        texts=rows.texts,
        intents=intents,
        dataset=data,
        columns=rows.columns,
    )


def read_held_out(data: Dataset) -> LabelledRows:
    """The sentences that cross-validation holds out, once for each of its repeats."""
    folds = data.read_folds()
    rows = data.read("train").take(np.flatnonzero(folds.judged).tolist())
    intents = [data.labels.names[label] for label in rows.labels]
    return LabelledRows(
        path=data.path,
        name=data.name,
        hash=data.hash,
        split=CROSS,
        ids=[*rows.ids] * folds.repeats,
        texts=[*rows.texts] * folds.repeats,
        intents=intents * folds.repeats,
        dataset=data,
        folds=folds,
        columns={name: [*values] * folds.repeats for name, values in rows.columns.items()},
    )


def read_table(path: Path, settings: Settings) -> LabelledRows:
    """The rows of a labelled table, or of one part of a folder of tables, cleaned as ETL does.

    Raises what reading and cleaning raise, and DataError where no row is left.
    """
    chosen = _table_of_split(path, settings.split)
    keys = settings.model_dump(include=set(TABLE_KEYS))
    # Absolute, so that a table called `bundled` is no name of a dataset.
    config = DataConfig(dataset_name=str(chosen.absolute()), **keys)
    source = sources.read(config)

    is_whole = WHOLE in source.rows
    if chosen == path and is_whole:
        _require_no_split(path, settings)
    part = WHOLE if is_whole else settings.split
    examples = _clean_part(source, part, config, path)

    ids = []
    texts = []
    intents = []
    for row in examples.rows:
        ids.append(row.id)
        texts.append(row.text)
        intents.append(row.label_text)

    columns: Columns = {}
    # They are read once more, where they are asked for.
    if isinstance(settings, EvalConfig) and settings.by:
        columns = own_columns.read_columns(chosen, config, source, ids)
    return LabelledRows(
        path=path,
        name=path.resolve().name,
        hash=_table_hash(examples.rows),
        split=settings.split,
        ids=ids,
        texts=texts,
        intents=intents,
        refusals=tuple(examples.refusals),
        columns=columns,
    )


def _table_of_split(path: Path, split: str) -> Path:
    """The one table of a folder that is named after a split; otherwise the path itself.

    So a large train table is not read, and a folder may hold a test table alone.
    """
    if not path.is_dir():
        return path

    tables = []
    for table in sorted(path.iterdir()):
        stem = plain_stem(table).lower()
        if table.is_file() and SPLIT_NAMES.get(stem) == split:
            tables.append(table)
    # Where there are several, the reader of folders knows which of them are tables.
    return tables[0] if len(tables) == 1 else path


def plain_stem(path: Path) -> str:
    """The name of a file without all of its endings: `may` for `may.csv.gz`."""
    return path.name.partition(".")[0] or path.name


def _require_no_split(path: Path, settings: Settings) -> None:
    if settings.split != "test":
        raise DataError(
            f"{path} is one table without parts, and split: {settings.split} asks for one",
            "Leave split out: all of its rows are evaluated on",
        )


@dataclass(frozen=True)
class _CleanRows:
    rows: list[Example]
    refusals: list[RefusedRow]


def _clean_part(source: Source, part: str, config: DataConfig, path: Path) -> _CleanRows:
    """The usable rows of one part of a source; DataError where there are none or too few."""
    if not source.rows.get(part):
        parts = ", ".join(name for name, rows in source.rows.items() if rows)
        raise DataError(
            f"{path} holds no {part} rows; it has {parts or 'no rows at all'}",
            "Choose another part with --split",
        )

    rows = source.rows[part]
    examples, refusals = clean(rows, config.max_chars)
    require_allowed(config.bad_rows, refusals, len(rows), str(path))
    if not examples:
        reasons = describe_refused(refusals)
        raise DataError(f"{path} holds no usable row ({reasons})", "Check its columns")
    return _CleanRows(examples, refusals)


def _table_hash(rows: Sequence[Example]) -> str:
    """sha256 of texts and intents in their order, independent of the format of the file."""
    pairs = [[row.text, row.label_text] for row in rows]
    return files.sha256_text(json.dumps(pairs, ensure_ascii=False))


def show_refusals(rows: LabelledRows) -> None:
    """Print how many rows of a table were left out and why, and the first of them."""
    text = rows.describe_refusals()
    if text is None:
        return
    console.say(text)

    places = [refusal.place for refusal in rows.refusals]
    console.say(f"  {list_some(places)}")
