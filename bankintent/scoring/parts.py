"""The resumable parts of a scoring run, in the folder `<OUT>.work/`.

`run.json` holds the identity of the run: its input, model and settings. `part-<n>.parquet` holds
the answers for the n-th chunk of rows; its metadata names the run, the chunk's first row, and the
number of texts that were cut to the model's length. A part is written whole or not at all. A part
that is damaged, or belongs to another run, counts as missing.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import console, files
from bankintent.errors import OutputError
from bankintent.files import JsonObject

IDENTITY = "run.json"

WRITTEN = "written.json"
"""Which file the whole table is: a kill after it was put in its place leaves the parts."""


@dataclass(frozen=True)
class Parts:
    """The parts of one run, by the number of their chunk."""

    folder: Path
    run: str
    """sha256 of the run's identity: two runs with the same one write the same parts."""
    rows: int
    """Rows of the input."""
    chunk_rows: int
    """Rows of each chunk but the last."""

    @classmethod
    def begin(
        cls, folder: Path, identity: JsonObject, rows: int, chunk_rows: int, discard: bool
    ) -> "Parts":
        """Continue the run of this identity in a folder, or begin it.

        Raises OutputError where the folder holds another run's parts, which may be hours of work,
        unless `discard`.
        """
        previous = _read_identity(folder)
        if previous is not None and previous != identity:
            if not discard:
                place = console.show_path(folder)
                difference = _difference(previous, identity)
                raise OutputError(
                    f"{place} holds an unfinished run with another {difference}",
                    "Continue with what it was begun with, or begin anew with --overwrite",
                )
            files.discard(folder)

        folder.mkdir(parents=True, exist_ok=True)
        # Files that a kill left half written.
        for unfinished in folder.glob(files.TEMPORARY):
            unfinished.unlink()

        identity_json = files.json_text(identity)
        files.write_text(folder / IDENTITY, identity_json)
        return cls(folder, files.sha256_text(identity_json), rows, chunk_rows)

    @property
    def count(self) -> int:
        """Parts of the whole table."""
        return math.ceil(self.rows / self.chunk_rows)

    def missing(self) -> list[int]:
        """Numbers of the chunks that have no part yet."""
        return [number for number in range(self.count) if not self._is_whole(number)]

    def size(self, number: int) -> int:
        """Rows of one chunk."""
        return min(self.chunk_rows, self.rows - number * self.chunk_rows)

    def write(self, number: int, answers: pa.Table, truncated: int) -> None:
        """Store the answers for one chunk; a kill leaves the whole part or none."""
        metadata = self._origin(number)
        metadata[b"truncated"] = str(truncated).encode()
        part = answers.replace_schema_metadata(metadata)

        with files.staged(self._path(number)) as staging:
            pq.write_table(part, staging, write_page_checksum=True)

    def read(self, number: int) -> pa.Table:
        """The answers for one chunk.

        Raises OSError or ArrowException where the part is missing or damaged.
        """
        # Not read_table, which takes a folder such as day=1 above the file for a column of it.
        with pq.ParquetFile(self._path(number), page_checksum_verification=True) as file:
            return file.read(use_threads=False)

    def truncated(self) -> int:
        """Number of texts in all parts that were longer than the model reads."""
        total = 0
        for number in range(self.count):
            metadata = pq.read_schema(self._path(number)).metadata
            total += int(metadata[b"truncated"])
        return total

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _origin(self, number: int) -> dict[bytes, bytes]:
        """Metadata that every part of this run and chunk carries."""
        first_row = number * self.chunk_rows
        return {b"run": self.run.encode(), b"first_row": str(first_row).encode()}

    def _is_whole(self, number: int) -> bool:
        # The whole part is read, because only that compares the checksums of its pages.
        try:
            part = self.read(number)
        except (OSError, pa.ArrowException):
            return False

        metadata = part.schema.metadata
        is_ours = self._origin(number).items() <= metadata.items()
        return is_ours and part.num_rows == self.size(number)


def record_written(folder: Path, whole: Path) -> None:
    """Record in a work folder which file is about to be put in the place of the output."""
    files.write_text(folder / WRITTEN, files.json_text(_facts(whole)))


def is_written(folder: Path, output: Path) -> bool:
    """Whether the output is the file that the run of this work folder has written."""
    try:
        recorded = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
        return bool(recorded == _facts(output))
    except (OSError, ValueError):
        return False


def _facts(path: Path) -> JsonObject:
    """What a file keeps when it is renamed, and no other file has."""
    facts = path.stat()
    return {"file": facts.st_ino, "size": facts.st_size, "changed": facts.st_mtime_ns}


def _read_identity(folder: Path) -> JsonObject | None:
    """The identity of the run in a folder; None where there is nothing in it.

    Raises OutputError where the folder holds something other than a scoring run.
    """
    # A name with a dot is a file that a kill left half written, not a run.
    is_empty = not any(folder.glob("[!.]*"))
    if is_empty:
        return None

    try:
        return dict(json.loads((folder / IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise OutputError(
            f"{console.show_path(folder)} is in the way: it holds no unfinished run",
            "Move it, or name another OUT",
        ) from None


def _difference(previous: JsonObject, identity: JsonObject) -> str:
    """The keys in which two identities differ, for example `model`."""
    keys = [key for key in identity if previous.get(key) != identity[key]]
    return ", ".join(keys) or "layout"
