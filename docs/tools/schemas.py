"""The JSON Schema of each kind of YAML file, for editors and for checks in a CI.

A schema takes whatever the project's own reader takes (`bankintent/typed_yaml.py` and pydantic):
numbers in quotes, `yes` and `no`, and a number where a text is expected, such as a column that is
called 2. It refuses unknown keys and values of another type. What depends on several keys, or on
the disk, is left to the reader.
"""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bankintent.config import Section
from docs.tools.kinds import KINDS, Kind

FOLDER = Path("configs") / "schemas"

DRAFT = "https://json-schema.org/draft/2020-12/schema"

WHOLE_NUMBER = r"^\s*[-+]?[0-9][0-9_]*(\.0*)?\s*$"
NUMBER = r"^\s*[-+]?\.?[0-9][0-9_.]*([eE][-+]?[0-9]+)?\s*$"
TRUTH = (
    "^([Tt]([Rr][Uu][Ee])?|[Ff]([Aa][Ll][Ss][Ee])?|[Yy]([Ee][Ss])?|[Nn][Oo]?|[Oo]([Nn]|[Ff][Ff])"
    "|[01])$"
)
"""Texts that pydantic reads as a whole number, a number, or true and false."""

ON_MISMATCH = "patternErrorMessage"
"""What the YAML language server says of a text without the pattern; others ignore the key."""

FORMS: dict[str, dict[str, Any]] = {
    "string": {"type": ["string", "number", "boolean"]},
    "integer": {
        "type": ["integer", "string"],
        "pattern": WHOLE_NUMBER,
        ON_MISMATCH: "Expected a whole number.",
    },
    "number": {
        "type": ["number", "string"],
        "pattern": NUMBER,
        ON_MISMATCH: "Expected a number.",
    },
    # Of numbers 0 and 1 alone.
    "boolean": {
        "type": ["boolean", "integer", "string"],
        "minimum": 0,
        "maximum": 1,
        "pattern": TRUTH,
        ON_MISMATCH: "Expected true or false.",
    },
}
"""What may be written for each type of JSON Schema."""

SECTION_NAME = re.compile(r"^`[a-z_]+:` ")
"""Begins the docstring of a section."""

SUBSCHEMAS = ("items", "additionalProperties", "propertyNames")
LISTS_OF_SUBSCHEMAS = ("anyOf", "oneOf")
MAPS_OF_SUBSCHEMAS = ("properties", "patternProperties", "$defs")


def raw_schema(model: type[BaseModel]) -> dict[str, Any]:
    """pydantic's schema of a model, with texts in one line and exact defaults of sections."""
    schema = model.model_json_schema()
    for definition, section in _definitions(model, schema):
        _shorten_defaults(definition, section)
    return _tidy(schema)


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a kind of file."""
    made = _relax(raw_schema(kind.model))
    required = [key for key in made.get("required", []) if key not in kind.on_the_command_line]
    head = {
        "$schema": DRAFT,
        "title": f"{kind.name}.yaml",
        "description": made["description"],
        # An empty file holds no key.
        "type": "object" if required else ["object", "null"],
        "additionalProperties": False,
        "required": required,
        "properties": made["properties"],
    }
    if "$defs" in made:
        head["$defs"] = made["$defs"]
    return head


def path_of(kind: Kind) -> Path:
    """The file of a schema, below the repository."""
    return FOLDER / f"{kind.name}.schema.json"


def files() -> dict[Path, str]:
    """Each schema's file and text."""
    texts = {}
    for kind in KINDS:
        texts[path_of(kind)] = json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"
    return texts


def unwrap(text: str) -> str:
    """A docstring with one line for each paragraph."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _definitions(
    model: type[BaseModel], schema: dict[str, Any]
) -> list[tuple[dict[str, Any], type[BaseModel]]]:
    """The schema of a model and of each section in it, with their classes."""
    sections = {section.__name__: section for section in _all_sections(Section)}
    pairs = [(schema, model)]
    for name, definition in schema.get("$defs", {}).items():
        pairs.append((definition, sections[name]))
    return pairs


def _all_sections(section: type[BaseModel]) -> list[type[BaseModel]]:
    found = [section]
    for child in section.__subclasses__():
        found += _all_sections(child)
    return found


def _shorten_defaults(definition: dict[str, Any], section: type[BaseModel]) -> None:
    """A section's default holds what its own keys do not say."""
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            changed = field.default.model_dump(mode="json", exclude_defaults=True)
            definition["properties"][name]["default"] = changed


def _tidy(node: Any) -> Any:
    """Without titles that repeat a key's name."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node

    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key in MAPS_OF_SUBSCHEMAS:
            tidy[key] = {name: _tidy(child) for name, child in value.items()}
        elif key == "default":
            tidy[key] = value
        elif key == "description":
            tidy[key] = _tidy_description(value)
        elif key != "title":
            tidy[key] = _tidy(value)
    if "patternProperties" in tidy:
        # pydantic leaves out that no other name is taken.
        tidy["additionalProperties"] = False
    return tidy


def _tidy_description(text: str) -> str:
    """A docstring without the name of its section, which stands before it in the file."""
    words = unwrap(text)
    rest = SECTION_NAME.sub("", words)
    return words if rest == words else rest[:1].upper() + rest[1:]


def _relax(node: Any) -> Any:
    """A schema that takes every form in which a value may be written."""
    if not isinstance(node, dict):
        return node

    # The format `path` is pydantic's own.
    relaxed = {key: value for key, value in node.items() if key != "format"}
    for key in SUBSCHEMAS:
        if key in node:
            relaxed[key] = _relax(node[key])
    for key in LISTS_OF_SUBSCHEMAS:
        if key in node:
            relaxed[key] = [_relax(child) for child in node[key]]
    for key in MAPS_OF_SUBSCHEMAS:
        if key in node:
            relaxed[key] = {name: _relax(child) for name, child in node[key].items()}

    is_choice = "enum" in node or "const" in node
    # A list of types is one that somebody has written, and is exact.
    if not is_choice and isinstance(node.get("type"), str):
        # A text's own pattern stays.
        relaxed = FORMS.get(node["type"], {}) | relaxed
        relaxed["type"] = FORMS.get(node["type"], node)["type"]
    return relaxed
