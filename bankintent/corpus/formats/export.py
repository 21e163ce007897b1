"""What a reader of a tool's export is, and what it gives."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bankintent.config import DataConfig
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.rows import Row

NOTHING = re.compile(r"(?!)")
"""Fits no name."""


@dataclass(frozen=True)
class Export:
    """The sentences of an export, and an account of what else it held."""

    rows: Mapping[str, list[Row]]
    """By split (train, val, test) where the export has splits of its own; otherwise all under
    `all`. `Row.origin` is the name of the file, `Row.line` the line of the sentence."""
    out_of_scope: Mapping[str, list[Row]] = field(default_factory=dict)
    """Sentences that the export marks as having none of the intents, by split."""
    left: Mapping[str, int] = field(default_factory=dict)
    """What was not taken, in words, and how many of them: {"synonyms": 12}."""
    empty: tuple[str, ...] = ()
    """Names of intents without sentences."""
    notes: tuple[str, ...] = ()
    """Sentences for people about how something was read."""
    label_order: tuple[str, ...] | None = None
    """Names of the intents in id order, where the export defines one."""


@dataclass(frozen=True)
class Format:
    """One format of one tool."""

    name: str
    """For people, for example `Rasa NLU (YAML)`."""
    tool: str
    """Whose export it is, in few words, for lists of what is known."""
    find: Callable[[ExportFiles], list[ExportFile]]
    """The files that hold sentences in this format, by their content; none where it is another.
    Quick and sure: it never raises, and takes no file that a table's reader can read."""
    read: Callable[[ExportFiles, list[ExportFile], DataConfig], Export]
    """Read the files that `find` has found. A fault is a DataError with file and line."""
    own: re.Pattern[str] = NOTHING
    """Names of files of such an export that hold no sentences of intents."""
