"""Which engine an ETL runs on, and what the one for large data does not do."""

from pathlib import Path

from bankintent import distribution
from bankintent.config import DataConfig
from bankintent.corpus.formats.registry import find_export
from bankintent.corpus.sources import find_tables, looks_like_path
from bankintent.corpus.tables import find_ending
from bankintent.errors import ConfigError, DataError

LARGE_BYTES = 1 << 23
"""Size of tables from which `auto` keeps the rows on disk."""

STREAMED = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
"""Endings of the tables that are read a piece at a time."""


def is_large(config: DataConfig) -> bool:
    """Whether the rows are to be kept on disk.

    Raises ConfigError where `engine: duckdb` meets a key or a source that it cannot serve,
    MissingPackage where DuckDB is not installed.
    """
    if config.engine == "memory":
        return False

    if config.engine == "duckdb":
        fault = _find_fault(config) or _find_source_fault(config)
        if fault is not None:
            raise ConfigError(f"engine: duckdb does not serve {fault}", "Set engine: memory")
        distribution.require("duckdb", what="engine: duckdb")
        return True

    # Sizes first: to look for an export opens files.
    if _find_fault(config) is not None or _size(config) < LARGE_BYTES:
        return False
    return _find_source_fault(config) is None and distribution.has("duckdb")


def _find_fault(config: DataConfig) -> str | None:
    """The first key that the engine for large data does not serve; None where it serves all."""
    asked = {
        "split: cross": config.split == "cross",
        "few_shot": config.few_shot is not None,
        "extra_train": config.extra_train is not None,
        "unlabelled": config.unlabelled is not None,
        "patch": config.patch is not None,
        "out_of_scope_labels": bool(config.out_of_scope_labels),
        "keep_columns": bool(config.keep_columns),
        "dataset_name: bundled": config.dataset_name == "bundled",
    }
    for key, is_asked in asked.items():
        if is_asked:
            return key
    return None


def _find_source_fault(config: DataConfig) -> str | None:
    path = Path(config.dataset_name).expanduser()
    if not path.exists():
        return None
    if find_export(path, config) is not None:
        return f"{path}, an export of another tool"
    for table in _tables(path):
        if find_ending(table) not in STREAMED:
            return f"{table.name}; it reads {', '.join(STREAMED)}"
    return None


def _size(config: DataConfig) -> int:
    """Bytes of the tables that are named; 0 where they are not here."""
    path = Path(config.dataset_name).expanduser()
    if not path.exists() and looks_like_path(config.dataset_name):
        return 0
    return sum(table.stat().st_size for table in _tables(path))


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    try:
        paths, _ = find_tables(path)
    except DataError:
        return []
    tables = []
    for part in paths.values():
        tables += part
    return tables
