"""Folders that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` of `datasets` write.

A dataset is Arrow streams, a list of them (state.json) and its features (dataset_info.json); a
dictionary of datasets is a folder for each, and a list of those (dataset_dict.json). The streams
are read as such, which needs no library but Arrow, and works in a zip too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from bankintent.config import DataConfig
from bankintent.corpus.class_names import find_class_names, name_class
from bankintent.corpus.columns import find_text_and_label
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.kept_columns import find_kept
from bankintent.corpus.rows import SPLIT_NAMES, Row
from bankintent.errors import DataError

STATE = "state.json"
INFO = "dataset_info.json"
SPLITS = "dataset_dict.json"
ARROW = ".arrow"

OWN = re.compile(r"(.*/)?(state|dataset_info|dataset_dict)\.json")
"""Files beside those with rows."""

WHOLE = "all"
"""The split of a dataset that is no part of a dictionary."""


@dataclass(frozen=True)
class _Part:
    """One dataset, which is a split of a dictionary or all there is."""

    split: str
    """As the dictionary names it; `all` where there is none."""
    folder: str
    """With a slash at its end; empty for the top."""
    state: dict[str, Any]
    features: dict[str, Any]
    shards: list[ExportFile]


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of rows (the Arrow streams that a state.json lists), or else the state.json."""
    found = []
    for file in files.files:
        folder = _folder(file.name)
        if PurePosixPath(file.name).name != STATE:
            continue

        names = _shard_names(file.json)
        if names is not None:
            shards = [files.find(folder + name) for name in names]
            found += [shard for shard in shards if shard is not None] or [file]
    return found


def _folder(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _shard_names(state: Any) -> list[str] | None:
    """The names of the streams of a dataset; None where this is no state of one."""
    entries = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    names = [str(entry.get("filename")) for entry in entries]
    return names if all(name.endswith(ARROW) for name in names) else None


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of each split.

    Raises DataError where a file is missing or damaged, and where columns are not found.
    """
    parts = list(_parts(files))
    rows: dict[str, list[Row]] = {}
    left: dict[str, int] = {}
    columns: dict[str, None] = {}
    order: tuple[str, ...] | None = None

    for part in parts:
        split = WHOLE if part.split == WHOLE else SPLIT_NAMES.get(part.split.lower())
        if split is None:
            left[f'rows of the split "{part.split}"'] = sum(map(_count, part.shards))
            continue

        where = files.path.name if split == WHOLE else f"{files.path.name} ({part.split})"
        text, label = find_text_and_label(list(part.features), config, where)
        columns[f'sentences in "{text}", intents in "{label}"'] = None
        kept_indices = find_kept(list(part.features), config.keep_columns, where)
        kept = [list(part.features)[index] for index in kept_indices]
        rows[split] = list(_read_part(part, [text, label, *kept]))
        order = find_class_names(part.features[label]) or order

    if not {WHOLE, "train"} & rows.keys():
        listed = ", ".join(part.split for part in parts)
        raise DataError(f"{files.path} has no train split; it has {listed}")
    note = f"Columns of {files.path.name}: {'; '.join(columns)}."
    return Export(rows, left=left, notes=(note,), label_order=order)


def _parts(files: ExportFiles) -> Iterator[_Part]:
    """The datasets of a source; DataError where one of a dictionary's is missing."""
    dictionaries = [file for file in files.files if PurePosixPath(file.name).name == SPLITS]
    if dictionaries:
        top = _folder(dictionaries[0].name)
        names = dictionaries[0].require_json()
        for split in names.get("splits", []) if isinstance(names, dict) else []:
            yield _open_part(files, str(split), f"{top}{split}/")
        return

    states = [file for file in files.files if PurePosixPath(file.name).name == STATE]
    folders = [_folder(file.name) for file in states if _shard_names(file.json) is not None]
    for folder in folders:
        # Several were saved one by one, each in a folder that is named after its split.
        split = PurePosixPath(folder).name if len(folders) > 1 else WHOLE
        yield _open_part(files, split, folder)


def _open_part(files: ExportFiles, split: str, folder: str) -> _Part:
    state = _require(files, folder + STATE).require_json()
    info = _require(files, folder + INFO).require_json()
    names = _shard_names(state)
    features = info.get("features") if isinstance(info, dict) else None
    if names is None or not isinstance(features, dict):
        raise DataError(
            f"{folder}{STATE} and {folder}{INFO} do not describe a dataset", "Save it again"
        )
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder}{STATE} selects rows by indices, as old versions of datasets wrote it",
            "Load it and save it again with a version of today",
        )
    shards = [_require(files, folder + name) for name in names]
    return _Part(split, folder, state, features, shards)


def _require(files: ExportFiles, name: str) -> ExportFile:
    found = files.find(name)
    if found is None:
        raise DataError(f"{files.path} lacks the file {name}", "Save the dataset again")
    return found


def _open_stream(shard: ExportFile) -> pa.RecordBatchStreamReader:
    try:
        return pa.ipc.open_stream(shard.read())
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from None


def _damaged(shard: ExportFile, error: Exception) -> DataError:
    return DataError(f"{shard.name} is no Arrow stream ({error})", "Save the dataset again")


def _count(shard: ExportFile) -> int:
    return sum(len(batch) for batch in _batches(shard))


def _batches(shard: ExportFile) -> Iterator[pa.RecordBatch]:
    reader = _open_stream(shard)
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from None


def _read_part(part: _Part, columns: list[str]) -> Iterator[Row]:
    """The rows of a dataset, from its columns: of sentences, of intents, and those to keep."""
    for shard in part.shards:
        for number, values in enumerate(_read_values(part, shard, columns), 1):
            yield Row(shard.name, number, values[0], values[1], kept=values[2:])


def _read_values(part: _Part, shard: ExportFile, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """The values of each row; ids of a ClassLabel become the names of the classes."""
    classes = [find_class_names(part.features[name]) for name in columns]
    for number, record in enumerate(_read_records(shard, columns), 1):
        values = []
        for value, names in zip(record, classes, strict=True):
            if names:
                value = name_class(value, names, f"{shard.name} row {number}")
            values.append(value)
        yield tuple(values)


def _read_records(shard: ExportFile, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    for batch in _batches(shard):
        missing = set(columns) - set(batch.schema.names)
        if missing:
            raise DataError(
                f'{shard.name} lacks the column "{missing.pop()}" of {INFO}',
                "Save the dataset again",
            )
        values = [batch.column(name).to_pylist() for name in columns]
        yield from zip(*values, strict=True)


FORMAT = Format("datasets' save_to_disk (Arrow)", "datasets (save_to_disk)", find, read, OWN)
