"""The type, the default and the docstring of a key as words of a page."""

import json
import re
from collections.abc import Iterator
from typing import Any

SLUG = "^[A-Za-z0-9]"
"""Begins the pattern of names that can be names of files."""

BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)

PLAIN = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "null": "`null`",
    "number": "number",
    "object": "section",
}

PARAGRAPHS = ("Default", "When not given")
"""Words before a colon that begin a paragraph after the values of a key."""


def type_words(node: dict[str, Any]) -> str:
    """What a key takes, by its JSON Schema."""
    for union in ("anyOf", "oneOf"):
        if union in node:
            return _union_words(node[union])
    if "$ref" in node:
        return "section"
    if "enum" in node:
        return "one of " + ", ".join(code(value) for value in node["enum"])
    if "const" in node:
        return code(node["const"])

    kind = node.get("type")
    if kind == "array":
        return _list_words(node)
    if kind == "object" and "properties" not in node:
        return _mapping_words(node)
    if kind == "string" or isinstance(kind, list):
        return _text_words(node)
    if kind is None:
        return "any value"
    return PLAIN[kind] + _bounds(node)


def _union_words(nodes: list[dict[str, Any]]) -> str:
    words = []
    for node in nodes:
        word = type_words(node)
        # `int | float` is one thing to a reader.
        if word == "whole number" and {"type": "number"} in nodes:
            continue
        words.append(word)
    # "whole number, at least 1; or `null`"
    last = words[-1]
    has_comma = any(", " in word and not word.startswith("one of") for word in words[:-1])
    return " or ".join(words[:-1]) + ("; or " if has_comma else " or ") + last


def _list_words(node: dict[str, Any]) -> str:
    item = type_words(node["items"])
    least = node.get("minItems", 0)
    count = f" of {least} or more" if least else ""
    return f"list{count}, each item: {item}"


def _mapping_words(node: dict[str, Any]) -> str:
    values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    value = next(child for child in values if child is not None)
    if value is True:
        return "mapping of names to any value"
    return f"mapping of names, each to: {type_words(value)}"


def _text_words(node: dict[str, Any]) -> str:
    if node.get("format") == "path":
        return "path"
    pattern = node.get("pattern", "")
    if pattern.startswith(SLUG):
        return "name of letters, digits, `.`, `_` and `-`"
    if pattern.startswith("^merge:"):
        return "`merge:NAME`"
    return "text"


def _bounds(node: dict[str, Any]) -> str:
    found = []
    for key, words in BOUNDS:
        if key in node:
            found.append(f"{words} {number(node[key])}")
    return (", " + " and ".join(found)) if found else ""


def number(value: float) -> str:
    """A number as people write it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def code(value: Any) -> str:
    """A value as it stands in YAML, as code."""
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, list):
        return "`[" + ", ".join(code(item).strip("`") for item in value) + "]`"
    if isinstance(value, dict):
        pairs = [f"{key}: {code(item).strip('`')}" for key, item in value.items()]
        return "`{" + ", ".join(pairs) + "}`"
    return f"`{json.dumps(value)}`"


def values_of(node: dict[str, Any]) -> list[str]:
    """The words that a key can be: those of a choice, true and false, null."""
    words = [str(value) for value in node.get("enum", [])]
    if "const" in node:
        words.append(str(node["const"]))
    if node.get("type") == "boolean":
        words += ["true", "false"]
    if node.get("type") == "null":
        words.append("null")
    for union in ("anyOf", "oneOf"):
        for child in node.get(union, []):
            words += values_of(child)
    return words


def prose(text: str, values: list[str]) -> str:
    """A docstring as Markdown: where it explains two values or more, a list of them."""
    parts = list(_split(text, values))
    explained = [word for word, _ in parts if word in values]
    if len(explained) < 2:
        return _mark(_begin(text, values), explained)

    blocks = []
    for word, words in parts:
        if word is None:
            blocks.append(_begin(_sentence(words), []))
        elif word in PARAGRAPHS:
            blocks.append(f"\n{word}: {_sentence(words)}")
        else:
            opening = "\n" if not blocks or not blocks[-1].lstrip().startswith("- ") else ""
            blocks.append(f"{opening}- `{word}`: {_sentence(words)}")
    return "\n".join(blocks).strip()


def _mark(text: str, words: list[str]) -> str:
    """A text with these words as code where they stand before a colon."""
    for word in words:
        text = re.sub(rf"(?<= ){re.escape(word)}: ", f"`{word}`: ", text)
    return text


def _begin(text: str, values: list[str]) -> str:
    """A text that begins with a capital, or with a value as code."""
    first = re.match(r"[\w-]+", text)
    if first and first.group() in values:
        return f"`{first.group()}`{text[first.end() :]}"
    return text[:1].upper() + text[1:]


def _sentence(words: str) -> str:
    words = words.strip()
    return words if words.endswith((".", ":")) else words.rstrip(";,") + "."


def _split(text: str, values: list[str]) -> Iterator[tuple[str | None, str]]:
    """(value or None, what is said of it), in order."""
    known = "|".join(re.escape(word) for word in [*values, *PARAGRAPHS])
    # After a semicolon any word can be a value, such as merge:NAME.
    marker = re.compile(rf"(?:^|(?<=[.;)] ))({known}|(?<=; )[a-z]+(?::[A-Z]+)?): ")
    place = 0
    word = None
    for match in marker.finditer(text):
        before = text[place : match.start()]
        if before.strip():
            yield word, before
        word = match.group(1)
        place = match.end()
    yield word, text[place:]
