"""Where the intents of an `intents.json` stand, and by which keys its objects tell themselves."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bankintent.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS
from bankintent.corpus.rows import SPLIT_NAMES
from bankintent.files import JsonObject
from bankintent.texts import is_blank

NAMES = ("tag", "intent", "intentname", "name", "label", "category", "class", "topic")
"""Keys of an intent's name, the likeliest first; written small, without `_`, `-` and blanks."""

SENTENCES = (
    "patterns",
    "pattern",
    "examples",
    "utterances",
    "phrases",
    "trainingphrases",
    "trainingexamples",
    "sentences",
    "questions",
    "queries",
    "texts",
    "text",
    "inputs",
    "input",
)
"""Keys of an intent's sentences, the likeliest first; written like NAMES."""

ANSWERS = (
    "responses",
    "response",
    "answers",
    "answer",
    "replies",
    "reply",
    "outputs",
    "output",
    "responsetemplates",
)
"""Keys of what a bot says; written like NAMES."""

NO_INTENTS = {"entities", "synonyms", "slots", "lookups", "regexes", "actions"}
"""Keys of lists that look like intents and are something else; written like NAMES."""

NO_INTENT_NAMES = {*SENTENCES, *ANSWERS, *SPLIT_NAMES} - {*TEXT_COLUMNS}
NO_INTENT_NAMES |= {"tags", "intents", "labels", "classes", "categories", "words"}
"""Keys of an object of lists that show it to be something else than intents by their names."""

WATSON = {
    "actions",
    "counterexamples",
    "dialog_nodes",
    "entities",
    "language",
    "learning_opt_out",
    "workspace_id",
}
"""Keys of a workspace of Watson Assistant, whose sentences are objects."""


@lru_cache(maxsize=1024)
def plain(key: str) -> str:
    """A key as NAMES and the others write it."""
    return re.sub(r"[\s_-]", "", key).lower()


def find_intents(content: Any, is_only: bool) -> dict[str, list[Any]]:
    """The objects of the intents by split, `all` where there is none; empty where it has none.

    `is_only` says that the source is this file alone.
    """
    if _are_intents(content):
        return {"all": content}

    if not isinstance(content, dict) or _is_watson(content):
        return {}

    # The whole file may be one intent.
    if _is_intent(content) and Intent.of(content).items:
        return {"all": [content]}

    lists = {}
    for key, value in content.items():
        if _are_intents(value):
            lists[key] = value

    # Where there are lists of intents and none can be chosen, no other layout is tried.
    if lists:
        return _choose(lists)

    for key, value in content.items():
        if plain(key) == "intents" and isinstance(value, dict):
            return _by_name(value)

    has_lists = any(map(_is_list, content.values()))
    is_columns = has_lists and _has_columns(content)
    if not is_only or is_columns:
        return {}
    return _by_name(content)


def _has_columns(content: JsonObject) -> bool:
    """Whether the lists of an object have names that are no intents: columns, splits, words."""
    names = {plain(key) for key in content}
    if not names.isdisjoint(NO_INTENT_NAMES):
        return True

    has_text = not names.isdisjoint(TEXT_COLUMNS)
    has_label = not names.isdisjoint(LABEL_COLUMNS)
    return has_text and has_label


def _is_watson(content: JsonObject) -> bool:
    """Whether an object is a workspace of Watson Assistant."""
    intents = content.get("intents")
    if not isinstance(intents, list) or WATSON.isdisjoint(content):
        return False

    # Its other keys are common words; a tutorial's file may have them with plain sentences.
    return any(map(_has_objects, intents))


def _has_objects(intent: Any) -> bool:
    """Whether the examples of an intent are a list with an object in it."""
    if not isinstance(intent, dict):
        return False

    examples = intent.get("examples")
    if not isinstance(examples, list):
        return False
    return any(isinstance(item, dict) for item in examples)


def _choose(lists: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The list of intents among those of an object; one for each split where all are splits."""
    for key, value in lists.items():
        if plain(key) == "intents":
            return {"all": value}

    known = {}
    for key, value in lists.items():
        if plain(key) not in NO_INTENTS:
            known[key] = value

    if len(known) == 1:
        only = next(iter(known.values()))
        return {"all": only}
    return _by_split(known)


def _by_split(lists: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Lists by the split that their key names; empty unless each names one of its own."""
    splits = {}
    for key, value in lists.items():
        split = SPLIT_NAMES.get(key.lower())
        # Two keys of one split, such as dev and val, leave open which is meant.
        if split is None or split in splits:
            return {}
        splits[split] = value

    return splits


def _by_name(content: JsonObject) -> dict[str, list[Any]]:
    """The intents of an object that has them under their names: as lists, or as objects."""
    objects = []

    for name, value in content.items():
        if isinstance(value, dict):
            objects.append({"tag": name, **value})
        elif isinstance(value, list) and all(map(_is_sentence, value)):
            objects.append({"tag": name, "patterns": value})
        else:
            return {}

    # One list under a name may be anything.
    if len(objects) < 2 or not _are_intents(objects):
        return {}
    return {"all": objects}


def _are_intents(value: Any) -> bool:
    """Whether a list holds intents: most of them are whole, and one at least has a sentence."""
    if not isinstance(value, list) or all(map(_is_row_of_table, value)):
        return False

    whole = list(filter(_is_intent, value))
    if len(whole) * 2 <= len(value):
        return False

    return any(Intent.of(item).items for item in whole)


def _is_intent(value: Any) -> bool:
    """Whether an object has a name and a list of sentences, which may be empty."""
    if not isinstance(value, dict):
        return False

    intent = Intent.of(value)
    if not is_name(intent.name) or not isinstance(intent.sentences, list):
        return False

    return all(map(_is_sentence, intent.sentences))


def is_name(value: Any) -> bool:
    """Whether a value names an intent; a list with one name does."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]

    # A number may be the name of a category.
    return isinstance(value, str | int)


def _is_sentence(item: Any) -> bool:
    if isinstance(item, dict):
        # With an intent of its own it is a row of another tool's list of all sentences.
        return isinstance(item.get("text"), str) and "intent" not in item

    return item is None or isinstance(item, str | int | float)


def _is_row_of_table(value: Any) -> bool:
    """Whether a table's reader finds a sentence and an intent in an object."""
    if not isinstance(value, dict):
        return False

    # A list under such a key is no cell of a table.
    found = set()
    for key, item in value.items():
        if isinstance(item, str | int):
            found.add(key.lower())

    has_text = not found.isdisjoint(TEXT_COLUMNS)
    has_label = not found.isdisjoint(LABEL_COLUMNS)
    return has_text and has_label


@dataclass(frozen=True)
class Intent:
    """One object of a file, its keys told apart."""

    name: Any
    """None where it has no name."""
    key: str
    """The key of the sentences as the file has it; empty where there is none."""
    sentences: Any
    """None where there are none."""
    answers: int
    others: Mapping[str, int]
    """Sentences under further keys, by these keys."""

    @classmethod
    def of(cls, content: JsonObject) -> "Intent":
        by_key = {plain(key): key for key in content}
        name = _first(content, by_key, NAMES)

        keys = _present(by_key, SENTENCES)
        # A list with sentences comes first: text may be a title beside a list of patterns.
        keys.sort(key=lambda key: not _is_list(content[key]))

        answers = 0
        for key in _present(by_key, ANSWERS):
            answers += count_items(content[key])

        others = {}
        for key in keys[1:]:
            if _is_list(content[key]):
                others[key] = len(content[key])

        chosen = keys[0] if keys else ""
        sentences = content.get(chosen)
        return cls(name, chosen, sentences, answers, others)

    @property
    def items(self) -> list[Any]:
        """The sentences that are not blank, as the file has them."""
        sentences = self.sentences
        if not isinstance(sentences, list):
            sentences = [sentences]

        return [item for item in sentences if not _is_blank(item)]


def _present(by_key: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """The keys of an object that are known, as it writes them, in the order of `known`."""
    return [by_key[key] for key in known if key in by_key]


def _first(content: JsonObject, by_key: Mapping[str, str], known: Iterable[str]) -> Any:
    for key in known:
        if key in by_key:
            return content[by_key[key]]
    return None


def _is_list(value: Any) -> bool:
    """Whether a value is a list, and not an empty one."""
    return isinstance(value, list) and bool(value)


def count_items(value: Any) -> int:
    """What stands under a key: the items of a list, or one; what is empty does not count."""
    if not isinstance(value, list):
        value = [value]
    return sum(map(bool, value))


def _is_blank(item: Any) -> bool:
    if isinstance(item, dict):
        item = item.get("text")

    if item is None:
        return True
    return isinstance(item, str) and is_blank(item)
