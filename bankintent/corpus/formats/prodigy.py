"""Prodigy's `db-out`: JSON lines of tasks, of which the accepted ones are taken.

The intent of a task is its `label` (a yes or no question), what was chosen of its options
(`accept`), or the one of its `cats` that holds. https://prodi.gy/docs/api-interfaces
"""

from collections import Counter
from collections.abc import Hashable
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.annotations import (
    Annotation,
    first_record,
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

ANSWERS = {
    "reject": "rejected tasks",
    "ignore": "ignored tasks",
}
"""The answers to tasks that are left, and what those are."""

MARKS = {"_task_hash", "_input_hash", "_session_id", "_annotator_id", "_view_id"}
"""Keys that Prodigy adds to a task."""

HOLDS = 0.5
"""The value from which on one of a task's `cats` holds."""


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of tasks with answers."""
    return [file for file in files.with_ending(".jsonl", ".json") if _is_tasks(file)]


def _is_tasks(file: ExportFile) -> bool:
    first = first_record(file)
    if first is None:
        return False

    # An `answer` alone may stand in any JSON lines; these keys are Prodigy's.
    if not MARKS & first.keys():
        return False
    return first.get("answer") in ("accept", *ANSWERS)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The accepted sentences; DataError where no task has an intent."""
    left: Counter[str] = Counter()
    annotations = {}

    for file in taken:
        annotations[file.name] = _read_file(file, left, config)

    if not any(annotations.values()):
        counted = _list_counts(left) or "no task"
        raise DataError(
            f"{taken[0].name} holds no accepted task with an intent ({counted})",
            "Expected tasks with label, accept or cats; spans are no intents",
        )
    return make_export(annotations, dict(left), "sentences with different intents")


def _list_counts(left: Counter[str]) -> str:
    counted = [f"{count:,} {name}" for name, count in left.items()]
    return ", ".join(counted)


def _read_file(file: ExportFile, left: Counter[str], config: DataConfig) -> list[Annotation]:
    annotations = []
    text_key = config.text_column or "text"

    for number, task in read_records(file):
        where = place(file, number)
        answer = task.get("answer")
        if answer != "accept":
            name = _left_name(answer, where)
            left[name] += 1
            continue

        labels = _find_labels(task, config)
        if not labels:
            left["accepted tasks without an intent"] += 1
            continue

        text = task.get(text_key)
        label = plain_label(labels)
        row = make_row(file, number, text, label)
        key = _key(task, text)
        annotations.append(Annotation(key, row, where))

    return annotations


def _left_name(answer: Any, where: str) -> str:
    """What a task with this answer is; DataError where it is none of Prodigy's."""
    if answer is None:
        return "tasks without an answer"

    # An answer may be a list, which could not be looked up.
    if not isinstance(answer, str) or answer not in ANSWERS:
        raise DataError(
            f'{where} has the answer "{answer}"', "Expected accept, reject or ignore: correct it"
        )
    return ANSWERS[answer]


def _key(task: JsonObject, text: Any) -> Hashable:
    """What the tasks about one sentence have in common."""
    # The text as well, since a task may lack the hash.
    input_hash = str(task.get("_input_hash", ""))
    return (input_hash, str(text))


def _find_labels(task: JsonObject, config: DataConfig) -> list[Any]:
    """The intents of an accepted task."""
    if config.label_column is not None:
        return _as_list(task.get(config.label_column))

    # What was chosen of the options counts before the label of the task.
    if "accept" in task:
        chosen = _as_list(task["accept"])
        return _name_options(chosen, task.get("options"))

    if task.get("label") is not None:
        return _as_list(task["label"])

    cats = task.get("cats")
    if not isinstance(cats, dict):
        return []
    return [name for name, value in cats.items() if _holds(value)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return list(value)
    return [value]


def _holds(value: Any) -> bool:
    # true and false are numbers too, 1 and 0.
    return isinstance(value, int | float) and value >= HOLDS


def _name_options(chosen: list[Any], options: Any) -> list[Any]:
    """The ids of the chosen options; of options with numbers for ids, their texts."""
    texts = _option_texts(options)
    names = []

    for one in chosen:
        key = str(one)
        # Any other id is a name that a person wrote.
        if key.isdecimal():
            names.append(texts.get(key, one))
        else:
            names.append(one)

    return names


def _option_texts(options: Any) -> dict[str, str]:
    """The id of an option -> its text, the id as a text."""
    texts: dict[str, str] = {}
    if not isinstance(options, list):
        return texts

    for option in options:
        if isinstance(option, dict) and isinstance(option.get("text"), str):
            key = str(option.get("id"))
            texts[key] = option["text"]
    return texts


FORMAT = Format("Prodigy (JSON lines)", "Prodigy", find, read)
