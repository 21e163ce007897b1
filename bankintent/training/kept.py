"""Arrays that are kept on disk between runs, and believed only where they are what was written."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bankintent import files

Arrays = dict[str, NDArray[np.float32]]
"""Arrays by their names."""

DIGEST = "sha256"
"""Key of a file's metadata: the hash of everything that the file says."""


class Damaged(Exception):
    """A file is there, and is not what was written under its name."""


class CannotKeep(Exception):
    """The file cannot be written: a full disk, a folder that others own, a path below a file."""


def write(path: Path, arrays: Arrays) -> None:
    """Write the arrays and their digest; CannotKeep where that is impossible, with the reason."""
    digest = _digest(path, arrays)
    try:
        # Staged: another run may be reading or writing the same file.
        with files.staged(path) as staging:
            save_file(arrays, staging, metadata={DIGEST: digest})
    except (OSError, SafetensorError) as error:
        raise CannotKeep(_in_words(error)) from error


def read(path: Path) -> Arrays | None:
    """The arrays of a file; None where there is none, Damaged where it is not to be believed."""
    if not path.exists() and not path.is_symlink():
        return None
    # Of a pipe, which nothing writes to, not even the opening would end.
    if not path.is_file():
        raise Damaged

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError):
        raise Damaged from None

    if metadata.get(DIGEST) != _digest(path, arrays):
        raise Damaged
    return arrays


def _digest(path: Path, arrays: Arrays) -> str:
    """Hash of the file's name and, for each array, of its name, type, shape and numbers.

    With the name, the file of another fold or of other texts is not taken for this one.
    """
    digest = hashlib.sha256(path.name.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _in_words(error: Exception) -> str:
    """Why a file cannot be written, on one line."""
    reason = getattr(error, "strerror", None) or str(error)
    return " ".join(reason.split())
