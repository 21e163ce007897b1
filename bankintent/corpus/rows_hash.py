"""The hash of rows and label names, by which a model knows its data; taken row by row."""

import hashlib
import json
from collections.abc import Iterable, Sequence


class RowsHash:
    """sha256 of the JSON `[names, {split: [[id, text, label], ...], ...}]`, never held whole."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self._hash = hashlib.sha256()
        # Of a dataset of the Hub, only ASCII and no names, as json.dumps has it by default.
        self._ascii = names is None
        self._end = "}" if names is None else "}]"
        self._write("{" if names is None else f"[{self._to_json(list(names))}, {{")
        self._split_separator = ""
        self._row_separator = ""

    def begin(self, split: str) -> None:
        """Begin a split; the one before it ends."""
        self._write(f"{self._split_separator}{self._to_json(split)}: [")
        self._split_separator = "], "
        self._row_separator = ""

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Take in rows (id, text, label) of the split."""
        # Of a list of lists, without its own brackets.
        content = self._to_json(list(rows))[1:-1]
        if content:
            self._write(self._row_separator + content)
            self._row_separator = ", "

    def hexdigest(self) -> str:
        """The hash of everything so far; nothing can be added after it."""
        self._write("]" + self._end if self._split_separator else self._end)
        return self._hash.hexdigest()

    def _write(self, text: str) -> None:
        self._hash.update(text.encode())

    def _to_json(self, value: object) -> str:
        return json.dumps(value, ensure_ascii=self._ascii)
