"""Request ids, one JSON log line for each request, and its figures in the metrics.

A user's text appears in none of them.
"""

import json
import logging
import re
import sys
import time
import traceback
import uuid
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent.serving.error_bodies import error_response
from bankintent.serving.metrics import Metrics
from bankintent.serving.refusals import REASONS

logger = logging.getLogger("bankintent.serving")

RECORD = "bankintent.record"
"""The key of the request's record in its ASGI scope."""

ARRIVED = "bankintent.arrived"
"""The key, in a scope, of the time when the request's first byte was read, where it is known."""

ID_HEADER = b"x-request-id"
"""The header of a request's id, in both directions; lower case, as ASGI has all names."""

ID_FORM = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""Ids that are harmless in a log line and in a header."""

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Any other method is counted as "other", so that a client cannot make new series without end."""

FRAMES = 5
"""Innermost frames of an error that are logged."""


@dataclass(slots=True)
class RequestRecord:
    """The figures of one request; Telemetry puts it into the scope and logs it at the end."""

    request_id: str
    arrived: float
    """In seconds, by `time.monotonic`: an event loop's clock may stand still while it works."""
    status: int = 0
    """Of the response; 0 until it begins."""
    texts: int | None = None
    tokens: int | None = None
    model: str | None = None
    """The name of the model that was asked, where there are several."""


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request with this scope."""
    return scope[RECORD]


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.msg,
        }
        return json.dumps({**head, **getattr(record, "fields", {})})


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one structured line; fields hold figures and our own words, never a user's text."""
    logger.log(level, event, extra={"fields": fields})


def start_logging() -> None:
    """Write JSON lines to standard error, in place of uvicorn's access log.

    Lines of that log hold query strings.
    """
    # A second app in this process has the same logger.
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)

    logger.setLevel(logging.INFO)
    # A handler of the root logger would write every line a second time.
    logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True


class Telemetry:
    """Outermost middleware: gives each request an id, times, counts and logs it.

    It answers an unexpected error with status 500. Logs hold the route of a request, never its
    path, and the place of an error, never its message: path and message could hold a user's text.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        # In a busy server a request waits for its turn before it comes here.
        arrived = scope.get(ARRIVED) or time.monotonic()
        record = RequestRecord(find_id(scope), arrived)
        scope[RECORD] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                id_header = (ID_HEADER, record.request_id.encode())
                message["headers"] = [*message.get("headers", []), id_header]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 (the process boundary: the server goes on)
            log_error(record.request_id, error)

            # An answer that has begun has sent its status: it can only be cut off.
            answer_has_begun = record.status != 0
            if not answer_has_begun:
                message = f"internal error; the log has request {record.request_id}"
                response = error_response(500, "internal", message)
                await response(scope, receive, send_with_id)
        finally:
            self._report(scope, record)

    def _report(self, scope: Scope, record: RequestRecord) -> None:
        seconds = time.monotonic() - record.arrived

        # The router sets it. A path that has no route is not logged: it may hold a text.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.observe_request(route, method, record.status, seconds)
        if record.model is not None:
            self.metrics.observe_model_request(record.model, record.status, seconds)

        # Probes come every few seconds, and their 503 is not the refusal of a text.
        if route.startswith("/health/"):
            return

        reason = REASONS.get(record.status)
        if reason is not None:
            self.metrics.rejected.labels(reason).inc()

        figures: dict[str, Any] = {"status": record.status, "ms": round(1000 * seconds, 1)}
        if record.model is not None:
            figures["model"] = record.model
        if record.texts is not None:
            figures["texts"] = record.texts
        if record.tokens is not None:
            figures["tokens"] = record.tokens
        log_event("request", request_id=record.request_id, method=method, route=route, **figures)


def log_error(request_id: str, error: Exception) -> None:
    """Log the type of an error and the lines of code that it came through."""
    innermost = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    frames = [f"{frame.filename}:{frame.lineno}" for frame in innermost]
    kind = type(error).__name__
    log_event("error", logging.ERROR, request_id=request_id, type=kind, frames=frames)


def find_id(scope: Scope) -> str:
    """The caller's X-Request-ID where it is harmless, otherwise a new one."""
    for name, value in scope["headers"]:
        if name == ID_HEADER:
            if ID_FORM.fullmatch(value):
                return value.decode()
            # Of several headers only the first counts.
            break

    return uuid.uuid4().hex
