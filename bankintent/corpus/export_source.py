"""Exports of other tools as sources: their rows, and an account of their files."""

from collections import Counter

from bankintent import files
from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export
from bankintent.corpus.formats.placeholders import describe_places
from bankintent.corpus.formats.registry import Found
from bankintent.corpus.formats.sentences import pool
from bankintent.corpus.kept_columns import require_columns
from bankintent.corpus.rows import Reading, Row, Source
from bankintent.errors import DataError
from bankintent.texts import list_some


def read_export(found: Found, config: DataConfig) -> Source:
    """The sentences of another tool's export, and what was taken of each of its files.

    Raises DataError with file and line for a fault, and where no sentence has an intent.
    """
    export = found.read(config)
    rows = pool(export.rows)
    outside = pool(export.out_of_scope)
    if not rows:
        raise _without_sentences(found, export, len(outside))

    if not rows[0].kept:
        require_columns(config, f"{found.files.path} is an export of {found.format.name}")

    hashes = {}
    for file in found.taken:
        content = file.read()
        hashes[file.name] = files.sha256_bytes(content)
    described = {"kind": "export", "format": found.format.name, "files": hashes}

    return Source(
        described,
        dict(export.rows),
        dict(export.out_of_scope),
        label_order=export.label_order,
        reading=_account(found, [*rows, *outside]),
        unread=found.unread,
        left=_amounts_left(export),
        notes=_export_notes(export, rows),
    )


def _account(found: Found, rows: list[Row]) -> list[Reading]:
    """What was taken of each file of an export."""
    counts = Counter(row.origin for row in rows)
    folder = _name_folder(found)
    kind = found.format.name

    # A file without rows is named too, with a count of zero.
    reading = []
    for file in found.taken:
        count = counts[file.name]
        part = Reading(file.name, kind, count, None, None, folder=folder)
        reading.append(part)
    return reading


def _amounts_left(export: Export) -> dict[str, int]:
    """How much of an export was not taken, by what it is; nothing that it does not have."""
    left: dict[str, int] = {}
    for name, count in export.left.items():
        if count:
            left[name] = count

    if export.empty:
        left["intents without sentences"] = len(export.empty)
    return left


def _without_sentences(found: Found, export: Export, outside: int) -> DataError:
    """The error of an export that has no sentence of any intent."""
    said = f"{found.files.path} is an export of {found.format.name} without sentences of intents"
    if export.empty:
        said += f"; its intents have none: {list_some(export.empty)}"
    if outside:
        said += f"; sentences out of scope: {outside:,}"

    return DataError(said, "Name the file or folder that holds them with dataset_name")


def _name_folder(found: Found) -> str | None:
    """The name of the folder or zip of an export; None where it is one file."""
    if found.files.is_single:
        return None

    # The path may be `.`, which has no name.
    path = found.files.path.absolute()
    if path.is_dir():
        return f"{path.name}/"
    return path.name


def _export_notes(export: Export, rows: list[Row]) -> list[str]:
    notes = list(export.notes)
    if export.empty:
        quoted = [f'"{name}"' for name in export.empty]
        named = list_some(quoted)
        notes.append(f"Intents without sentences are left: {named}.")

    # Texts that are no strings are refused later.
    texts = []
    for row in rows:
        if isinstance(row.text, str):
            texts.append(row.text)

    places = describe_places(texts)
    if places is not None:
        notes.append(places)
    return notes
