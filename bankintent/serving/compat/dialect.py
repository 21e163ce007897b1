"""What the services have in common: how one is described, and errors in its own form."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field, JsonValue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent.serving.addresses import route_path

STATUSES = (400, 401, 403, 404, 408, 413, 422, 429, 503, 504)
"""The refusals of a route that predicts, for the OpenAPI document."""

NoEntities = Annotated[list[JsonValue], Field(max_length=0)]
"""The entities of a text: the model finds none."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The requests and the errors of one service."""

    paths: tuple[str, ...]
    """What the paths of the service begin with."""
    add_routes: Callable[[FastAPI], None]
    error_body: Callable[[int, str, str], dict[str, JsonValue]]
    """The service's body of an error, from its status, `error_type` and message."""


class ErrorBodies:
    """Middleware that writes the API's errors in the form that the clients of a service read.

    Status, headers and message stay. It is the outermost, so that it also sees what other
    middleware answers.
    """

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect]) -> None:
        self.app = app
        self.dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = self._dialect_of(scope)
        if dialect is None:
            await self.app(scope, receive, send)
            return

        # The headers have the length of the body: they wait until it is known.
        start: Message = {}

        async def send_in_form(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start.update(message)
                return

            if not start:
                await send(message)
                return

            body = rewrite(message["body"], start["status"], dialect)
            await send({**start, "headers": with_length(start["headers"], len(body))})
            await send({**message, "body": body})

        await self.app(scope, receive, send_in_form)

    def _dialect_of(self, scope: Scope) -> Dialect | None:
        if scope["type"] != "http":
            return None

        for dialect in self.dialects:
            if route_path(scope).startswith(dialect.paths):
                return dialect
        return None


def rewrite(body: bytes, status: int, dialect: Dialect) -> bytes:
    """The service's body of the error that this body of ours describes."""
    # Every error of the API comes whole and in this form: error_bodies.error_response.
    error: dict[str, Any] = json.loads(body)
    return json.dumps(dialect.error_body(status, error["error_type"], error["error"])).encode()


def with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    """The headers with another Content-Length."""
    others = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*others, (b"content-length", str(length).encode())]
