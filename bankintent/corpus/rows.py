"""Rows as a source has them: the types that every reader of sources gives."""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bankintent.corpus.records import Table

SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
"""The split that a file or a part of a source holds, by its name in lower case."""

COMPANIONS = re.compile(
    r"""
    \..*         # hidden
    | .*\.md
    | (readme.*|licen[cs]e|notice|citation|changelog|requirements)([.-].*)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Names of files that stand beside data in every repository."""

PROGRAMS = re.compile(
    r"(docker|make)file"
    r"|.*\.(pyc?|ipynb|sh|bat|js|ts|html|css|toml|cfg|ini|lock|png|jpe?g|gif|svg|ico)",
    re.IGNORECASE,
)
"""Names of files of a program, which hold no sentences either."""


SourceIdentity = dict[str, Any]
"""Kind, file hashes or Hub revision of a source, as plain JSON values."""


@dataclass(frozen=True)
class Row:
    """One record of a source, not yet cleaned."""

    origin: str
    """Name of the file or split that holds it."""
    number: int
    """Its number in `origin`, counted from 1."""
    text: Any
    label: Any
    line: int | None = None
    """The line of the file on which it begins, as an editor counts it; None where it has none."""
    kept: tuple[Any, ...] = ()
    """Its values of `keep_columns`, in their order; empty where the source has no columns to keep.
    """


@dataclass(frozen=True)
class Reading:
    """What was taken of one file, or of one split of the Hub."""

    file: str
    """Name of the file, or of the split."""
    format: str
    """For example CSV."""
    rows: int
    text: str | None
    """Name of the column of sentences; None where the format has no columns."""
    label: str | None
    """Name of the column of intents; None where there is none."""
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    folder: str | None = None
    """The folder (with a slash at its end) or the zip of an export; None for other files."""

    @classmethod
    def of(cls, table: Table, rows: int, text: str, label: str | None) -> "Reading":
        """What was taken of a table."""
        return cls(
            table.path.name,
            table.format,
            rows,
            text,
            label,
            table.delimiter,
            table.encoding,
            table.sheet,
        )


@dataclass(frozen=True)
class Source:
    """The records of one source and what identifies it."""

    identity: SourceIdentity
    """As the manifest records it."""
    rows: dict[str, list[Row]]
    """By the source's own split names, in the form train, val, test; `all` where it has none."""
    out_of_scope: dict[str, list[Row]] = field(default_factory=dict)
    """Rows that have none of the intents, by split."""
    label_order: tuple[str, ...] | None = None
    """Label names in id order where the source defines one (a ClassLabel of `datasets`)."""
    reading: list[Reading] = field(default_factory=list)
    """What was taken of each file or split."""
    unread: list[str] = field(default_factory=list)
    """Files, sheets and splits beside them of which nothing was taken."""
    left: dict[str, int] = field(default_factory=dict)
    """What the taken files of another tool's export hold besides sentences, and how many of it."""
    notes: list[str] = field(default_factory=list)
    """Sentences for people about how something of it was read."""

    def pooled(self) -> list[Row]:
        """The records of all splits, one split after the other."""
        rows: list[Row] = []
        for part in self.rows.values():
            rows += part
        return rows


@dataclass(frozen=True)
class Sources:
    """Everything that one data.yaml names."""

    dataset: Source
    extra_train: Source | None = None
    unlabelled: Source | None = None

    @property
    def reading(self) -> list[Reading]:
        """What was taken of each file, the dataset's first."""
        reading = list(self.dataset.reading)
        for source in (self.extra_train, self.unlabelled):
            if source is not None:
                reading += source.reading
        return reading

    @property
    def identity(self) -> SourceIdentity:
        """The dataset's identity; those of the other two under their config keys."""
        identity = dict(self.dataset.identity)
        if self.extra_train is not None:
            identity["extra_train"] = self.extra_train.identity
        if self.unlabelled is not None:
            identity["unlabelled"] = self.unlabelled.identity
        return identity


def is_companion(path: str) -> bool:
    """Whether a file, by its path or name, is one of those that stand beside data."""
    return COMPANIONS.fullmatch(PurePosixPath(path).name) is not None


def is_program(path: str) -> bool:
    """Whether a file, by its path or name, is a part of a program."""
    return PROGRAMS.fullmatch(PurePosixPath(path).name) is not None
