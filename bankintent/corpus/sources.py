"""Labelled sentences from the Hub, a file, a folder of files or the bundled dataset."""

from pathlib import Path
from typing import Any

from bankintent import files
from bankintent.config import DataConfig
from bankintent.corpus import hub_source
from bankintent.corpus.columns import TEXT_COLUMNS, find_column, find_text_and_label
from bankintent.corpus.records import SUFFIXES, parse_json, read_records
from bankintent.corpus.rows import SPLIT_NAMES, Row, Source, SourceIdentity, Sources
from bankintent.errors import DataError

BUNDLED = Path(__file__).parents[2] / "data" / "bundled" / "sentences.csv"

HUB_ALIASES = {
    # The main branch of PolyAI/banking77 is a loading script, which datasets >= 4 refuses. This
    # copy is plain JSONL with the original 10,003 / 3,080 rows at this commit (a later commit
    # removed rows).
    "banking77": ("mteb/banking77", "0fd18e25b25c072e09e0d92ab615fda904d66300"),
}
"""Short names of Hub datasets: the repository and the commit that is read."""


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
        return Source(source.identity | {"kind": "bundled"}, source.rows)

    path = Path(name).expanduser()
    if path.is_dir():
        return _read_folder(path, config)
    if path.is_file():
        return _read_file(path, config)
    if _looks_like_path(name):
        raise DataError(
            f"{name} does not exist",
            "Correct dataset_name: a file, a folder, a Hub name or bundled",
        )

    # The alias pins a commit, but a configured revision comes before it.
    repository, pinned = HUB_ALIASES.get(name, (name, None))
    revision = config.revision or pinned or "main"
    return hub_source.read_hub(repository, revision, config)


def _looks_like_path(name: str) -> bool:
    """Whether a name cannot be one of the Hub, which are `name` or `owner/name`."""
    has_suffix = Path(name).suffix.lower() in SUFFIXES
    return has_suffix or name.startswith((".", "/", "~")) or name.count("/") > 1


def read_extra(config: DataConfig) -> Source:
    """Read the source that `extra_train` names."""
    # Revision, subset and column names are those of the dataset.
    changes = {
        "dataset_name": config.extra_train,
        "revision": None,
        "subset": None,
        "text_column": None,
        "label_column": None,
    }
    return read(config.model_copy(update=changes))


def read_unlabelled(path: Path, config: DataConfig) -> Source:
    """Read the sentences of a table; its other columns are ignored."""
    if not path.is_file():
        raise DataError(
            f"{config.unlabelled} is no file",
            f"Correct unlabelled: a table, {', '.join(SUFFIXES)}",
        )

    records = read_records(path)
    column = _find_sentences(records.columns, config, path.name)

    rows = []
    for number, record in records.rows:
        rows.append(Row(path.name, number, record.get(column), label=None))
    return Source(_file_identity("file", [path]), {"all": rows})


def _find_sentences(columns: list[str], config: DataConfig, where: str) -> str:
    """The only column, otherwise one of the configured or of a known name."""
    if len(columns) == 1:
        return columns[0]

    # text_column is the dataset's: this table need not have it.
    configured = config.text_column if config.text_column in columns else None
    hint = "Rename its column of sentences to text"
    return find_column(columns, "text_column", configured, TEXT_COLUMNS, where, hint)


def _file_identity(kind: str, paths: list[Path]) -> SourceIdentity:
    hashes = {}
    for path in paths:
        hashes[path.name] = files.sha256(path)
    return {"kind": kind, "files": hashes}


def _read_file(path: Path, config: DataConfig) -> Source:
    if path.suffix.lower() == ".json":
        content = parse_json(path)
        if _is_clinc(content):
            return _read_clinc(path, content)

    rows = _read_rows(path, config)
    return Source(_file_identity("file", [path]), {"all": rows})


def _read_rows(path: Path, config: DataConfig) -> list[Row]:
    records = read_records(path)
    text, label = find_text_and_label(records.columns, config, path.name)

    rows = []
    for number, record in records.rows:
        rows.append(Row(path.name, number, record.get(text), record.get(label)))
    return rows


def _read_folder(folder: Path, config: DataConfig) -> Source:
    """A folder with one table for each split, or with a single table of any name."""
    paths, others = _split_files(folder)
    if not paths and len(others) == 1:
        return _read_file(others[0], config)

    if "train" not in paths:
        names = ", ".join(path.name for path in others) or "no table at all"
        raise DataError(
            f"{folder} holds no train file ({names})",
            f"Expected train and, if you have them, val and test as {', '.join(SUFFIXES)}",
        )

    rows = {}
    for split, path in paths.items():
        rows[split] = _read_rows(path, config)
    return Source(_file_identity("folder", list(paths.values())), rows)


def _split_files(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """(tables named after a split, by split; the other tables)."""
    paths: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        # A licence or a readme is no hindrance.
        if path.suffix.lower() not in SUFFIXES:
            continue

        split = SPLIT_NAMES.get(path.stem.lower())
        if split is None:
            others.append(path)
        elif split in paths:
            names = f"{paths[split].name} and {path.name}"
            raise DataError(f"{folder} holds two {split} files, {names}", "Keep one")
        else:
            paths[split] = path
    return paths, others


def _is_clinc(content: Any) -> bool:
    return isinstance(content, dict) and {"train", "val", "test"} <= content.keys()


def _read_clinc(path: Path, content: files.JsonObject) -> Source:
    """CLINC150's data_full.json: [text, intent] pairs by split, out of scope under oos_<split>."""
    rows: dict[str, list[Row]] = {}
    out_of_scope: dict[str, list[Row]] = {}

    for key, pairs in content.items():
        if not _is_list_of_pairs(pairs):
            raise DataError(
                f'{path}: "{key}" is not a list of [text, intent] pairs',
                "Expected CLINC150's layout",
            )
        part = []
        for number, (text, label) in enumerate(pairs, 1):
            part.append(Row(key, number, text, label))

        if key.startswith("oos_"):
            out_of_scope[key.removeprefix("oos_")] = part
        else:
            rows[key] = part

    splits = {split: rows[split] for split in ("train", "val", "test")}
    return Source(_file_identity("clinc150", [path]), splits, out_of_scope)


def _is_list_of_pairs(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(pair, list) and len(pair) == 2 for pair in value)
