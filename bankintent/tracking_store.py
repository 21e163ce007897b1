"""Which tracking stores can never work: told before anything is computed, without opening one."""

import contextlib
import importlib.metadata
import os
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from bankintent import public_names
from bankintent.config import TrackingConfig
from bankintent.errors import ConfigError

SQLITE = "sqlite:///"
"""Start of the URI of a database file, which is ours to create; other URIs are opened as given."""

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Databases that MLflow knows; a driver may follow after a plus, as in mysql+pymysql."""

SERVERS = ("http", "https")
DATABRICKS = ("databricks", "databricks-uc", "uc")
FILE_STORES = ("", "file")
"""Folders of text files. MLflow opens them only where this variable allows it:"""
ALLOW_FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"

PLUGINS = "mlflow.tracking_store"
"""Entry points of packages that add stores to MLflow."""

SWITCH_OFF = "Correct tracking.uri, or turn tracking off with --set tracking.enabled=false"


def require_usable(config: TrackingConfig) -> None:
    """Raise ConfigError where the store, or the folder of its files, can never work.

    Nothing is opened and nothing is made: a store that works now may still fail later.
    """
    if not config.enabled:
        return

    scheme = _scheme(config.uri)
    database = scheme.partition("+")[0]
    if config.uri.startswith(SQLITE):
        _require_database_file(database_file(config.uri))
    elif database in DATABASES:
        _require_driver(config.uri)
    elif scheme in SERVERS:
        _require_address(config.uri)
    elif scheme in FILE_STORES:
        _require_allowed_folder(config.uri)
    elif scheme not in DATABRICKS and scheme not in _added_schemes():
        known = ", ".join([*SERVERS, *DATABASES])
        raise _unusable(f"it begins with {scheme}:, which MLflow does not know (known: {known})")

    if config.files and config.uri.startswith(SQLITE):
        _require_folder(config.artifacts, "tracking.artifacts")


def database_file(uri: str) -> Path:
    """The file of a URI that begins with SQLITE, without its parameters."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def _unusable(found: str) -> ConfigError:
    # Never the URI itself, which can hold a password.
    return ConfigError(f"tracking.uri cannot be used: {found}", SWITCH_OFF)


def _scheme(uri: str) -> str:
    """What a URI begins with; empty for a path."""
    if uri in DATABRICKS:
        return uri
    scheme, colon, _ = uri.partition(":")
    is_path = not colon or "/" in scheme or os.path.isabs(uri)
    return "" if is_path else scheme.lower()


def _require_address(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise _unusable(public_names.without_secrets(str(error))) from None
    if not parts.hostname:
        raise _unusable(f"it names no host after {parts.scheme}://")


def _require_driver(uri: str) -> None:
    """Raise ConfigError where SQLAlchemy cannot read the URI, or lacks the database's driver."""
    try:
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    except ImportError:  # without MLflow a run goes on untracked
        return

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        raise _unusable(f"the driver {error.name or 'of that database'} is not installed") from None
    except NoSuchModuleError:
        raise _unusable(f"{_scheme(uri)} names no driver that is known") from None
    except (ArgumentError, ValueError):
        raise _unusable("it is no address of a database") from None

    if uri.startswith("sqlite") and sqlalchemy.make_url(uri).host:
        raise _unusable("the address of a file has three slashes, as in sqlite:///mlflow.db")


def _require_allowed_folder(uri: str) -> None:
    if os.environ.get(ALLOW_FILE_STORE, "").lower() not in ("true", "1"):
        raise _unusable(
            f"MLflow opens folders of text files only with {ALLOW_FILE_STORE}=true;"
            f" a file is written {SQLITE}artifacts/mlflow.db"
        )
    _require_folder(Path(urlsplit(uri).path), "tracking.uri")


def _added_schemes() -> set[str]:
    return {point.name for point in importlib.metadata.entry_points(group=PLUGINS)}


def _require_database_file(path: Path) -> None:
    """Raise ConfigError where a database file is none, or where none can be made."""
    if str(path) in (".", ":memory:"):
        raise _unusable("it names no file, so that nothing would be kept")
    if path.is_dir():
        raise _unusable(f"{path} is a folder, and a database is a file")

    _require_folder(path.parent, "tracking.uri")
    if not path.exists():
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise _unusable(f"{path} cannot be read and written")
    if not _is_database(path):
        raise _unusable(f"{path} is no database of SQLite")


def _is_database(path: Path) -> bool:
    """Whether a file is empty or can be read as a database; also one that is locked is."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
    return True


def _require_folder(folder: Path, key: str) -> None:
    """Raise ConfigError where a folder is none, cannot be made, or takes no files."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent

    if not nearest.is_dir():
        raise ConfigError(f"{key}: {nearest} is no folder", SWITCH_OFF)
    if not os.access(nearest, os.W_OK | os.X_OK) or _takes_nothing(nearest):
        raise ConfigError(f"{key}: {nearest} is not writable", SWITCH_OFF)


def _takes_nothing(folder: Path) -> bool:
    """Whether a folder is on a read-only disk, or one that the kernel makes up."""
    if not hasattr(os, "statvfs"):
        return False
    status = os.statvfs(folder)
    return bool(status.f_flag & os.ST_RDONLY) or not (status.f_blocks or status.f_files)
