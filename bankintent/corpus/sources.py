"""Where labelled sentences come from: the Hub, a file, a folder of files, CLINC150's JSON, the bundled dataset."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import files, hub
from bankintent.config import DataConfig
from bankintent.errors import DataError, SourceUnavailable

BUNDLED = Path(__file__).parents[2] / "data" / "bundled" / "sentences.csv"

HUB_ALIASES = {
    # The main branch of PolyAI/banking77 is a loading script, which datasets >= 4 refuses; this copy is plain JSONL
    # with the original 10,003 / 3,080 rows at this commit (a later commit removed rows).
    "banking77": ("mteb/banking77", "0fd18e25b25c072e09e0d92ab615fda904d66300"),
}

TEXT_COLUMNS = ("text", "sentence", "utterance", "query", "message")
LABEL_COLUMNS = ("label_text", "label", "category", "intent", "class")
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True)
class Row:
    """One record as the source has it, not yet cleaned. `number` counts records from 1 in its `origin`."""

    origin: str
    number: int
    text: Any
    label: Any


@dataclass
class Source:
    """The records of a source, by its own split names (`all` where it has none), and what identifies it."""

    identity: dict[str, Any]
    rows: dict[str, list[Row]]
    out_of_scope: dict[str, list[Row]] = field(default_factory=dict)
    label_order: tuple[str, ...] | None = None
    """Label names in id order where the source defines one (a Hub ClassLabel)."""

    def pooled(self) -> list[Row]:
        """The records of all splits, one after the other."""
        return [row for part in self.rows.values() for row in part]


def read(config: DataConfig) -> Source:
    """Read the source that `dataset_name` names.

    Raises DataError where it holds something unusable, SourceUnavailable where it is not there or cannot be reached.
    """
    name = config.dataset_name
    if name == "bundled":
        source = _read_file(BUNDLED, config)
        return Source({**source.identity, "kind": "bundled"}, source.rows)
    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, config)
    if path.is_file():
        return _read_file(path, config)
    if path.suffix.lower() in SUFFIXES or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise DataError(
            f"{name} does not exist",
            "Correct dataset_name: a file, a folder, a Hub name or bundled",
        )
    return _read_hub(name, config)


def read_extra(config: DataConfig) -> Source:
    """Read the source that `extra_train` names; its columns are found by name."""
    changes = {"dataset_name": config.extra_train, "revision": None, "subset": None}
    return read(config.model_copy(update={**changes, "text_column": None, "label_column": None}))


def read_unlabelled(config: DataConfig) -> Source:
    """Read the sentences of the table that `unlabelled` names; whatever other columns it has are not looked at."""
    path = config.unlabelled
    assert path is not None
    if not path.expanduser().is_file():
        raise DataError(f"{path} is no file", f"Correct unlabelled: a table, {', '.join(SUFFIXES)}")
    records, columns = _records(path.expanduser())
    own = (
        columns[0]
        if len(columns) == 1
        else config.text_column
        if config.text_column in columns
        else None
    )
    hint = "Rename its column of sentences to text"  # text_column is the dataset's
    text = find_column(columns, "text_column", own, TEXT_COLUMNS, path.name, hint)
    rows = [Row(path.name, number, record.get(text), None) for number, record in records]
    return Source(
        {"kind": "file", "files": {path.name: files.sha256(path.expanduser())}}, {"all": rows}
    )


def _read_file(path: Path, config: DataConfig) -> Source:
    if path.suffix.lower() == ".json":
        content = _parse_json(path)
        if _is_clinc(content):
            return _clinc(path, content)
    rows = _rows(path, config)
    return Source({"kind": "file", "files": {path.name: files.sha256(path)}}, {"all": rows})


def _read_folder(folder: Path, config: DataConfig) -> Source:
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.stem.lower())
        if path.suffix.lower() not in SUFFIXES:
            continue
        if split is None:
            others.append(path)
        elif split in found:
            raise DataError(
                f"{folder} holds two {split} files, {found[split].name} and {path.name}", "Keep one"
            )
        else:
            found[split] = path
    if not found and len(others) == 1:
        return _read_file(others[0], config)
    if "train" not in found:
        raise DataError(
            f"{folder} holds no train file ({', '.join(p.name for p in others) or 'no table at all'})",
            f"Expected train and, if you have them, val and test as {', '.join(SUFFIXES)}",
        )
    rows = {split: _rows(path, config) for split, path in found.items()}
    return Source(
        {"kind": "folder", "files": {p.name: files.sha256(p) for p in found.values()}}, rows
    )


def _rows(path: Path, config: DataConfig) -> list[Row]:
    records, columns = _records(path)
    text, label = _pick_columns(columns, config, path.name)
    return [
        Row(path.name, number, record.get(text), record.get(label)) for number, record in records
    ]


Records = tuple[list[tuple[int, dict[str, Any]]], list[str]]


def _records(path: Path) -> Records:
    """Numbered records and the names of the columns; DataError where the file is no table that can be read."""
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path} has an unknown ending", f"Expected one of {', '.join(SUFFIXES)}")
    return _READERS[path.suffix.lower()](path)


def _decode(path: Path) -> str:
    """UTF-8 text; bytes that are none become lone surrogates, so that cleaning can refuse just their rows."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16 text", "Save it as UTF-8")
    return raw.decode("utf-8-sig", errors="surrogateescape")


def find_delimiter(header: str) -> str:
    """Comma, semicolon or tab: whichever the header line has most of."""
    return max(",;\t", key=header.count)


def _read_csv(path: Path) -> Records:
    content = _decode(path)
    delimiter = find_delimiter(content.partition("\n")[0])
    csv.field_size_limit(
        max(len(content), csv.field_size_limit())
    )  # it holds for the whole process: never lower it
    reader = csv.DictReader(
        io.StringIO(content, newline=""), delimiter=delimiter, strict=True, restkey=""
    )
    try:
        records = list(enumerate(reader, 1))
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num}: {error}", "Mend the quotes of that row"
        ) from None
    columns = [column for column in reader.fieldnames or [] if column]
    if not columns:
        raise DataError(f"{path} is empty", "Expected a header line and rows below it")
    # A row with too many cells has lost its columns (an unquoted comma): its text cannot be trusted.
    return [(n, {} if record.get("") else record) for n, record in records], columns


def _read_jsonl(path: Path) -> Records:
    records: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(_decode(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise DataError(
                f"{path} line {number} is not JSON", "Mend or remove that line"
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{path} line {number} is not a JSON object", 'Expected {"text": ..., "label": ...}'
            )
        records.append((number, record))
        columns |= dict.fromkeys(record)
    return records, list(columns)


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(_decode(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON ({error})", "A file of JSON lines must end in .jsonl"
        ) from None


def _read_json(path: Path) -> Records:
    content = _parse_json(path)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise DataError(
            f"{path} is neither a list of objects nor CLINC150's layout",
            'Expected [{"text": ..., "label": ...}, ...]',
        )
    columns = dict.fromkeys(key for record in content for key in record)
    return list(enumerate(content, 1)), list(columns)


def _read_parquet(path: Path) -> Records:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})"
        ) from None
    return list(enumerate(table.to_pylist(), 1)), table.column_names


_READERS: dict[str, Callable[[Path], Records]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _pick_columns(columns: list[str], config: DataConfig, where: str) -> tuple[str, str]:
    """The columns of text and label: as configured, else the first known name, whatever its case."""
    return (
        find_column(columns, "text_column", config.text_column, TEXT_COLUMNS, where),
        find_column(columns, "label_column", config.label_column, LABEL_COLUMNS, where),
    )


def find_column(
    columns: list[str],
    key: str,
    configured: str | None,
    known: Iterable[str],
    where: str,
    hint: str = "",
) -> str:
    """The configured column, else the first of the known names, whatever its case; DataError names `key` to set."""
    if configured is not None:
        if configured in columns:
            return configured
        raise DataError(
            f'{where} has no column "{configured}"; it has {", ".join(columns)}', f"Correct {key}"
        )
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    for name in known:
        if name in by_name:
            return by_name[name]
    raise DataError(
        f"{where} has none of the columns {', '.join(known)}; it has {', '.join(columns)}",
        hint or f"Name the column with --set {key}=...",
    )


def _is_clinc(content: Any) -> bool:
    return isinstance(content, dict) and {"train", "val", "test"} <= content.keys()


def _clinc(path: Path, content: dict[str, Any]) -> Source:
    """CLINC150's data_full.json: lists of [text, intent] for each split, out-of-scope rows under oos_<split>."""
    rows: dict[str, list[Row]] = {}
    for key, pairs in content.items():
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in pairs
        ):
            raise DataError(
                f'{path}: "{key}" is not a list of [text, intent] pairs',
                "Expected CLINC150's layout",
            )
        rows[key] = [Row(key, number, text, label) for number, (text, label) in enumerate(pairs, 1)]
    return Source(
        {"kind": "clinc150", "files": {path.name: files.sha256(path)}},
        {split: rows[split] for split in ("train", "val", "test")},
        {key.removeprefix("oos_"): part for key, part in rows.items() if key.startswith("oos_")},
    )


def _read_hub(name: str, config: DataConfig) -> Source:
    repository, pinned = HUB_ALIASES.get(name, (name, None))
    revision = config.revision or pinned or "main"
    hub.require_reachable(
        f'the dataset "{name}"',
        "name a local file or folder, or `bundled` (--set dataset_name=bundled)",
    )
    import datasets

    with hub.explained(f'the dataset "{name}" (revision {revision})'):
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()  # what it would say of a stale cache is checked below
        parts = datasets.load_dataset(repository, config.subset, revision=revision)
    commit = _loaded_commit(parts, repository, revision)
    rows: dict[str, list[Row]] = {}
    order: tuple[str, ...] | None = None
    for split_name, part in parts.items():
        split = SPLIT_NAMES.get(str(split_name))
        if split is None:
            continue
        text, label = _pick_columns(part.column_names, config, f"{name} ({split_name})")
        names = getattr(part.features[label], "names", None)
        order = tuple(names) if names else order
        labels = [names[i] if names and i >= 0 else i for i in part[label]]
        pairs = enumerate(zip(part[text], labels, strict=True), 1)
        rows[split] = [
            Row(str(split_name), number, sentence, value) for number, (sentence, value) in pairs
        ]
    if "train" not in rows:
        raise DataError(
            f'the dataset "{name}" has no train split; it has {", ".join(map(str, parts))}'
        )
    content = hashlib.sha256(
        json.dumps({s: [[r.text, r.label] for r in part] for s, part in rows.items()}).encode()
    )
    identity = {
        "kind": "hub",
        "repository": repository,
        "revision": commit,
        "content": content.hexdigest(),
    }
    return Source(identity, rows, label_order=order)


def _loaded_commit(parts: Any, repository: str, revision: str) -> str:
    """The commit that the loaded data came from; it must be the one that was asked for.

    With a warm cache and the Hub away, load_dataset returns any cached revision without a word.
    """
    cached = next(iter(parts.values())).cache_files
    commit = (
        Path(cached[0]["filename"]).parent.name if cached else ""
    )  # datasets files its cache by commit
    if not hub.is_commit(commit) or (hub.is_commit(revision) and commit != revision):
        raise SourceUnavailable(
            f"{repository} was loaded at revision {commit or 'unknown'} from the cache, expected {revision}",
            "Connect to the Hub, or clear the cache of datasets",
        )
    return commit
