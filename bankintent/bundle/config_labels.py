"""The labels of a classifier that somebody else saved: what its config says, or a labels.json."""

from pathlib import Path
from typing import Any

from bankintent.bundle import model_files
from bankintent.errors import LabelError, ModelError
from bankintent.files import JsonObject
from bankintent.labels import LabelSchema, find_fault

SINGLE_LABEL = "single_label_classification"

CLASSIFIER = "ForSequenceClassification"
"""How transformers ends the names of the classes of such models."""

NAME_ANOTHER = "Name a model that was trained to give each text one of several labels"


def read_names(folder: Path, config: JsonObject) -> LabelSchema:
    """The labels that a model's config names, in the order of their ids.

    Raises ModelError where the ids have gaps or a name is none: no text, blank, or given twice.
    """
    path = folder / model_files.CONFIG
    names = config.get("id2label")
    if names is None:
        # transformers writes no names where they are those that it gives by default.
        names = {str(index): name for index, name in enumerate(_default_names(config, path))}

    is_complete = isinstance(names, dict) and all(str(i) in names for i in range(len(names)))
    if not is_complete or not names:
        raise ModelError(
            f"{path} is not the config of a sequence classifier: id2label does not name the ids"
            " from 0 on",
            "Write a name for each id into it",
        )

    ordered = [names[str(index)] for index in range(len(names))]
    fault = find_fault(ordered)
    if fault is not None:
        raise ModelError(
            f"{path}: {fault} in id2label", "Write the names into it as different texts"
        )
    return LabelSchema(tuple(ordered))


def _default_names(config: JsonObject, path: Path) -> list[str]:
    """LABEL_0, LABEL_1 and so on: as many as `num_labels` says, by default two."""
    count = config.get("num_labels", 2)
    # A bool is an integer to Python.
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < 10**6:
        raise ModelError(f"{path}: num_labels is {count!r}, no number of labels", NAME_ANOTHER)
    return [f"LABEL_{index}" for index in range(count)]


def read_plain(folder: Path, config: JsonObject, label_file: Path) -> LabelSchema:
    """The labels of a plain classifier: those of its config, or of `label_file` for LABEL_0.

    Raises ModelError where the model does not give each text one of its labels, LabelError where
    it names none or the file has others.
    """
    path = folder / model_files.CONFIG
    labels = read_names(folder, config)
    _require_classifier(config, labels, path)

    has_no_names = list(labels.names) == [f"LABEL_{index}" for index in range(len(labels))]
    if label_file.is_file():
        named = LabelSchema.load(label_file)
        # The rows of a head stand in the order of its config; only the number of nameless ones can
        # be compared.
        if not has_no_names or len(named) != len(labels):
            named.require_same(labels, str(label_file), str(path))
        labels = named
    elif has_no_names:
        raise LabelError(
            f"{folder} names no labels: its config has LABEL_0, LABEL_1, ...",
            "Write the names into its id2label in the order of the ids that it was trained with"
            f" (a {label_file.name} of ETL there is right only if it was trained on those ids)",
        )

    _require_ids(config, labels, path)
    return labels


def _require_classifier(config: JsonObject, labels: LabelSchema, path: Path) -> None:
    """Raise ModelError where a softmax over the outputs is not what the model was trained for."""
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise ModelError(f"{path}: architectures is no list", NAME_ANOTHER)
    for name in architectures:
        # Without a task in its name it is an encoder alone, whose weights will show that.
        if "For" in str(name) and CLASSIFIER not in str(name):
            raise ModelError(f"{path} is of a {name}, no sequence classifier", NAME_ANOTHER)

    problem = config.get("problem_type")
    if problem not in (None, SINGLE_LABEL):
        raise ModelError(
            f"{path}: problem_type is {problem}, and only {SINGLE_LABEL} is served", NAME_ANOTHER
        )
    if len(labels) < 2:
        raise ModelError(f"{path} has one label: the model gives a number", NAME_ANOTHER)


def _require_ids(config: JsonObject, labels: LabelSchema, path: Path) -> None:
    """Raise ModelError where the config says otherwise in another place."""
    count = config.get("num_labels", len(labels))
    if count != len(labels):
        raise ModelError(
            f"{path} has num_labels {count} and {len(labels)} names of labels",
            "Correct the one that is wrong",
        )

    ids = config.get("label2id")
    if ids is None:
        return
    if not isinstance(ids, dict):
        raise ModelError(f"{path}: label2id is no JSON object", "Take that key out")
    # transformers writes LABEL_0 here where names were given for id2label alone.
    if _has_defaults(ids):
        return
    for name, index in ids.items():
        if labels.label2id.get(name) != _as_number(index):
            raise ModelError(
                f'{path}: label2id has "{name}" as {index!r}, and the names in order of ids do not',
                "Correct the one that is wrong",
            )


def _has_defaults(ids: dict[str, Any]) -> bool:
    return all(str(name).startswith("LABEL_") for name in ids)


def _as_number(value: Any) -> Any:
    """A number that stands as a text, as some write ids."""
    is_number = isinstance(value, str) and value.isdecimal() and len(value) < 10
    return int(value) if is_number else value
