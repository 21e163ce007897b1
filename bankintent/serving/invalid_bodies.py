"""What is wrong with a request's body, in one line that repeats nothing of it."""

import difflib
from typing import Any

from fastapi.exceptions import RequestValidationError

from bankintent.serving.wire import PredictRequest, TeiRequest

COMPAT_FIELDS = {"kind", "analysisInput", "conversationItem", "query", "token", "show-all-intents"}
"""Keys of the requests that `compat/` reads."""

FIELDS = PredictRequest.model_fields.keys() | TeiRequest.model_fields.keys() | COMPAT_FIELDS
"""Keys that a message may name: any other was made up by the sender and may hold a text."""

NOT_AN_OBJECT = (
    'the body must be a JSON object, for /predict such as {"text": "..."}, sent as application/json'
)
"""FastAPI also gives such errors where the header Content-Type is missing or wrong."""

PROBLEMS = {
    "string_pattern_mismatch": "must not be empty or blank",
    "string_too_short": "must not be empty or blank",
    "string_type": "must be a text",
    "string_unicode": "is not valid Unicode text",
    "json_invalid": "the body is not JSON",
    "model_attributes_type": NOT_AN_OBJECT,
    "model_type": NOT_AN_OBJECT,
    "dict_type": NOT_AN_OBJECT,
}
"""Messages for pydantic's error types; the other types keep pydantic's own."""

KEYS = "the keys are text, top_k, explain and model"

MOST_KEY_CHARACTERS = 20
"""Longest unknown key that is compared with the known ones."""

MOST_PROBLEMS = 3
"""A list of texts may have an error in each: a message stays one readable line."""


def describe_invalid(error: RequestValidationError) -> str:
    """The first few problems of a body in one line, without anything that was sent."""
    problems = [_describe_one(detail) for detail in error.errors()]
    different = list(dict.fromkeys(problems))
    return "; ".join(different[:MOST_PROBLEMS])


def _describe_one(detail: dict[str, Any]) -> str:
    """One problem: a message, after its place where that repeats nothing that was sent."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"an unknown key{_guess_key(detail['loc'][-1])}; {KEYS}"
    message = PROBLEMS.get(kind) or detail["msg"].removeprefix("Value error, ")

    # The place of invalid JSON is an offset in the text that was sent.
    if kind == "json_invalid":
        return message

    # The first part says where it was sent: in the body, or as a query parameter.
    place = detail["loc"][1:]
    parts = [str(part) for part in place if part in FIELDS or isinstance(part, int)]
    if not parts:
        return message
    return f"{'.'.join(parts)}: {message}"


def _guess_key(sent: object) -> str:
    """After a comma what an unknown key may be meant as; empty where it is like none.

    The key itself is not repeated: it may hold a text.
    """
    # Comparing takes longer with the length, and these keys are short.
    if not isinstance(sent, str) or len(sent) > MOST_KEY_CHARACTERS:
        return ""

    near = difflib.get_close_matches(sent.casefold(), PredictRequest.model_fields, n=1)
    return f', perhaps meant as "{near[0]}"' if near else ""
