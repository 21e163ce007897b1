"""Request ids, one JSON log line for each request, and Prometheus metrics.

A user's text appears in none of them.
"""

import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent.decision.deciding import Decision, Verdict
from bankintent.serving.batching import Batch
from bankintent.serving.error_bodies import error_response
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

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper edges of the buckets of durations."""

TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper edges of the buckets of batch sizes."""

SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
"""Upper edges of the buckets of scores."""


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


class Metrics:
    """The metrics of one app, in its own registry: two apps in one process count separately."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)

        # The client library adds _total to the names of counters.
        self.requests = counter(
            "bankintent_requests", "Requests by route and status", ["route", "method", "status"]
        )
        self.request_seconds = histogram(
            "bankintent_request_seconds", "From arrival to answer", ["route"], buckets=SECONDS
        )
        self.rejected = counter("bankintent_rejected", "Requests refused, by reason", ["reason"])

        self.queue = gauge("bankintent_queue_texts", "Texts that wait for a batch")
        self.held = gauge("bankintent_held_texts", "Texts admitted and not yet answered")
        self.ready = gauge("bankintent_ready", "1 when the API takes texts")

        self.connections = gauge("bankintent_connections", "Open connections")
        self.closed = counter(
            "bankintent_closed_connections", "Connections closed by a bound, by reason", ["reason"]
        )

        self.batch_texts = histogram("bankintent_batch_texts", "Texts in a batch", buckets=TEXTS)
        self.batch_seconds = histogram(
            "bankintent_batch_seconds", "Seconds that a batch took", buckets=SECONDS
        )
        self.tokens = counter("bankintent_tokens", "Tokens through the model", ["kind"])

        self.cached = counter("bankintent_cached_answers", "Answers known from before")
        self.predictions = counter(
            "bankintent_predictions", "Texts answered, by intent", ["intent"]
        )
        self.decisions = counter(
            "bankintent_decisions", "Texts answered and refused", ["decision", "reason"]
        )
        self.scores = histogram(
            "bankintent_scores", "Score of the best intent, answered or not", buckets=SCORES
        )

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def observe_batch(self, batch: Batch) -> None:
        """Count one batch; called on the batcher's thread."""
        texts = len(batch.sizes)
        tokens = sum(batch.sizes)
        padding = max(batch.sizes) * texts - tokens

        self.batch_texts.observe(texts)
        self.batch_seconds.observe(batch.seconds)
        self.tokens.labels("text").inc(tokens)
        self.tokens.labels("padding").inc(padding)

    def observe_answers(self, decisions: Sequence[Decision], labels: Sequence[str]) -> None:
        """Count what was decided on the texts of a request."""
        for decision in decisions:
            self.decisions.labels(decision.verdict.value, decision.reason.value).inc()
            self.scores.observe(decision.score)
            if decision.verdict is Verdict.ANSWER:
                self.predictions.labels(labels[decision.label]).inc()

    def follow(
        self, queue: Callable[[], float], held: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        """Take the values of these gauges from the service each time the metrics are read."""
        self.queue.set_function(queue)
        self.held.set_function(held)
        self.ready.set_function(ready)


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

        # Probes come every few seconds, and their 503 is not the refusal of a text.
        if route.startswith("/health/"):
            return

        reason = REASONS.get(record.status)
        if reason is not None:
            self.metrics.rejected.labels(reason).inc()

        figures: dict[str, Any] = {"status": record.status, "ms": round(1000 * seconds, 1)}
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
