"""Rows as a source has them: the types that every reader of sources gives."""

from dataclasses import dataclass, field
from typing import Any

SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
"""The split that a file or a part of a source holds, by its name in lower case."""


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
    """Label names in id order where the source defines one (a Hub ClassLabel)."""

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
    def identity(self) -> SourceIdentity:
        """The dataset's identity; those of the other two under their config keys."""
        identity = dict(self.dataset.identity)
        if self.extra_train is not None:
            identity["extra_train"] = self.extra_train.identity
        if self.unlabelled is not None:
            identity["unlabelled"] = self.unlabelled.identity
        return identity
