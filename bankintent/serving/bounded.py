"""Bounds on what one request may hold, checked before anything is built of it.

A body of a megabyte can hold half a million values. Building them, and an error about each, would
hold the event loop for seconds; here characters are counted, in a few milliseconds.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from bankintent.config import LimitsSection
from bankintent.serving.admission import served_by
from bankintent.serving.refusals import Invalid, Malformed

MARKS = (",", "[", "{")
"""Each value of a JSON document but the first comes after one of these."""

OTHER_VALUES = 1000
"""Values of a body that are no texts: the keys that other services' clients send, and more."""

MOST_FIELDS = 100
"""Most parameters of an address, or fields of a form: ours have a handful."""

LONGEST_CHARACTER = 12
"""The characters that an address or a form needs for one character of a text: `%F0%9F%93%A6`."""

OTHER_CHARACTERS = 4000
"""Room for what an address or a form holds besides its text."""

UNREADABLE = "the body cannot be read as JSON"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class BoundedRoute(APIRoute):
    """A route whose JSON body is counted before it is parsed."""

    def get_route_handler(self) -> Handler:
        """The handler, which is shown no body that is out of bounds."""
        handler = super().get_route_handler()
        has_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            if has_body:
                check_json(await request.body(), limits_of(request))
            return await handler(request)

        return handle


class BoundedQueryRoute(BoundedRoute):
    """The same for a route that reads the parameters of its address."""

    def get_route_handler(self) -> Handler:
        """The handler, which is shown no address that is out of bounds."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            query = request.scope["query_string"]
            check_fields(query, limits_of(request), "the address")
            return await handler(request)

        return handle


def limits_of(request: Request) -> LimitsSection:
    """The limits of the API that answers this request; a model's own are not wider."""
    return served_by(request).settings.limits


def check_json(body: bytes, limits: LimitsSection) -> None:
    """Raise Malformed for a body that is not text, Invalid for one of too many values."""
    try:
        # As `json.loads` decodes bytes, which takes UTF-16 too.
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        raise Malformed(UNREADABLE) from None

    # A batch of text-embeddings-inference has a list around each text.
    most = 2 * limits.max_texts + OTHER_VALUES
    if count(text) <= most:
        return

    outside = outside_strings(text, most)
    if outside is not None and unclosed(outside) > most:
        raise Malformed(UNREADABLE)
    if outside is None or count(outside) > most:
        raise Invalid(
            f"more than {most} values in one body; at most {limits.max_texts} texts are allowed."
            " Send several requests."
        )


def count(text: str) -> int:
    """How many marks of JSON a text has, also where they stand inside of strings."""
    return sum(text.count(mark) for mark in MARKS)


def outside_strings(text: str, most: int) -> str | None:
    """A JSON document without its strings; None where it has more than `most` values need."""
    # What a backslash escapes ends no string.
    plain = text.replace("\\\\", "").replace('\\"', "")

    # A value has two strings at most, its key and itself, and each string two quotes.
    most_quotes = 4 * (most + 1)
    parts = plain.split('"', most_quotes + 1)
    if len(parts) > most_quotes + 1:
        return None

    # Every other part is the inside of a string.
    return "".join(parts[::2])


def unclosed(outside: str) -> int:
    """Lists and objects that are opened and not closed."""
    opened = outside.count("[") + outside.count("{")
    return opened - outside.count("]") - outside.count("}")


def check_fields(content: bytes, limits: LimitsSection, place: str) -> None:
    """Raise Invalid for an address or a form that no request within the limits needs."""
    most = limits.max_chars * LONGEST_CHARACTER + OTHER_CHARACTERS
    if len(content) > most:
        raise Invalid(
            f"{place} is too long; a text of at most {limits.max_chars} characters is allowed."
            " Shorten it."
        )
    if content.count(b"&") > MOST_FIELDS:
        raise Invalid(f"{place} has more than {MOST_FIELDS} fields")


def read_form(content: bytes, limits: LimitsSection) -> dict[str, str]:
    """The fields of a form as browsers send it; of a repeated one the last.

    Bytes that are not UTF-8 become replacement characters. Raises Invalid for a form that is out
    of bounds.
    """
    check_fields(content, limits, "the form")
    return dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True))
