"""Entity markup of Rasa's sentences, such as `[Oslo](city)`, to the words that people say."""

import json
import re
from dataclasses import dataclass
from typing import Any

BRACKETS = re.compile(r"\[([^\[\]]+)\](?=[({\[])")
"""Words in brackets with something right behind them that may name an entity."""

TYPE = re.compile(r"\([^:)]+(?::[^)]*)?\)")
"""`(type)` or `(type:value)`."""

BRACES = re.compile(r"\{[^{}]+\}")
"""An entity's keys that are no JSON, such as `{entity: city}`."""

PLACE = re.compile(r"\{\{?[^{}\"':]*\}?\}")
"""`{name}` or `{{name}}`: a place of a template, and no entity that has lost its brackets."""

JSON = json.JSONDecoder()


@dataclass(frozen=True)
class Surface:
    """A sentence without its markup."""

    text: str
    entities: int
    """How many were marked in it."""
    is_stray: bool
    """Whether brackets or braces are left in it that mark no entity."""


def to_surface(sentence: str) -> Surface:
    """The words of a sentence, its entities as they are said.

    Markup is `[words](type)`, `[words](type:value)`, `[words]{"entity": "type", ...}` and
    `[words][{"entity": "type"}, ...]`. Brackets of another kind stay as they are.
    """
    parts: list[str] = []
    entities = 0
    end = 0
    for words in BRACKETS.finditer(sentence):
        # Brackets inside the markup before them.
        if words.start() < end:
            continue
        behind = _end_of_markup(sentence, words.end())
        if behind is None:
            continue

        parts += [sentence[end : words.start()], words[1]]
        entities += 1
        end = behind

    text = "".join([*parts, sentence[end:]])
    rest = PLACE.sub("", text)
    return Surface(text, entities, any(sign in rest for sign in "[]{}"))


def _end_of_markup(sentence: str, start: int) -> int | None:
    """Where the markup ends that begins at `start`; None where none begins there."""
    if sentence[start] == "(":
        match = TYPE.match(sentence, start)
        return match.end() if match else None

    value, end = _decode(sentence, start)
    if sentence[start] == "{" and end is None:
        match = BRACES.match(sentence, start)
        return match.end() if match else None
    if isinstance(value, list) and not _are_entities(value):
        return None
    return end


def _decode(sentence: str, start: int) -> tuple[Any, int | None]:
    """(the JSON value that begins at `start`, its end); (None, None) where none begins there."""
    try:
        return JSON.raw_decode(sentence, start)
    except (ValueError, RecursionError):
        return None, None


def _are_entities(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)
