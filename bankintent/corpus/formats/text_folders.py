"""Text files with a sentence a line: a file or a folder for each intent, and fastText's format."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.sentences import pool, whole
from bankintent.corpus.rows import SPLIT_NAMES, Row, is_companion
from bankintent.errors import DataError
from bankintent.texts import is_blank, list_some

LABEL = "__label__"
"""Begins the label of a sentence in fastText's format."""

FASTTEXT_ENDINGS = (".txt", ".train", ".valid", ".test")
"""Endings of files in fastText's format."""


@dataclass(frozen=True)
class _Place:
    """What the path of a text file says of its sentences."""

    file: ExportFile
    split: str
    intent: str
    in_folder: bool
    """Whether the intent is the name of its folder."""


def find_folders(files: ExportFiles) -> list[ExportFile]:
    """The text files whose names, or those of their folders, are intents."""
    if files.is_single:
        return []

    data = []
    for file in files.files:
        if is_companion(file.name):
            continue
        if file.ending != ".txt":
            return []
        data.append(file)

    places = _places(data)
    intents = {place.intent for place in places}
    # The name of a single intent says nothing: it is a folder of any texts.
    if len(intents) < 2:
        return []

    if any(map(_is_fasttext, data)):
        return []
    return [place.file for place in places]


def _places(files: list[ExportFile]) -> list[_Place]:
    """The split and the intent of each file by its path; empty where the paths do not say it."""
    paths = []
    for file in files:
        parts = PurePosixPath(file.name).parts
        paths.append(list(parts))

    splits = _take_splits(paths)
    if not splits:
        # A zip often holds one folder with everything in it.
        _take_common_folder(paths)
        splits = _take_splits(paths)
    if not splits:
        splits = ["all"] * len(paths)
    # A folder with one file, and beside it a file: one of them is no intent.
    depths = {len(path) for path in paths}
    if depths not in ({1}, {2}):
        return []

    places = []
    for file, path, split in zip(files, paths, splits, strict=True):
        intent = path[0]
        in_folder = len(path) == 2
        if not in_folder:
            intent = PurePosixPath(intent).stem

        # Files called train and test are splits of one table, not intents.
        if intent.lower() in SPLIT_NAMES:
            return []
        place = _Place(file, split, intent, in_folder)
        places.append(place)
    return places


def _take_splits(paths: list[list[str]]) -> list[str]:
    """The split of each path, whose folder is taken from it; empty where one has none."""
    splits = []
    for path in paths:
        if len(path) < 2:
            return []
        folder = path[0].lower()
        split = SPLIT_NAMES.get(folder)
        if split is None:
            return []
        splits.append(split)

    # Only now, as no path may change where one of them has no split.
    for path in paths:
        del path[0]
    return splits


def _take_common_folder(paths: list[list[str]]) -> None:
    """Take the first folder from all paths where they share it, and no file stands beside it."""
    firsts = {path[0] for path in paths}
    if len(firsts) != 1:
        return

    shortest = min(map(len, paths))
    if shortest < 2:
        return

    for path in paths:
        del path[0]


def read_folders(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The lines that are not blank; each is a sentence."""
    places = _places(taken)
    rows: dict[str, list[Row]] = {}
    sentences: Counter[str] = Counter()
    several = 0

    for place in places:
        part = list(_read_lines(place))
        of_split = rows.setdefault(place.split, [])
        of_split += part

        # A file without lines is counted too: its intent is told to be empty.
        sentences[place.intent] += len(part)
        if place.in_folder and len(part) > 1:
            several += 1
    notes = []
    if several:
        notes.append(
            f"{several} of {len(places)} files hold several lines; each line is a sentence."
        )

    empty = []
    for intent, count in sentences.items():
        if count == 0:
            empty.append(intent)
    empty.sort()

    divided = _with_train(rows)
    return Export(divided, empty=tuple(empty), notes=tuple(notes))


def _read_lines(place: _Place) -> Iterator[Row]:
    name = place.file.name
    lines = _lines(place.file)
    for number, (line, text) in enumerate(lines, 1):
        yield Row(name, number, text, place.intent, line)


def _lines(file: ExportFile) -> Iterator[tuple[int, str]]:
    """(the number of a line, its text) of each line that is not blank."""
    lines = file.text.split("\n")
    for number, line in enumerate(lines, 1):
        if not is_blank(line):
            yield number, line.strip()


def _with_train(rows: Mapping[str, list[Row]]) -> Mapping[str, list[Row]]:
    """The rows by split; all of them together where no split is train."""
    if "train" in rows:
        return rows

    together = pool(rows)
    return whole(together)


def find_fasttext(files: ExportFiles) -> list[ExportFile]:
    """The files of labelled lines; those of the splits alone where there are such."""
    candidates = files.with_ending(*FASTTEXT_ENDINGS)
    found = list(filter(_is_fasttext, candidates))
    named = list(filter(_split_of, found))

    # Beside the splits there may be the file that they were drawn from.
    is_divided = "train" in map(_split_of, named)
    if is_divided:
        return named
    return found


def _is_fasttext(file: ExportFile) -> bool:
    beginning = file.peek().lstrip()
    return beginning.startswith(LABEL)


def _split_of(file: ExportFile) -> str | None:
    """The split that a word of a file's name, or its folder, is named after: cooking.train."""
    path = PurePosixPath(file.name.lower())
    words = re.split(r"[._-]", path.name)
    words.append(path.parent.name)

    splits = set()
    for word in words:
        split = SPLIT_NAMES.get(word)
        if split is not None:
            splits.add(split)

    # A name with words of two splits says nothing.
    if len(splits) != 1:
        return None
    return splits.pop()


def read_fasttext(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The labelled lines; DataError names the line that has no label, or several."""
    rows: dict[str, list[Row]] = {}
    is_divided = "train" in map(_split_of, taken)

    for file in taken:
        split = None
        if is_divided:
            split = _split_of(file)
        part = rows.setdefault(split or "all", [])

        lines = _lines(file)
        for number, (line, text) in enumerate(lines, 1):
            row = _fasttext_row(file, number, line, text)
            part.append(row)

    return Export(rows)


def _fasttext_row(file: ExportFile, number: int, line: int, text: str) -> Row:
    """The row of a line; DataError where it has no label, or more than one."""
    words = text.split()
    first = words[0]
    if not first.startswith(LABEL):
        raise DataError(
            f"{file.name} line {line} does not begin with {LABEL}",
            f"Begin each line with {LABEL} and the name of the intent",
        )

    labels = [word for word in words if word.startswith(LABEL)]
    if len(labels) > 1:
        raise DataError(
            f"{file.name} line {line} has {len(labels)} labels: {list_some(labels)}",
            "Give each sentence one intent",
        )

    label = first.removeprefix(LABEL)
    sentence = text.removeprefix(first).strip()
    return Row(file.name, number, sentence, label, line)


FOLDERS_FORMAT = Format("text files", "folders of text files", find_folders, read_folders)
FASTTEXT_FORMAT = Format("fastText", "fastText", find_fasttext, read_fasttext)
