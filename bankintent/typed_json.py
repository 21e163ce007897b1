"""JSON as typed records: each value has the type that its record names, or there is an error."""

from typing import TypeVar

from pydantic import TypeAdapter

Record = TypeVar("Record")


def parse(kind: type[Record], text: str) -> Record:
    """A JSON object as a dataclass of this kind; keys that it does not name are left out.

    Raises ValueError where the text is no JSON, or where a value is missing or of another type.
    """
    # Strict: "3" is no number, and a number is no text.
    return TypeAdapter(kind).validate_json(text, strict=True)
