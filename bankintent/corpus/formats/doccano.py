"""doccano's exports of text classification: JSON lines or JSON, alone or in a zip.

A record is {"id", "text", "label": ["x"]}; versions differ in the names (`data`, `labels`), and
projects of intent detection have {"text", "entities", "cats": ["x"]}. The oldest versions have the
ids of labels, in `annotations`, and their names beside them or in another file. Where
annotators work apart, each has a file, such as `admin.jsonl`, and sentences nobody has labelled
are in `unknown.jsonl`. https://doccano.github.io/doccano/tutorial
"""

from collections import Counter
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.annotations import (
    Annotation,
    first_record,
    known_records,
    make_export,
    make_row,
    place,
    plain_label,
    read_records,
)
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.errors import DataError
from bankintent.files import JsonObject

TEXT_KEYS = ("text", "data")
LABEL_KEYS = ("label", "labels", "cats")

MARKS = {"Comments", "annotation_approver"}
"""Keys that doccano alone adds to a record."""

INTENT_DETECTION = {"cats", "entities"}
"""Keys of a record with an intent and with spans, which mostly has no id."""

LabelNames = dict[Any, str]
"""The names of labels by their ids."""


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of records with lists of labels.

    One file in which every list has one label is a table as well, and is left to its reader.
    """
    found = [file for file in files.with_ending(".jsonl", ".json") if _is_records(file)]
    is_zip = files.path.suffix.lower() == ".zip"
    return found if is_zip or any(_is_no_table(file) for file in found) else []


def _is_records(file: ExportFile) -> bool:
    first = first_record(file)
    if first is None or _text_key(first) is None:
        return False
    if "id" not in first and not first.keys() >= INTENT_DETECTION:
        return False
    if _is_old(first):
        return True
    label_key = _label_key(first)
    return label_key is not None and isinstance(first[label_key], list)


def _is_no_table(file: ExportFile) -> bool:
    for _, record in known_records(file):
        if MARKS & record.keys() or _is_old(record) or _text_key(record) == "data":
            return True
        label_key = _label_key(record)
        if label_key in ("labels", "cats") or (label_key and record[label_key] == []):
            return True
    return False


def _text_key(record: JsonObject) -> str | None:
    return next((key for key in TEXT_KEYS if isinstance(record.get(key), str)), None)


def _label_key(record: JsonObject) -> str | None:
    return next((key for key in LABEL_KEYS if key in record), None)


def _is_old(record: JsonObject) -> bool:
    """Whether a record has annotations with the ids of labels."""
    annotations = record.get("annotations")
    if not isinstance(annotations, list) or _label_key(record) is not None:
        return False
    # Label Studio's have no label.
    is_doccano = "annotation_approver" in record or bool(annotations)
    return is_doccano and all(isinstance(one, dict) and "label" in one for one in annotations)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The labelled sentences; DataError where labels are spans, or ids without names."""
    names = _read_label_names(files)
    left: Counter[str] = Counter()
    annotations = {}
    for file in taken:
        annotations[file.name] = _read_file(file, names, left, config)
    return make_export(annotations, dict(left), "sentences with different intents")


def _read_file(
    file: ExportFile, names: LabelNames, left: Counter[str], config: DataConfig
) -> list[Annotation]:
    annotations = []
    for number, record in read_records(file):
        where = place(file, number)
        labels = _find_labels(record, names, where, config.label_column)
        if not labels:
            left["sentences without a label"] += 1
            continue

        text_key = config.text_column or _text_key(record)
        text = None if text_key is None else record.get(text_key)
        row = make_row(file, number, text, plain_label(labels))
        key = (str(record.get("id", where)), str(text))
        annotations.append(Annotation(key, row, where))
    return annotations


def _find_labels(
    record: JsonObject, names: LabelNames, where: str, configured: str | None
) -> list[Any]:
    """The labels of a record; DataError where they are spans or nameless ids."""
    if configured is None and _is_old(record):
        labels = [_name_label(one, names, where) for one in record["annotations"]]
        # Two annotators who agree.
        return list(dict.fromkeys(labels))

    key = configured or _label_key(record)
    value = None if key is None else record.get(key)
    if value is None:
        return []
    labels = value if isinstance(value, list) else [value]
    if any(isinstance(label, list | dict) for label in labels):
        raise DataError(
            f"{where} has spans for labels, and no intent of the whole sentence",
            "Export a project of text classification",
        )
    return list(dict.fromkeys(labels))


def _name_label(annotation: JsonObject, names: LabelNames, where: str) -> str:
    """The name of an annotation's label: beside its id, or in the file of labels."""
    if isinstance(annotation.get("label_name"), str):
        return str(annotation["label_name"])

    id = annotation["label"]
    if isinstance(id, list | dict) or id not in names:
        raise DataError(
            f"{where} has the label {id} without its name",
            "Export as JSONL with text labels, or put the project's export of labels, a JSON file "
            "with id and text of each, into the same folder",
        )
    return names[id]


def _read_label_names(files: ExportFiles) -> LabelNames:
    """The names of labels by id, of the files in which doccano exports them."""
    names = {}
    for file in files.with_ending(".json"):
        for _, record in known_records(file):
            is_label = "background_color" in record or "suffix_key" in record
            if is_label and isinstance(record.get("id"), int):
                names[record["id"]] = str(record.get("text"))
    return names


FORMAT = Format("doccano", "doccano", find, read)
