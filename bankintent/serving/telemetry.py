"""What operators see: a request id, one JSON log line for each request, and Prometheus metrics. Never a user's text."""

import asyncio
import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent.serving.batching import Batch
from bankintent.serving.limits import REASONS

logger = logging.getLogger("bankintent.serving")
ID_HEADER = b"x-request-id"
ID_FORM = re.compile(rb"[A-Za-z0-9._-]{1,64}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {
            "time": f"{when}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.msg,
        }
        return json.dumps({**head, **getattr(record, "fields", {})})


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one structured line. Fields hold figures and our own words, never what a user sent."""
    logger.log(level, event, extra={"fields": fields})


def start_logging() -> None:
    """Write JSON lines to standard error, in place of uvicorn's access log, whose lines hold query strings."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True


class Metrics:
    """The app's own registry: two apps in one process count apart."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "bankintent_requests",
            "Requests by route and status",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "bankintent_request_seconds",
            "From arrival to answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "bankintent_rejected", "Requests refused, by reason", ["reason"], registry=registry
        )
        self.queue = Gauge(
            "bankintent_queue_texts", "Texts that wait for a batch", registry=registry
        )
        self.held = Gauge(
            "bankintent_held_texts", "Texts admitted and not yet answered", registry=registry
        )
        self.ready = Gauge("bankintent_ready", "1 when the API takes texts", registry=registry)
        self.batch_texts = Histogram(
            "bankintent_batch_texts", "Texts in a batch", buckets=TEXTS, registry=registry
        )
        self.batch_seconds = Histogram(
            "bankintent_batch_seconds",
            "Seconds that a batch took",
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "bankintent_tokens", "Tokens through the model", ["kind"], registry=registry
        )
        self.cached = Counter(
            "bankintent_cached_answers", "Answers known from before", registry=registry
        )
        self.predictions = Counter(
            "bankintent_predictions", "Answers by intent", ["intent"], registry=registry
        )

    def observe_batch(self, batch: Batch) -> None:
        """Count one batch; called on the batcher's thread."""
        real = sum(batch.sizes)
        self.batch_texts.observe(len(batch.sizes))
        self.batch_seconds.observe(batch.seconds)
        self.tokens.labels("text").inc(real)
        self.tokens.labels("padding").inc(max(batch.sizes) * len(batch.sizes) - real)

    def observe_answers(self, intents: Sequence[str]) -> None:
        for intent in intents:
            self.predictions.labels(intent).inc()

    def follow(
        self, queue: Callable[[], float], held: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        """Read these gauges from the service when they are asked for."""
        self.queue.set_function(queue)
        self.held.set_function(held)
        self.ready.set_function(ready)


class Telemetry:
    """Outermost layer: gives each request an id, times it, counts it, logs it, and ends what went wrong inside.

    Logs name the route, never the path, and of an error its place, never its message: both could hold a user's text.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id, status = find_id(scope), 0
        scope["arrived"], scope["measured"] = asyncio.get_running_loop().time(), {}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (ID_HEADER, request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 (the process boundary: whatever failed, the server goes on)
            frames = [
                f"{frame.filename}:{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)[-5:]
            ]
            log(
                "error",
                logging.ERROR,
                request_id=request_id.decode(),
                type=type(error).__name__,
                frames=frames,
            )
            if not status:
                body = {
                    "error": f"internal error; the log has request {request_id.decode()}",
                    "error_type": "internal",
                }
                await JSONResponse(body, 500)(scope, receive, send_with_id)
        finally:
            self._record(scope, request_id.decode(), status)

    def _record(self, scope: Scope, request_id: str, status: int) -> None:
        seconds = asyncio.get_running_loop().time() - scope["arrived"]
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(route, method, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        if route.startswith("/health/"):
            return
        if status in REASONS:
            self.metrics.rejected.labels(REASONS[status]).inc()
        figures = {"status": status, "ms": round(1000 * seconds, 1), **scope["measured"]}
        log("request", request_id=request_id, method=method, route=route, **figures)


def find_id(scope: Scope) -> bytes:
    """The caller's X-Request-ID where it is harmless, else a new one."""
    given = next((value for name, value in scope["headers"] if name == ID_HEADER), b"")
    return given if ID_FORM.fullmatch(given) else uuid.uuid4().hex.encode()
