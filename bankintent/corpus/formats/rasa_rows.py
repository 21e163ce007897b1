"""What all formats of Rasa share: rows by file, the splits of a project, the names of intents."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export
from bankintent.corpus.formats.files import ExportFile
from bankintent.corpus.formats.rasa_markup import to_surface
from bankintent.corpus.formats.sentences import ENTITIES, WHOLE, pool
from bankintent.corpus.rows import SPLIT_NAMES, Row
from bankintent.texts import list_some

TOOL = "Rasa"

OWN = re.compile(r".*\.(ya?ml|md)|(.*/)?models/.*", re.IGNORECASE)
"""Files of a project beside its sentences."""

SPLITS = SPLIT_NAMES | {"training_data": "train", "test_data": "test"}
"""The split of a file or folder, by its name; `rasa data split nlu` writes the last two."""

COPIES = "sentences beside train and test that stand in them already"
UNDASHED = "lines without a dash"

SURE_SPLITS = {"train", "test"}
"""A project has splits where it has files of both: a folder `test` alone may mean anything."""


@dataclass
class Gathered:
    """What has been read of the files of an export so far."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    """By the name of the file."""
    left: Counter[str] = field(default_factory=Counter)
    undashed: list[str] = field(default_factory=list)
    """Where lines stand that Rasa reads no sentence from."""
    strays: list[str] = field(default_factory=list)
    """Where sentences stand with brackets or braces that mark no entity."""

    def add(self, file: ExportFile, line: int | None, sentence: str, intent: str) -> None:
        """A sentence as it is."""
        rows = self.rows.setdefault(file.name, [])
        rows.append(Row(file.name, len(rows) + 1, sentence.strip(), intent, line))

    def add_marked(self, file: ExportFile, line: int, sentence: str, intent: str) -> None:
        """A sentence with entity markup."""
        surface = to_surface(sentence)
        self.left[ENTITIES] += surface.entities
        if surface.is_stray:
            self.strays.append(f"{file.name} line {line}")
        self.add(file, line, surface.text, intent)

    def leave_undashed(self, file: ExportFile, line: int) -> None:
        """A line among sentences that begins with no dash."""
        self.left[UNDASHED] += 1
        self.undashed.append(f"{file.name} line {line}")

    def export(self, config: DataConfig) -> Export:
        """The rows of all files by split, and what is to be said about them."""
        intents: dict[str, None] = {}
        for rows in self.rows.values():
            intents |= dict.fromkeys(row.label for row in rows)

        splits = self._splits()
        if config.retrieval == "base":
            for name, rows in splits.items():
                splits[name] = [replace(row, label=base_of(row.label)) for row in rows]

        notes = [*_name_notes(list(intents), config), *self._place_notes()]
        return Export(splits, left=dict(self.left), notes=tuple(notes))

    def _splits(self) -> dict[str, list[Row]]:
        """The rows by split where there are train and test files; otherwise all under `all`."""
        by_split: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
        others: list[Row] = []
        for name, rows in self.rows.items():
            by_split.get(split_of(name) or "", others).extend(rows)

        if not all(by_split[name] for name in SURE_SPLITS):
            return {WHOLE: pool(self.rows)}

        # `rasa data split nlu` leaves the whole beside its parts; all of it would be a leak.
        known = set()
        for rows in by_split.values():
            known |= {(row.text, row.label) for row in rows}
        fresh = [row for row in others if (row.text, row.label) not in known]
        self.left[COPIES] += len(others) - len(fresh)

        by_split["train"] += fresh
        return {name: rows for name, rows in by_split.items() if rows}

    def _place_notes(self) -> list[str]:
        notes = []
        if self.undashed:
            notes.append(
                f"Lines among the sentences that begin with no dash: {len(self.undashed):,}, left "
                f"as Rasa leaves them ({list_some(self.undashed)})."
            )
        if self.strays:
            notes.append(
                f"Sentences with brackets or braces that mark no entity: {len(self.strays):,}, "
                f"kept as they are ({list_some(self.strays)})."
            )
        return notes


def split_of(name: str) -> str | None:
    """The split that a file is named after, or else the folder nearest to it; None without one."""
    path = PurePosixPath(name.lower())
    for part in (path.stem, *reversed(path.parts[:-1])):
        if part in SPLITS:
            return SPLITS[part]
    return None


def base_of(intent: str) -> str:
    """`faq` of the retrieval intent `faq/ask_price`; any other intent as it is."""
    base, slash, key = intent.partition("/")
    return base.strip() if slash and base.strip() and key.strip() else intent


def _name_notes(intents: list[str], config: DataConfig) -> list[str]:
    """What is to be said about intents with a slash or a plus in their names."""
    notes = []
    retrieval = [intent for intent in intents if base_of(intent) != intent]
    if retrieval and config.retrieval == "base":
        bases = list(dict.fromkeys(base_of(intent) for intent in retrieval))
        notes.append(
            f"Retrieval intents: {len(retrieval):,}, joined to the part before the slash "
            f"({list_some(bases)}); retrieval: whole keeps each."
        )
    elif retrieval:
        notes.append(
            f"Retrieval intents: {len(retrieval):,}, each kept as an intent of its own "
            f"({list_some(retrieval)}); retrieval: base joins them to the part before the slash."
        )

    joined = [intent for intent in intents if re.search(r"[^\s+]\+[^\s+]", intent)]
    if joined:
        notes.append(
            f"Intents joined with a plus: {len(joined):,}, each kept as an intent of its own "
            f"({list_some(joined)})."
        )
    return notes
