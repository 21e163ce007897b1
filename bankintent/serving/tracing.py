"""Traces of requests over OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector.

A request is a span, and below it are, for each batch that had texts of it, the time in the queue
and the time in the model. Neither texts nor addresses are in them: a path or a query may hold one.
Where no collector is named, nothing of OpenTelemetry is imported.
"""

import asyncio
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent import __version__, distribution
from bankintent.errors import ConfigError
from bankintent.serving.addresses import route_path
from bankintent.serving.batching import WATCHER, Passage
from bankintent.serving.telemetry import METHODS, RequestRecord, log_event, record_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables that name a collector, as OpenTelemetry has them for every program."""

PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
"""Variables that name how spans are sent."""

PROTOCOL = "http/protobuf"
"""The one way of sending that is offered: gRPC would be a large package more."""

UNTRACED = ("/health/", "/metrics")
"""Paths that are asked every few seconds by machines."""

NO_OWN_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""Settings of FastAPI that keep it from spans and logs of its own; older versions ignore them."""

FLUSH_SECONDS = 3.0
"""Longest wait at the end of the process for a collector that takes the last spans."""


def start() -> "TracerProvider | None":
    """What makes spans and sends them; None where the environment names no collector.

    Raises ConfigError for an endpoint or a protocol that cannot be used, and MissingPackage where
    the extra `otel` is not installed.
    """
    name = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if name is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None

    check_settings(name)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise distribution.lacks("opentelemetry", f"{name}, which asks for traces,") from None

    log_failures()
    # `finish` ends it: a handler at the end of the interpreter would wait for a dead collector.
    provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def check_settings(name: str) -> None:
    """Raise ConfigError for an endpoint or a protocol that cannot be used."""
    endpoint = os.environ[name]
    if not endpoint.startswith(("http://", "https://")):
        # Not repeated: an address may have a password in it.
        raise ConfigError(
            f"{name} is no address that begins with http:// or https://",
            "Name the collector's port for HTTP, such as http://127.0.0.1:4318",
        )

    for variable in PROTOCOLS:
        protocol = os.environ.get(variable) or PROTOCOL
        if protocol != PROTOCOL:
            raise ConfigError(
                f"{variable} is {protocol!r}, and traces are sent as {PROTOCOL} only",
                f"Unset it, and let {name} name the collector's port for HTTP, mostly 4318",
            )


def make_resource() -> Any:
    """What is said of this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    from opentelemetry.sdk.resources import Resource

    named = Resource.create()
    own = {"service.version": __version__}
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        own["service.name"] = "bankintent"
    return named.merge(Resource(own))


def log_failures() -> None:
    """Write what OpenTelemetry has to say, such as a collector that is away, as JSON lines."""
    logger = logging.getLogger("opentelemetry")
    if not logger.handlers:
        logger.addHandler(JsonHandler())
    logger.propagate = False


class JsonHandler(logging.Handler):
    """Hands the messages of another library to the server's log, without their tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        log_event("traces", record.levelno, message=record.getMessage())


class Tracing:
    """Middleware that makes the spans of a request; inside Telemetry, whose record it reads."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        self.app = app
        self.provider = provider
        self.tracer = provider.get_tracer("bankintent", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._finishing(send))
        elif scope["type"] != "http" or route_path(scope).startswith(UNTRACED):
            await self.app(scope, receive, send)
        else:
            await self._traced(scope, receive, send)

    def _finishing(self, send: Send) -> Send:
        """`send` of the lifespan that first sends the last spans: a server ends after it."""

        async def finish_first(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await asyncio.to_thread(finish, self.provider)
            await send(message)

        return finish_first

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry import trace

        record = record_of(scope)
        span = self.tracer.start_span(
            "request",
            context=caller_context(scope),
            kind=trace.SpanKind.SERVER,
            start_time=epoch_nanoseconds(record.arrived),
        )
        watcher = RequestWatcher(self.tracer, trace.set_span_in_context(span))
        token = WATCHER.set(watcher)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            # Its name alone: a message could hold a user's text.
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            WATCHER.reset(token)
            describe(span, scope, record)
            span.end()


class RequestWatcher:
    """Makes the spans below that of one request; called on the threads of a batcher."""

    def __init__(self, tracer: "Tracer", context: "Context") -> None:
        self.tracer = tracer
        self.context = context

    def __call__(self, passage: Passage) -> None:
        taken = epoch_nanoseconds(passage.taken)
        admitted = taken - int(1e9 * (passage.taken - passage.admitted))
        done = taken + int(1e9 * passage.batch.seconds)

        waiting = self.tracer.start_span("queue", context=self.context, start_time=admitted)
        waiting.set_attribute("bankintent.texts", passage.items)
        waiting.end(taken)

        computing = self.tracer.start_span("model", context=self.context, start_time=taken)
        computing.set_attribute("bankintent.texts", passage.items)
        computing.set_attribute("bankintent.batch.texts", len(passage.batch.sizes))
        computing.set_attribute("bankintent.batch.tokens", sum(passage.batch.sizes))
        computing.end(done)


def describe(span: "Span", scope: Scope, record: RequestRecord) -> None:
    """Give a span its name, the route and the figures of its request."""
    from opentelemetry.trace import Status, StatusCode

    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    span.set_attribute("http.request.method", method)
    span.set_attribute("bankintent.request_id", record.request_id)

    # The router sets it. A path that has no route may hold a text.
    route = getattr(scope.get("route"), "path", None)
    span.update_name(f"{method} {route}" if route else method)
    if route:
        span.set_attribute("http.route", route)

    # Where an error has left no answer, Telemetry sends one with status 500.
    status = record.status or 500
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))

    if record.texts is not None:
        span.set_attribute("bankintent.texts", record.texts)
    if record.tokens is not None:
        span.set_attribute("bankintent.tokens", record.tokens)


def caller_context(scope: Scope) -> "Context":
    """The trace that a request belongs to, from its header `traceparent` (W3C Trace Context).

    Of what else a caller can send along nothing is read: it may be any text.
    """
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers = dict(scope["headers"])
    parent = headers.get(b"traceparent", b"").decode("latin-1")
    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def epoch_nanoseconds(moment: float) -> int:
    """A time of `time.monotonic` in nanoseconds since 1970."""
    return time.time_ns() - int(1e9 * (time.monotonic() - moment))


def finish(provider: "TracerProvider", seconds: float = FLUSH_SECONDS) -> None:
    """Send what is left, for at most some seconds: a dead collector must not hold the process."""
    # A daemon, since sending may take longer than that and cannot be cut off.
    ending = threading.Thread(target=provider.shutdown, daemon=True)
    ending.start()
    ending.join(seconds)
