"""Labelled sentences from the Hub, a file, a folder of files or the bundled dataset."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bankintent import files
from bankintent.config import DataConfig, TableKeys
from bankintent.corpus import export_source, hub_source, json_tables
from bankintent.corpus.columns import find_table_columns, find_table_text
from bankintent.corpus.formats.registry import find_export, known_tools
from bankintent.corpus.kept_columns import find_kept, require_columns
from bankintent.corpus.records import Table
from bankintent.corpus.rows import (
    SPLIT_NAMES,
    Reading,
    Row,
    Source,
    SourceIdentity,
    Sources,
    is_companion,
)
from bankintent.corpus.tables import ENDINGS_IN_WORDS, find_ending, open_table
from bankintent.distribution import shipped
from bankintent.errors import DataError

BUNDLED = shipped("data/bundled/sentences.csv")

HUB_ALIASES = {
    # The main branch of PolyAI/banking77 is a loading script, which datasets >= 4 refuses. This
    # copy is plain JSONL with the original 10,003 / 3,080 rows at this commit (a later commit
    # removed rows).
    "banking77": ("mteb/banking77", "0fd18e25b25c072e09e0d92ab615fda904d66300"),
}
"""Short names of Hub datasets: the repository and the commit that is read."""

EXPORT_ENDINGS = (".yml", ".yaml", ".md", ".zip", ".txt")
"""Endings of exports of other tools that are no tables."""

WHOLE = "all"
"""The only part of a source that has no splits."""

SHARD = re.compile(r"-\d+-of-\d+$")
"""The end of a split's name where the library `datasets` has divided it into several files."""


def read_all(config: DataConfig) -> Sources:
    """Read everything that the config names; raises like `read`."""
    dataset = read(config)

    extra_train = None
    if config.extra_train:
        extra_train = read_extra(config)

    unlabelled = None
    if config.unlabelled:
        unlabelled = read_unlabelled(config.unlabelled.expanduser(), config)

    return Sources(dataset, extra_train, unlabelled)


def read(config: DataConfig) -> Source:
    """Read the source that `dataset_name` names.

    Raises DataError where it holds something unusable, SourceUnavailable where it does not exist
    or cannot be reached.
    """
    name = config.dataset_name
    if name == "bundled":
        source = _read_file(BUNDLED, config)
        return replace(source, identity=source.identity | {"kind": "bundled"})

    path = Path(name).expanduser()
    if path.exists():
        export = find_export(path, config)
        if export is not None:
            return export_source.read_export(export, config)
    if path.is_dir():
        return _read_folder(path, config)
    if path.is_file():
        return _read_file(path, config)
    if looks_like_path(name):
        raise DataError(
            f"{name} does not exist",
            "Correct the path; a file, a folder, a Hub name or bundled can be named",
        )

    # The alias pins a commit, but a configured revision comes before it.
    repository, pinned = HUB_ALIASES.get(name, (name, None))
    revision = config.revision or pinned or "main"
    return hub_source.read_hub(repository, revision, config)


def looks_like_path(name: str) -> bool:
    """Whether a name cannot be one of the Hub, which are `name` or `owner/name`."""
    return (
        find_ending(Path(name)) is not None
        or name.lower().endswith(EXPORT_ENDINGS)
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
    )


def read_extra(config: DataConfig) -> Source:
    """Read the source that `extra_train` names."""
    # These are the dataset's; an encoding also serves files that are no Unicode beside it.
    changes: dict[str, Any] = {
        "dataset_name": config.extra_train,
        "revision": None,
        "subset": None,
        "text_column": None,
        "label_column": None,
        "delimiter": None,
        "sheet": None,
        "header": None,
        "keep_columns": [],
    }
    return read(config.model_copy(update=changes))


def read_unlabelled(path: Path, config: DataConfig) -> Source:
    """Read the sentences of a table; its other columns are ignored."""
    if not path.is_file():
        raise DataError(
            f"{config.unlabelled} is no file",
            f"Correct unlabelled: a table, {ENDINGS_IN_WORDS}",
        )

    table = open_table(path, TableKeys(encoding=config.encoding))
    # text_column is the dataset's: this table need not have it.
    configured = config.text_column if config.text_column in table.columns else None
    hint = "Rename its column of sentences to text"
    text = find_table_text(table, configured, hint)

    without_columns = config.model_copy(update={"keep_columns": []})
    rows = _read_rows(table, text, None, without_columns)
    reading = [Reading.of(table, len(rows), text, None)]
    unread = _unread_sheets(table)
    return Source(file_identity("file", [path]), {"all": rows}, reading=reading, unread=unread)


def file_identity(kind: str, paths: list[Path]) -> SourceIdentity:
    """What identifies files: the kind of source, and the sha256 of each by its name."""
    hashes = {}
    for path in paths:
        hashes[path.name] = files.sha256(path)
    return {"kind": kind, "files": hashes}


def _read_file(path: Path, config: DataConfig) -> Source:
    _require_table(path)
    parts = {"all": [path]}
    if find_ending(path) not in (".json", ".json.gz"):
        return _read_tables("file", parts, config)

    content = json_tables.parse_json(path, config)
    if _is_clinc(content):
        require_columns(config, f"{path} has the layout of CLINC150")
        return _read_clinc(path, content)
    try:
        return _read_tables("file", parts, config)
    except DataError as error:
        raise DataError(
            str(error), f"As an export it is none of the known ones: {known_tools()}"
        ) from None


def _require_table(path: Path) -> None:
    """Raise DataError for a file that is no table, and in which no export was recognised."""
    if path.name.lower().endswith(EXPORT_ENDINGS):
        raise DataError(
            f"{path} is no table (unknown ending), and no known export was recognised in it",
            f"Known are tables ({ENDINGS_IN_WORDS}) and exports of {known_tools()}",
        )


def _read_tables(kind: str, paths: dict[str, list[Path]], config: DataConfig) -> Source:
    """The labelled tables of each split, one after the other."""
    rows: dict[str, list[Row]] = {}
    reading: list[Reading] = []
    unread: list[str] = []
    orders: set[tuple[str, ...] | None] = set()

    for split, parts in paths.items():
        rows[split] = []
        for path in parts:
            table = open_table(path, config)
            text, label = find_table_columns(table, config)
            part = _read_rows(table, text, label, config)

            rows[split] += part
            reading.append(Reading.of(table, len(part), text, label))
            unread += _unread_sheets(table)
            orders.add(table.class_names.get(label))

    # Files that order their classes in other ways have no order in common.
    order = orders.pop() if len(orders) == 1 else None
    all_paths = list(itertools.chain.from_iterable(paths.values()))
    return Source(file_identity(kind, all_paths), rows, {}, order, reading, unread)


def _read_rows(table: Table, text: str, label: str | None, config: DataConfig) -> list[Row]:
    return list(iterate_rows(table, text, label, config))


def iterate_rows(table: Table, text: str, label: str | None, config: DataConfig) -> Iterator[Row]:
    """The rows of a table, in order.

    Raises DataError where a record has more cells than the header, whose columns are lost; with
    `bad_rows: drop` it is a row without text and label.
    """
    name = table.path.name
    kept_indices = find_kept(table.columns, config.keep_columns, name)
    text_index = table.columns.index(text)
    label_index = None if label is None else table.columns.index(label)

    for record in table.records():
        if record.surplus:
            if config.bad_rows != "drop":
                table.require_whole(record, ", or leave such rows out with bad_rows: drop")
            yield Row(name, record.number, None, None, record.line)
            continue

        label_value = None if label_index is None else record.cells[label_index]
        kept = tuple([record.cells[index] for index in kept_indices])
        text_value = record.cells[text_index]
        yield Row(name, record.number, text_value, label_value, record.line, kept)


def _unread_sheets(table: Table) -> list[str]:
    return [f'the sheet "{sheet}" of {table.path.name}' for sheet in table.unread]


def _read_folder(folder: Path, config: DataConfig) -> Source:
    """A folder with one table for each split, or with a single table of any name."""
    paths, unread = find_tables(folder)
    if WHOLE in paths:
        source = _read_file(paths[WHOLE][0], config)
    else:
        source = _read_tables("folder", paths, config)
    return replace(source, unread=source.unread + unread)


def find_tables(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """(the tables of each split, or the only table as `all`; the files that are not read).

    Raises DataError where there is neither a table for train nor a single one.
    """
    paths, others = _split_files(folder)
    tables = [path for path in others if find_ending(path)]
    if not paths and len(tables) == 1:
        others.remove(tables[0])
        paths = {WHOLE: tables}
    elif "train" not in paths:
        names = ", ".join(path.name for path in others) or "no table at all"
        raise DataError(
            f"{folder} holds no train file ({names})",
            f"Expected train and, if you have them, val and test as {ENDINGS_IN_WORDS}, or an "
            f"export of {known_tools()}",
        )
    return paths, [path.name for path in others]


def _split_files(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """(tables named after a split, by split; the other files and folders)."""
    paths: dict[str, list[Path]] = {}
    others = []
    for path in sorted(folder.iterdir()):
        split = _split_of(path)
        if split is not None:
            paths.setdefault(split, []).append(path)
        elif not is_companion(path.name):
            others.append(path)

    for split, parts in paths.items():
        is_whole = [not SHARD.search(_stem(path)) for path in parts]
        if len(parts) > 1 and any(is_whole):
            names = " and ".join(path.name for path in parts)
            raise DataError(f"{folder} holds two {split} files, {names}", "Keep one")
    return paths, others


def _split_of(path: Path) -> str | None:
    """The split that a file is named after; None where it is no such table."""
    if find_ending(path) is None or not path.is_file():
        return None
    return SPLIT_NAMES.get(SHARD.sub("", _stem(path)))


def _stem(path: Path) -> str:
    """The name of a table without its ending, in lower case."""
    return path.name.lower().removesuffix(find_ending(path) or "")


def _is_clinc(content: Any) -> bool:
    return isinstance(content, dict) and {"train", "val", "test"} <= content.keys()


def _read_clinc(path: Path, content: files.JsonObject) -> Source:
    """CLINC150's data_full.json: [text, intent] pairs by split, out of scope under oos_<split>."""
    rows: dict[str, list[Row]] = {}
    out_of_scope: dict[str, list[Row]] = {}
    reading: list[Reading] = []

    for key, pairs in content.items():
        if not _is_list_of_pairs(pairs):
            raise DataError(
                f'{path}: "{key}" is not a list of [text, intent] pairs',
                "Expected CLINC150's layout",
            )
        part = []
        for number, (text, label) in enumerate(pairs, 1):
            part.append(Row(key, number, text, label))
        reading.append(Reading(key, "CLINC150's JSON", len(part), None, None))

        if key.startswith("oos_"):
            out_of_scope[key.removeprefix("oos_")] = part
        else:
            rows[key] = part

    splits = {split: rows[split] for split in ("train", "val", "test")}
    return Source(file_identity("clinc150", [path]), splits, out_of_scope, reading=reading)


def _is_list_of_pairs(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(pair, list) and len(pair) == 2 for pair in value)
