"""What the exports of annotation tools have in common: records, splits, and several annotators."""

import io
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bankintent.corpus.formats.export import Export
from bankintent.corpus.formats.files import ExportFile
from bankintent.corpus.formats.sentences import WHOLE, splits_by_name
from bankintent.corpus.rows import Row
from bankintent.errors import DataError
from bankintent.files import JsonObject

NumberedRecord = tuple[int, JsonObject]
"""The line of a record in JSON lines, or its number in a list; and the record."""

JSON_LINES = ".jsonl"
"""The ending of files with a record on each line; in others they stand in a list."""


@dataclass(frozen=True)
class Annotation:
    """The intent that one annotator gives a sentence."""

    key: Hashable
    """What the annotations of one sentence have in common."""
    row: Row
    place: str
    """Where it stands, for people."""


@dataclass(frozen=True)
class Settled:
    """Annotations, of which each sentence has one."""

    rows: list[Row]
    disputed: list[Annotation]
    """The first annotation of each sentence that has different intents."""


def first_record(file: ExportFile) -> JsonObject | None:
    """The first object of JSON lines, or of a list of objects; None where there is none."""
    if file.ending == JSON_LINES:
        for _, record in known_records(file):
            return record
        return None

    content = file.json
    if not isinstance(content, list) or not content:
        return None

    first = content[0]
    if isinstance(first, dict):
        return first
    return None


def known_records(file: ExportFile) -> Iterator[NumberedRecord]:
    """The objects of JSON lines or of a list up to the first that is none; it never raises."""
    try:
        yield from read_records(file)
    except DataError:
        return


def read_records(file: ExportFile) -> Iterator[NumberedRecord]:
    """The objects of JSON lines or of a list; DataError names the line that is none."""
    if file.ending != JSON_LINES:
        yield from _read_list(file)
        return

    # Not splitlines, which also breaks lines at characters that JSON allows inside a string. One
    # after the other, because the first one mostly says that the file is of another kind.
    for number, line in enumerate(io.StringIO(file.text), 1):
        if line.strip():
            where = place(file, number)
            yield number, _parse_line(line, where)


def place(file: ExportFile, number: int) -> str:
    """Where a record stands, for people."""
    unit = "record"
    if file.ending == JSON_LINES:
        unit = "line"

    return f"{file.name} {unit} {number}"


def make_row(file: ExportFile, number: int, text: Any, label: Any) -> Row:
    """A row of a record; it has a line where the file has one for each record."""
    line = None
    if file.ending == JSON_LINES:
        line = number

    return Row(file.name, number, text, label, line)


def _read_list(file: ExportFile) -> Iterator[NumberedRecord]:
    content = file.require_json()
    if not isinstance(content, list):
        raise DataError(f"{file.name} is no list of objects", "Export it again")

    for number, record in enumerate(content, 1):
        where = place(file, number)
        yield number, _require_object(record, where)


def _parse_line(line: str, where: str) -> JsonObject:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        # RecursionError: brackets inside brackets, thousands of them.
        raise DataError(f"{where} is not JSON", "Correct or remove that line") from None

    return _require_object(record, where)


def _require_object(record: Any, where: str) -> JsonObject:
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object", "Correct or remove it")
    return record


def settle(annotations: Iterable[Annotation]) -> Settled:
    """One row for each sentence, unless its annotations differ in the intent."""
    groups: dict[Hashable, list[Annotation]] = {}
    for annotation in annotations:
        group = groups.setdefault(annotation.key, [])
        group.append(annotation)

    rows = []
    disputed = []
    for group in groups.values():
        first = group[0]
        if _do_agree(group):
            rows.append(first.row)
        else:
            disputed.append(first)

    return Settled(rows, disputed)


def _do_agree(group: list[Annotation]) -> bool:
    """Whether the annotations of a sentence have the same intent."""
    label = group[0].row.label
    # Labels may be lists, so they are compared, not collected in a set.
    return all(one.row.label == label for one in group)


def plain_label(labels: Sequence[Any]) -> Any:
    """The only label of a list; several stay a list, in which their order means nothing."""
    if len(labels) == 1:
        return labels[0]
    return sorted(labels, key=str)


def make_export(
    annotations: dict[str, list[Annotation]], left: dict[str, int], disputed_name: str
) -> Export:
    """The export of the annotations of each file, by split where the files are named after splits.

    `disputed_name` says what sentences with different intents are.
    """
    rows = {}
    disputed = []
    for split, part in _by_split(annotations).items():
        # Each split by itself: a sentence may stand in two, and neither decides for the other.
        settled = settle(part)
        rows[split] = settled.rows
        disputed += settled.disputed

    notes = _notes(disputed)
    every_left = left | {disputed_name: len(disputed)}
    return Export(rows, left=every_left, notes=notes)


def _notes(disputed: list[Annotation]) -> tuple[str, ...]:
    """What a person should know of sentences with different intents; none where there are none."""
    if not disputed:
        return ()

    count = len(disputed)
    subject = f"{count:,} sentences have"
    if count == 1:
        subject = "1 sentence has"

    note = (
        f"{subject} different intents in different annotations, and none of them is taken; "
        f"the first is at {disputed[0].place}."
    )
    return (note,)


def _by_split(annotations: dict[str, list[Annotation]]) -> dict[str, list[Annotation]]:
    """The annotations of files named train, test and so on by split; of others all together."""
    names = splits_by_name(annotations)
    splits: dict[str, list[Annotation]] = {}
    for file, part in annotations.items():
        name = names.get(file, WHOLE)
        split = splits.setdefault(name, [])
        split.extend(part)

    return splits
