"""The scored parts of a table in `<OUT>.work/`: each is whole or not there, and says what it belongs to.

`run.json` says which input, model and settings the folder is for; `part-<n>.parquet` holds the answers for the n-th
chunk of rows and, in its metadata, the run, its first row and how many texts were cut to the model's length. A part
of another run, or one that was damaged, counts as missing.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import console, files
from bankintent.errors import OutputError

RUN = "run.json"


@dataclass(frozen=True)
class Parts:
    """The parts of one run, by the number of their chunk."""

    folder: Path
    run: str
    """sha256 of what makes the run: two runs with the same one write the same parts."""
    rows: int
    """Rows of the input."""
    chunk_rows: int
    """Rows of each chunk but the last."""

    @classmethod
    def begin(
        cls, folder: Path, identity: dict[str, Any], rows: int, chunk_rows: int, discard: bool
    ) -> "Parts":
        """Take up the run of this identity in a folder, or begin it.

        Raises OutputError where the folder holds another run's parts, which may be hours of work, unless `discard`.
        """
        found = _read_run(folder)
        if found is not None and found != identity:
            if not discard:
                raise OutputError(
                    f"{console.show_path(folder)} holds an unfinished run with another {_difference(found, identity)}",
                    "Go on with what it was begun with, or begin anew with --overwrite",
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):  # files that a kill kept from being finished
            left.unlink()
        files.write_text(folder / RUN, files.json_text(identity))
        return cls(folder, files.sha256_text(files.json_text(identity)), rows, chunk_rows)

    @property
    def count(self) -> int:
        """Parts of the whole table."""
        return -(-self.rows // self.chunk_rows)

    def missing(self) -> list[int]:
        """Numbers of the chunks that have no part yet."""
        return [number for number in range(self.count) if not self._is_whole(number)]

    def size(self, number: int) -> int:
        """Rows of one chunk."""
        return min(self.chunk_rows, self.rows - number * self.chunk_rows)

    def write(self, number: int, answers: pa.Table, truncated: int) -> None:
        """Keep the answers for one chunk: on disk beside their place, then renamed."""
        metadata = self._belongs(number) | {b"truncated": str(truncated).encode()}
        with files.staged(self._path(number)) as staging, staging.open("wb") as file:
            pq.write_table(
                answers.replace_schema_metadata(metadata), file, write_page_checksum=True
            )
            file.flush()
            os.fsync(file.fileno())

    def read(self, number: int) -> pa.Table:
        """The answers for one chunk. Raises OSError or ArrowException where the part is missing or damaged."""
        # Not read_table, which takes a folder such as day=1 above the file for a column of it.
        with pq.ParquetFile(self._path(number), page_checksum_verification=True) as file:
            return file.read(use_threads=False)

    def truncated(self) -> int:
        """Texts of all parts that were longer than the model reads."""
        return sum(
            int(pq.read_schema(self._path(number)).metadata[b"truncated"])
            for number in range(self.count)
        )

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _belongs(self, number: int) -> dict[bytes, bytes]:
        return {b"run": self.run.encode(), b"first_row": str(number * self.chunk_rows).encode()}

    def _is_whole(self, number: int) -> bool:
        try:
            part = self.read(number)
        except (OSError, pa.ArrowException):
            return False
        return (
            part.num_rows == self.size(number)
            and self._belongs(number).items() <= part.schema.metadata.items()
        )


def _read_run(folder: Path) -> dict[str, Any] | None:
    """What the folder is for; None where there is nothing in it. OutputError where it is nobody's."""
    if not any(
        folder.glob("[!.]*")
    ):  # a name with a dot is what a kill left of a file being written
        return None
    try:
        return dict(json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise OutputError(
            f"{console.show_path(folder)} is in the way: it holds no unfinished run",
            "Move it, or name another OUT",
        ) from None


def _difference(found: dict[str, Any], identity: dict[str, Any]) -> str:
    """Which part of an identity is not the same, for example `model`."""
    return ", ".join(key for key in identity if found.get(key) != identity[key]) or "layout"
