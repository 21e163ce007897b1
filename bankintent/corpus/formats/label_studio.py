"""Label Studio's exports: JSON (tasks with their annotations) and JSON_MIN (one record for each).

https://labelstud.io/guide/export
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS
from bankintent.corpus.formats.annotations import (
    Annotation,
    NumberedRecord,
    make_export,
    plain_label,
    read_records,
)
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.rows import Row
from bankintent.errors import DataError
from bankintent.files import JsonObject

ANNOTATIONS = ("annotations", "completions")
"""Keys of a task's annotations, in newer and in older versions."""

MIN_MARKS = {"annotation_id", "annotator", "lead_time"}
"""Keys that every record of JSON_MIN has."""

MIN_FACTS = MIN_MARKS | {"id", "created_at", "updated_at", "agreement", "history"}
"""Keys of JSON_MIN that are neither of the task nor of its annotation."""

DISPUTED = "tasks whose annotators disagree"
UNCHOSEN = "tasks without a choice"


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of tasks, or of records of JSON_MIN."""
    return [file for file in files.with_ending(".json") if _is_tasks(file) or _is_min(file)]


def _is_tasks(file: ExportFile) -> bool:
    first = _first(file)
    return isinstance(first.get("data"), dict) and _annotations_key(first) is not None


def _is_min(file: ExportFile) -> bool:
    return _first(file).keys() >= MIN_MARKS


def _first(file: ExportFile) -> JsonObject:
    """The first task of a list, or the only one; empty where there is none."""
    content = file.json
    if isinstance(content, list) and content:
        content = content[0]
    return content if isinstance(content, dict) else {}


def _annotations_key(task: JsonObject) -> str | None:
    return next((key for key in ANNOTATIONS if isinstance(task.get(key), list)), None)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences with a choice; DataError where it is open which choice, or which text."""
    left: Counter[str] = Counter()
    annotations = {}
    for file in taken:
        read_one = _read_tasks if _is_tasks(file) else _read_min
        annotations[file.name] = list(read_one(file, left, config))
    return make_export(annotations, dict(left), DISPUTED)


def _numbered(file: ExportFile) -> list[NumberedRecord]:
    """The tasks of a file with their numbers, from 1."""
    content = file.require_json()
    return [(1, content)] if isinstance(content, dict) else list(read_records(file))


def _place(file: ExportFile, number: int, record: JsonObject) -> str:
    return f"{file.name} task {number} (id {record.get('id')})"


def _read_tasks(file: ExportFile, left: Counter[str], config: DataConfig) -> Iterator[Annotation]:
    tasks = _numbered(file)
    question = _find_question(file, tasks, config.label_column)

    for number, task in tasks:
        key = _annotations_key(task)
        annotations = [one for one in task[key] if isinstance(one, dict)] if key else []
        reason = _reason_to_leave(annotations)
        chosen = [_choices(one, question) for one in _decisive(annotations, question)]
        if reason is None and not chosen:
            reason = UNCHOSEN
        if reason is not None:
            left[reason] += 1
            continue

        where = _place(file, number, task)
        text = _find_text(task, question, where, config.text_column)
        for choices in chosen:
            row = Row(file.name, number, text, plain_label(choices))
            yield Annotation((file.name, number), row, where)


def _reason_to_leave(annotations: list[JsonObject]) -> str | None:
    if not annotations:
        return "tasks without an annotation"
    return "skipped tasks" if all(map(_is_skipped, annotations)) else None


def _is_skipped(annotation: JsonObject) -> bool:
    # Older versions say `skipped`.
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _decisive(annotations: list[JsonObject], question: str) -> list[JsonObject]:
    """The annotations with a choice that count: those that are the ground truth, or all."""
    counted = []
    for annotation in annotations:
        if not _is_skipped(annotation) and _choices(annotation, question):
            counted.append(annotation)
    true = [annotation for annotation in counted if annotation.get("ground_truth")]
    return true or counted


def _results(annotation: JsonObject) -> Iterator[JsonObject]:
    """The parts of an annotation that are choices for the whole of a text."""
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, dict) else None
        # A choice for a part of the text has the start of that part.
        if isinstance(value, dict) and value.get("choices") and "start" not in value:
            yield result


def _asks(result: JsonObject) -> str:
    """The name of the choices that a result answers."""
    return str(result.get("from_name", ""))


def _choices(annotation: JsonObject, question: str) -> list[Any]:
    """What was chosen in answer to a question."""
    chosen: list[Any] = []
    for result in _results(annotation):
        if _asks(result) == question:
            choices = result["value"]["choices"]
            chosen += choices if isinstance(choices, list) else [choices]
    return list(dict.fromkeys(map(str, chosen)))


def _find_question(
    file: ExportFile, tasks: Iterable[NumberedRecord], configured: str | None
) -> str:
    """The name of the choices that hold the intent (`from_name`)."""
    names: dict[str, None] = {}
    for _, task in tasks:
        for annotation in task.get(_annotations_key(task) or "") or []:
            if isinstance(annotation, dict):
                names |= dict.fromkeys(map(_asks, _results(annotation)))

    if not names:
        raise DataError(
            f"{file.name} holds no choice for a sentence",
            "Expected annotations of the type choices (text classification)",
        )
    return _choose(list(names), LABEL_COLUMNS, configured, f"{file.name}, choices", "label_column")


def _choose(
    names: list[str], known: Iterable[str], configured: str | None, where: str, key: str
) -> str:
    """The configured one of names, the only one, or the first that is known."""
    listed = ", ".join(names) or "none"
    if configured is not None:
        if configured in names:
            return configured
        raise DataError(f'{where}: there is no "{configured}", but {listed}', f"Correct {key}")
    if len(names) == 1:
        return names[0]

    lowered = {name.strip().lower(): name for name in names}
    for name in known:
        if name in lowered:
            return lowered[name]
    raise DataError(f"{where}: it may be {listed}", f"Name one with --set {key}=NAME")


def _find_text(task: JsonObject, question: str, where: str, configured: str | None) -> Any:
    """The text of a task: the key of its data that the choice points to, or that is plain."""
    data = task["data"] if isinstance(task.get("data"), dict) else {}
    if configured is None:
        for annotation in task[_annotations_key(task) or ""]:
            for result in _results(annotation):
                # Configurations of some versions have the key itself, `$text`, for the name.
                target = str(result.get("to_name")).removeprefix("$")
                if _asks(result) == question and isinstance(data.get(target), str):
                    return data[target]

    texts = [key for key, value in data.items() if isinstance(value, str)]
    return data[_choose(texts, TEXT_COLUMNS, configured, f"{where}, text", "text_column")]


def _read_min(file: ExportFile, left: Counter[str], config: DataConfig) -> Iterator[Annotation]:
    records = _numbered(file)
    answers = _answer_keys(records)
    label = _choose(
        answers, LABEL_COLUMNS, config.label_column, f"{file.name}, intent", "label_column"
    )
    texts = _text_keys(records, {label, *answers} - {config.text_column})
    text = _choose(texts, TEXT_COLUMNS, config.text_column, f"{file.name}, text", "text_column")

    for number, record in records:
        choices = _min_choices(record.get(label))
        if not choices:
            left[UNCHOSEN] += 1
            continue
        row = Row(file.name, number, record.get(text), plain_label(choices))
        key = (file.name, str(record.get("id", number)))
        yield Annotation(key, row, _place(file, number, record))


def _answer_keys(records: list[NumberedRecord]) -> list[str]:
    """The keys of answers, which stand between the task's id and its annotator."""
    found: dict[str, None] = {}
    for _, record in records:
        keys = list(record)
        start = keys.index("id") + 1 if "id" in keys else 0
        end = keys.index("annotator") if "annotator" in keys else len(keys)
        found |= dict.fromkeys(keys[start:end])
    return [key for key in found if key not in MIN_FACTS]


def _text_keys(records: list[NumberedRecord], taken: set[str]) -> list[str]:
    """The keys of the tasks' data that hold text."""
    found: dict[str, None] = {}
    for _, record in records:
        found |= dict.fromkeys(key for key, value in record.items() if isinstance(value, str))
    return [key for key in found if key not in MIN_FACTS | taken]


def _min_choices(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = value.get("choices")
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


FORMAT = Format("Label Studio (JSON)", "Label Studio", find, read)
