"""Traces: what a collector gets of a request, what it never gets, and a server without one."""

import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servers import ROOT, STOP_SECONDS, Server, environment, serving

from bankintent.errors import ConfigError, MissingPackage
from bankintent.process import free_port
from bankintent.serving import tracing

SECRET = "sekretsentence"
CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
HEADERS = {
    "traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01",
    "tracestate": f"vendor={SECRET}",
    "baggage": f"text={SECRET}",
    "X-Request-ID": "asked-by-a-test",
}
APP = ("--factory", "serving_fixtures:waiting_app")


@dataclass
class Collector:
    """A stand-in for an OpenTelemetry collector: keeps what is posted to /v1/traces."""

    port: int
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    assert scope.scope.name == "bankintent"
                    found += scope.spans
        return found

    def resource(self) -> dict[str, str]:
        [first, *_] = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans
        return {each.key: each.value.string_value for each in first.resource.attributes}

    def wait_for(self, condition: Callable[[list[Any]], bool]) -> list[Any]:
        end = time.monotonic() + 30
        while not condition(self.spans()):
            assert time.monotonic() < end, self.spans()
            time.sleep(0.02)
        return self.spans()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def traced(
    folder: Path, endpoint: str, **variables: str
) -> contextlib.AbstractContextManager[Server]:
    """A server over the waiting model that sends its traces to an address."""
    return serving(
        folder,
        *APP,
        PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        # FastAPI would send addresses and bodies.
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
        **variables,
    )


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_server(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("traced")
    with traced(folder, collector.url, OTEL_BSP_SCHEDULE_DELAY="50") as server:
        yield server


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        found[each.key] = each.value.string_value or each.value.int_value
    return found


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def test_a_request_its_wait_and_its_batch_are_spans_of_the_callers_trace(
    traced_server: Server, collector: Collector
) -> None:
    texts = ["yes one", f"no {SECRET}", "yes yes yes"]
    path = f"/predict/?note={SECRET}"
    assert traced_server.post(path, {"text": texts}, headers=HEADERS).status_code == 200

    def is_whole(spans: list[Any]) -> bool:
        own = [span for span in spans if span.trace_id.hex() == CALLER_TRACE]
        texts_of_model = [attributes(span)["bankintent.texts"] for span in named(own, "model")]
        return sum(texts_of_model) == len(texts) and bool(named(own, "POST /predict/"))

    spans = collector.wait_for(is_whole)
    own = [span for span in spans if span.trace_id.hex() == CALLER_TRACE]
    [request] = named(own, "POST /predict/")
    assert request.parent_span_id.hex() == CALLER_SPAN
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/predict/",
        "http.response.status_code": 200,
        "bankintent.request_id": "asked-by-a-test",
        "bankintent.texts": 3,
        "bankintent.tokens": 7,
    }

    models = named(own, "model")
    queues = named(own, "queue")
    assert len(models) == len(queues) == len(own[1:]) / 2
    for queue, model in zip(queues, models, strict=True):
        assert queue.parent_span_id == model.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= queue.start_time_unix_nano
        assert queue.start_time_unix_nano <= queue.end_time_unix_nano
        assert queue.end_time_unix_nano == model.start_time_unix_nano
        assert model.start_time_unix_nano < model.end_time_unix_nano
        assert attributes(model)["bankintent.batch.texts"] >= attributes(model)["bankintent.texts"]
        assert attributes(model)["bankintent.batch.tokens"] > 0
    # The clock of a trace is that of the wall.
    assert abs(request.start_time_unix_nano / 1e9 - time.time()) < 60
    assert collector.resource()["service.name"] == "bankintent"


def test_the_time_in_the_queue_is_the_time_that_a_text_waited(
    traced_server: Server, collector: Collector
) -> None:
    hold = traced_server.log_file.parent / "hold"
    hold.touch()
    try:
        answers = []
        threads = []
        for name in ("first", "second"):

            def ask(text: str = f"yes {name}", name: str = name) -> None:
                headers = {"X-Request-ID": name}
                answers.append(traced_server.post("/predict/", {"text": text}, headers=headers))

            threads.append(threading.Thread(target=ask))
            threads[-1].start()
            held = len(threads)
            traced_server.until(lambda server: server.metric("bankintent_held_texts") == held)  # noqa: B023
        time.sleep(0.3)
    finally:
        hold.unlink()
    for thread in threads:
        thread.join()

    def ids(spans: list[Any]) -> dict[str, bytes]:
        known = [span for span in spans if span.kind == 2]
        return {attributes(span)["bankintent.request_id"]: span.span_id for span in known}

    def is_there(spans: list[Any]) -> bool:
        parents = {span.parent_span_id for span in named(spans, "queue")}
        return {ids(spans).get("first"), ids(spans).get("second")} <= parents

    spans = collector.wait_for(is_there)
    waits = {span.parent_span_id: span for span in named(spans, "queue")}
    second = waits[ids(spans)["second"]]
    first = waits[ids(spans)["first"]]
    assert second.end_time_unix_nano - second.start_time_unix_nano > 0.25e9
    assert first.end_time_unix_nano - first.start_time_unix_nano < 0.25e9


def test_refusals_and_errors_are_told_without_what_was_sent(
    traced_server: Server, collector: Collector
) -> None:
    assert traced_server.get(f"/{SECRET}").status_code == 404
    assert traced_server.post("/predict/", {"text": f"poison {SECRET}"}).status_code == 500
    assert traced_server.get("/health/live").status_code == 200
    assert traced_server.get("/metrics").status_code == 200

    def are_there(spans: list[Any]) -> bool:
        statuses = {attributes(span).get("http.response.status_code") for span in spans}
        return {404, 500} <= statuses

    spans = collector.wait_for(are_there)
    [missing] = [s for s in spans if attributes(s).get("http.response.status_code") == 404]
    assert missing.name == "GET"
    [failed] = [s for s in spans if attributes(s).get("http.response.status_code") == 500]
    assert failed.status.code == 2
    assert attributes(failed)["error.type"] == "ValueError"
    assert not failed.events


def test_no_text_no_query_and_no_probe_reaches_the_collector(
    traced_server: Server, collector: Collector
) -> None:
    assert traced_server.get(f"/info?{SECRET}={SECRET}").status_code == 200
    collector.wait_for(lambda spans: bool(named(spans, "GET /info")))
    everything = b"".join(collector.bodies)
    assert SECRET.encode() not in everything
    for path in (b"/health", b"/metrics"):
        assert path not in everything


def test_the_last_spans_are_sent_before_the_process_ends(tmp_path: Path) -> None:
    delay = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "ours"}
    with collecting() as collector, traced(tmp_path, collector.url, **delay) as server:
        assert server.post("/predict/", {"text": "yes"}).status_code == 200
        assert not collector.bodies
        server.process.send_signal(signal.SIGTERM)
        # uvicorn ends by the signal that it got.
        assert server.process.wait(STOP_SECONDS) in (0, -signal.SIGTERM)
        names = sorted(span.name for span in collector.spans())
        assert names == ["POST /predict/", "model", "queue"]
        assert collector.resource()["service.name"] == "ours"


@pytest.mark.scale
def test_a_collector_that_is_away_costs_no_answer_and_no_long_end(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with traced(tmp_path, endpoint, OTEL_BSP_SCHEDULE_DELAY="50") as server:
        assert server.post("/predict/", {"text": f"yes {SECRET}"}).status_code == 200
        server.until(lambda server: '"event": "traces"' in server.log)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(STOP_SECONDS)
        assert time.monotonic() - began < tracing.FLUSH_SECONDS + 5
        assert SECRET not in server.log
        assert "Traceback" not in server.log


def test_without_a_collector_nothing_of_opentelemetry_is_loaded(tmp_path: Path) -> None:
    program = """
import sys
from bankintent.config import ServeConfig
from bankintent.serving.app import create_app
from bankintent.serving.tracing import Tracing
app = create_app(ServeConfig())
assert not [each for each in app.user_middleware if each.cls is Tracing]
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))])
"""
    env = environment()
    for name in tracing.ENDPOINTS:
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingPackage, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*pip install"):
        tracing.start()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "user:pass@host:4318"}, "begins with http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc', and traces are sent as http/protobuf"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as error:
        tracing.start()
    assert "user:pass" not in str(error.value)


def test_a_disabled_sdk_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.start() is None
