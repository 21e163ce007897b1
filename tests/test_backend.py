"""The API as a process, over real HTTP."""

import asyncio
import concurrent.futures
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from servers import ROOT, Server, environment, serving
from serving_fixtures import (
    HTML_LABEL,
    LABELS,
    MAX_LENGTH,
    write_tiny_bundle,
    write_tiny_model,
)

from bankintent.config import BatchingSection, LimitsSection, ServeConfig
from bankintent.configfile import load
from bankintent.inference.runtime import Runtime
from bankintent.serving import lifetime
from bankintent.serving.metrics import Metrics
from bankintent.serving.refusals import NotReady
from bankintent.serving.service import Service, State, find_model

WAITING = ("--factory", "serving_fixtures:waiting_app")
WAITING_PATH = f"{ROOT}:{ROOT / 'tests'}"
"""PYTHONPATH of a process that runs the waiting app."""

SECRET = "sekretsentence"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Server]:
    """A server whose model works only while the file `hold` is absent, with a short queue."""
    with waiting_server(tmp_path, max_queue=4, max_texts=4, deadline_s=20, shutdown_s=30) as server:
        yield server


def waiting_server(
    folder: Path, *, ready: bool = True, **limits: float
) -> AbstractContextManager[Server]:
    return serving(
        folder, *WAITING, ready=ready, config={"limits": limits}, PYTHONPATH=WAITING_PATH
    )


DECISION = {"decision", "reason", "in_scope", "close_to"}
"""Keys of an answer that say whether it is one."""


def hold(server: Server) -> Path:
    """Make the model wait until the file that this returns is removed."""
    file = server.log_file.parent / "hold"
    file.touch()
    return file


def wait_until_held(server: Server, texts: int) -> None:
    server.until(lambda server: server.metric("bankintent_held_texts") == texts)


def began(server: Server) -> list[str]:
    """The texts whose work has begun since the warm-up."""
    lines = (server.log_file.parent / "started").read_text().splitlines()
    return [line for line in lines if "text" not in line]


# Answers


def test_a_text_gets_its_intent_and_the_best_few(server: Server) -> None:
    response = server.post("/predict/", {"text": "my card has not arrived", "top_k": 2})
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"label", "score", "top_k", "truncated", "model"} | DECISION
    assert (body["decision"], body["reason"], body["in_scope"]) == ("answer", "", True)
    assert body["close_to"] is None

    first, second = body["top_k"]
    assert body["label"] == first["label"]
    assert body["score"] == first["score"]
    assert first["score"] >= second["score"]
    assert body["truncated"] is False
    assert body["model"]["name"] == "tiny"


def test_a_list_gives_a_list_in_order_and_top_k_beyond_the_labels_gives_all(server: Server) -> None:
    texts = ["my card", "change pin", "lost"]
    answers = server.post("/predict/", {"text": texts, "top_k": 99}).json()

    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        alone = server.post("/predict/", {"text": text}).json()
        assert answer["label"] == alone["label"]
        assert len(answer["top_k"]) == len(LABELS)
        assert sum(score["score"] for score in answer["top_k"]) == pytest.approx(1, abs=1e-5)


def test_a_long_text_is_cut_and_says_so(server: Server) -> None:
    exact = " ".join(["card"] * (MAX_LENGTH - 2))
    answers = server.post("/predict/", {"text": [exact, f"{exact} card"]}).json()
    assert [answer["truncated"] for answer in answers] == [False, True]


def test_the_other_predict_takes_the_same_body(server: Server) -> None:
    body = {"text": "my card", "top_k": 3}
    assert server.post("/predict", body).json() == server.post("/predict/", body).json()


def test_the_inference_servers_body_gets_its_shapes(server: Server) -> None:
    single = server.post("/predict", {"inputs": "my card", "parameters": {"anything": 1}}).json()
    assert [set(score) for score in single] == [{"label", "score"}] * len(LABELS)
    probabilities = [score["score"] for score in single]
    assert probabilities == sorted(probabilities, reverse=True)

    assert server.post("/predict", {"inputs": ["my card"]}).json() == single

    inputs = [["my card"], ["change pin"]]
    batch = server.post("/predict", {"inputs": inputs, "truncate": None}).json()
    assert len(batch) == 2
    assert batch[0] == single


def test_raw_scores_are_the_logits_of_the_probabilities(server: Server) -> None:
    single = server.post("/predict", {"inputs": "my card"}).json()
    raw = server.post("/predict", {"inputs": "my card", "raw_scores": True}).json()
    assert [score["label"] for score in raw] == [score["label"] for score in single]

    exponentials = np.exp([score["score"] for score in raw])
    probabilities = [score["score"] for score in single]
    assert exponentials / exponentials.sum() == pytest.approx(probabilities, abs=1e-5)


@pytest.mark.parametrize("inputs", [["a", "b"], [["a", "b"]], [["x"], ["a", "b"]]])
def test_a_pair_is_refused_with_the_way_to_write_a_batch(server: Server, inputs: Any) -> None:
    response = server.post("/predict", {"inputs": inputs})
    assert response.status_code == 422
    assert 'write a batch as [["a"], ["b"]]' in response.json()["error"]


def test_truncate_false_refuses_what_would_be_cut(server: Server) -> None:
    response = server.post("/predict", {"inputs": "card " * 100, "truncate": False})
    assert response.status_code == 422
    assert "32 tokens" in response.json()["error"]
    assert server.post("/predict", {"inputs": "card", "truncate": False}).status_code == 200


def test_a_thousand_concurrent_texts_each_get_their_own_answer(
    server: Server, served_bundle: Path
) -> None:
    texts = [f"{'my card ' * (i % 12)}number {i * 7919}" for i in range(1000)]
    runtime = load_model(served_bundle)
    expected = [runtime.logits(runtime.tokenize([text]))[0] for text in texts]

    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=server.url, limits=limits, timeout=60) as client:

        def ask(text: str) -> list[float]:
            """The logits of a text, in the order of the labels."""
            scores = client.post("/predict", json={"inputs": text, "raw_scores": True}).json()
            by_label = {score["label"]: score["score"] for score in scores}
            return [by_label[label] for label in LABELS]

        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            answers = np.array(list(pool.map(ask, texts)))

    assert np.abs(answers - np.array(expected)).max() < 1e-4
    different = {tuple(row) for row in answers.round(4)}
    assert len(different) > 900
    batches = server.metric("bankintent_batch_texts_count")
    assert batches < server.metric("bankintent_batch_texts_sum")


def load_model(folder: Path) -> Runtime:
    return find_model(ServeConfig(model_dir=folder, threads=1))()


def test_a_bundle_and_its_merged_folder_are_the_same_model(served_bundle: Path) -> None:
    assert load_model(served_bundle).facts == load_model(served_bundle / "merged").facts


def test_a_classifier_without_a_bundle_has_the_facts_of_its_config(tmp_path: Path) -> None:
    facts = load_model(write_tiny_model(tmp_path / "plain")).facts
    assert facts.labels == LABELS
    assert facts.backbone == "bert"


# Refusals


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"text": ""}, "empty or blank"),
        ({"text": " \n\t"}, "empty or blank"),
        ({"text": []}, "text: List should have at least 1 item"),
        ({"text": [SECRET, "  "]}, "text.1: must not be empty or blank"),
        ({"text": [SECRET, 5]}, "text.1: must be a text"),
        ({"text": {"a": SECRET}}, "text: must be a text"),
        ({"text": SECRET, "top_k": 0}, "top_k"),
        ({"text": SECRET, "top_k": True}, "top_k"),
        ({"text": SECRET, "top_k": "3"}, "top_k"),
        ({"text": SECRET, "topk": 3}, 'an unknown key, perhaps meant as "top_k"; the keys are'),
        ({"txt": SECRET}, 'an unknown key, perhaps meant as "text"; the keys are text'),
        ({"text": "a", SECRET: 3}, "an unknown key; the keys are"),
        ({"text": "a", "top_" * 9: 3}, "an unknown key; the keys are"),
        ({"text": [SECRET] * 65}, "at most 64"),
        ({"text": SECRET + "x" * 5000}, "at most 5000"),
        ({}, "text: Field required"),
        ([SECRET], "JSON object"),
        (SECRET, "JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/predict/", "/predict"])
def test_a_wrong_body_is_a_422_that_says_what_and_repeats_nothing(
    server: Server, path: str, body: Any, says: str
) -> None:
    response = server.post(path, body)
    assert response.status_code == 422
    assert SECRET not in response.text
    error = response.json()
    assert error.keys() == {"error", "error_type"}
    assert error["error_type"] == "validation"
    assert says in error["error"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"text": NaN}', 422),
        (b'{"text": "a", "top_k": NaN}', 422),
        (b'{"text": "a", "top_k": 1e999}', 422),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "a", "\\ud800": 1}', 422),
        (b'{"text": ', 422),
        (b'{"text": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b"", 422),
    ],
)
def test_what_json_cannot_say_is_refused_without_a_fault(
    server: Server, content: bytes, status: int
) -> None:
    response = httpx.post(f"{server.url}/predict/", content=content, headers=JSON)
    assert response.status_code == status
    assert response.json().keys() == {"error", "error_type"}


def test_a_form_body_is_told_to_be_json(server: Server) -> None:
    response = httpx.post(f"{server.url}/predict/", content=b'{"text": "a"}')
    assert response.status_code == 422
    assert "application/json" in response.json()["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_a_413(server: Server, chunked: bool) -> None:
    content = b'{"text": "' + b"a" * 2_000_000 + b'"}'
    # httpx sends an iterator of bytes in chunks, without a Content-Length.
    half = len(content) // 2
    sent = iter([content[:half], content[half:]]) if chunked else content
    response = httpx.post(f"{server.url}/predict/", content=sent, headers=JSON)
    assert response.status_code == 413
    assert response.json()["error_type"] == "too_large"
    assert server.answers("/health/ready")


def test_unknown_pages_and_methods_have_the_common_error_body(server: Server) -> None:
    assert server.get("/nowhere").json()["error_type"] == "not_found"

    response = httpx.delete(f"{server.url}/predict/")
    assert response.status_code == 405
    assert response.json()["error_type"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


def test_no_other_origin_is_allowed_in(server: Server) -> None:
    response = server.get("/info", headers={"Origin": "http://elsewhere.test"})
    assert not [name for name in response.headers if name.startswith("access-control")]


# Operations


def test_info_shows_the_model_and_every_limit(server: Server) -> None:
    info = server.get("/info").json()
    assert info["labels"] == list(LABELS)
    assert info["max_length"] == MAX_LENGTH
    assert info["backbone"] == "tiny-bert"
    assert info["policy"] is None
    assert info["limits"] == LimitsSection().model_dump()
    assert info["batching"] == BatchingSection().model_dump()
    assert info["runtime"].endswith("cpu, 1 thread")
    assert info["parameters"] > 1000
    assert len(info["version"]) == 12


def test_a_repeated_text_is_answered_from_a_bounded_cache(tmp_path: Path) -> None:
    with serving(tmp_path, *WAITING, config={"cache": 2}, PYTHONPATH=WAITING_PATH) as server:
        body = {"text": ["yes a", "no b", "yes a"]}
        first = server.post("/predict/", body).json()
        assert server.post("/predict/", body).json() == first
        assert began(server) == ["yes a", "no b"]
        assert server.metric("bankintent_cached_answers_total") == 3

        # "no c" takes the place of "no b", which was sent longer ago.
        for text in ("yes a", "no c", "yes a", "no b"):
            server.post("/predict/", {"text": text})
        assert began(server) == ["yes a", "no b", "no c", "no b"]


def test_without_a_cache_every_text_is_worked_on(waiting: Server) -> None:
    waiting.post("/predict/", {"text": ["yes a", "yes a"]})
    waiting.post("/predict/", {"text": "yes a"})
    assert began(waiting) == ["yes a"] * 3


def test_metrics_count_requests_batches_tokens_and_intents(server: Server) -> None:
    names = (
        "batch_texts_sum",
        "tokens_total",
        "predictions_total",
        "requests_total",
        "request_seconds_count",
        "rejected_total",
    )
    before = {name: server.metric(f"bankintent_{name}") for name in names}
    server.post("/predict/", {"text": ["my card", "pin"]})
    server.post("/predict/", {"text": ""})
    growth = {name: server.metric(f"bankintent_{name}") - before[name] for name in names}

    assert growth["batch_texts_sum"] == 2
    assert growth["predictions_total"] == 2
    assert growth["tokens_total"] in (7, 8)  # with padding, if both went in one batch
    assert growth["requests_total"] >= 2
    assert growth["request_seconds_count"] >= 2
    assert growth["rejected_total"] == 1
    assert server.metric("bankintent_queue_texts") == 0
    assert server.metric("bankintent_held_texts") == 0
    assert server.get("/metrics").headers["Content-Type"].startswith("text/plain; version=")


def test_a_harmless_request_id_is_kept_and_another_one_replaced(server: Server) -> None:
    response = server.get("/info", headers={"X-Request-ID": "mine-1"})
    assert response.headers["X-Request-ID"] == "mine-1"
    for harmful in ("a b", "x" * 65, '"quoted"'):
        response = server.get("/info", headers={"X-Request-ID": harmful})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_the_log_has_a_line_for_each_request_and_no_text(server: Server) -> None:
    server.post("/predict/", {"text": SECRET}, headers={"X-Request-ID": "logged-1"})
    server.get(f"/{SECRET}?text={SECRET}")
    httpx.post(f"{server.url}/", data={"text": SECRET})

    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    by_id = {line.get("request_id"): line for line in lines}
    line = by_id["logged-1"]
    assert line["route"] == "/predict/"
    assert line["status"] == 200
    assert line["texts"] == 1
    assert line["tokens"] > 2
    assert SECRET not in server.log


def test_every_example_of_the_documentation_works_when_pasted(server: Server) -> None:
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    own = schemas["PredictRequest"]["examples"]
    other = schemas["TeiRequest"]["examples"]
    assert own
    assert other
    for body in own:
        assert server.post("/predict/", body).status_code == 200
    for body in own + other:
        assert server.post("/predict", body).status_code == 200


def test_the_documentation_loads_nothing_from_elsewhere(server: Server) -> None:
    docs = server.get("/docs").text
    assert "http://" not in docs
    assert "https://" not in docs


def test_the_card_is_json_for_programs_and_safe_html_for_browsers(server: Server) -> None:
    card = server.get("/card").json()
    assert card["markdown"].startswith("# tiny")
    assert card["plots"] == {"confusion": "/card/confusion.png"}
    assert server.get("/card/confusion.png").content.startswith(b"\x89PNG")
    assert server.get("/card/reliability.png").status_code == 404
    assert server.get("/card/..%2f..%2fsecret.png").status_code == 404

    page = server.get("/card", headers={"Accept": "text/html"})
    assert "<strong>card</strong>" in page.text
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text
    assert 'src="http' not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_page_works_as_a_form_and_escapes_text_and_labels(server: Server) -> None:
    response = httpx.post(f"{server.url}/", data={"text": "<b>my card</b>"})
    assert response.status_code == 200
    assert "&lt;b&gt;my card&lt;/b&gt;" in response.text
    assert "<b>" not in response.text
    assert "&lt;img src=x" in response.text
    assert HTML_LABEL not in response.text

    assert httpx.post(f"{server.url}/", data={"text": " "}).status_code == 422
    assert httpx.post(f"{server.url}/", data={"text": "x" * 6000}).status_code == 422


# Load, limits in time, and ends


def test_a_full_queue_is_a_429_while_probes_and_the_admitted_are_answered(waiting: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        file = hold(waiting)
        admitted = [pool.submit(waiting.post, "/predict/", {"text": f"yes {i}"}) for i in range(4)]
        wait_until_held(waiting, 4)

        refused = waiting.post("/predict/", {"text": "yes too many"})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error_type"] == "overloaded"
        assert waiting.answers("/health/live")
        assert waiting.answers("/health/ready")
        assert waiting.answers("/info")

        file.unlink()
        assert [call.result().json()["label"] for call in admitted] == ["yes"] * 4
    assert waiting.post("/predict/", {"text": "no"}).json()["label"] == "no"
    assert "yes too many" not in began(waiting)


def test_a_failing_text_is_a_500_without_details_and_costs_its_neighbours_nothing(
    waiting: Server,
) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        file = hold(waiting)
        texts = ["yes one", "yes poison", "no"]
        calls = [pool.submit(waiting.post, "/predict/", {"text": text}) for text in texts]
        wait_until_held(waiting, 3)
        file.unlink()
        answers = [call.result() for call in calls]

    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[1].json()["error_type"] == "internal"
    assert "poison" not in answers[1].text
    assert "poison" not in waiting.log
    assert '"type": "ValueError"' in waiting.log


def test_past_the_deadline_is_a_504_and_what_had_not_begun_is_not_done(tmp_path: Path) -> None:
    with waiting_server(tmp_path, deadline_s=1, shutdown_s=30) as server:
        file = hold(server)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            first = pool.submit(server.post, "/predict/", {"text": "yes first"})
            server.until(lambda server: began(server) == ["yes first"])
            second = server.post("/predict/", {"text": "yes second"})
            assert first.result().status_code == 504
            assert second.status_code == 504
            assert second.json()["error_type"] == "timeout"

        file.unlink()
        assert server.post("/predict/", {"text": "no third"}).status_code == 200
        assert began(server) == ["yes first", "no third"]


def test_a_client_that_leaves_takes_its_work_out_of_the_queue(waiting: Server) -> None:
    file = hold(waiting)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(waiting.post, "/predict/", {"text": "yes first"})
        waiting.until(lambda server: began(server) == ["yes first"])
        with socket.create_connection(("127.0.0.1", waiting.port)) as client:
            client.sendall(request_bytes(b'{"text": "yes gone"}'))
            wait_until_held(waiting, 2)
        wait_until_held(waiting, 1)

        file.unlink()
        assert first.result().status_code == 200
    assert waiting.post("/predict/", {"text": "no"}).status_code == 200
    assert began(waiting) == ["yes first", "no"]


def test_a_client_that_sends_too_slowly_is_a_408_and_holds_nobody_up(tmp_path: Path) -> None:
    with (
        waiting_server(tmp_path, deadline_s=1, shutdown_s=30) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(request_bytes(b'{"text": "yes slow"}')[:-5])
        assert server.post("/predict/", {"text": "yes"}).status_code == 200
        assert b" 408 " in client.recv(4096)


def request_bytes(body: bytes) -> bytes:
    lines = [
        "POST /predict/ HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def test_it_is_live_while_loading_and_ready_only_when_warm(tmp_path: Path) -> None:
    loading = tmp_path / "loading"
    loading.touch()
    held = tmp_path / "hold"
    held.touch()
    with waiting_server(tmp_path, ready=False) as server:
        response = server.post("/predict/", {"text": "yes"})
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert server.answers("/health/live")
        assert server.answers("/health/ready", 503)
        assert "still loading" in server.get("/").text

        loading.unlink()
        server.until(lambda _: (tmp_path / "started").exists())
        assert server.answers("/health/ready", 503)

        held.unlink()
        server.until(lambda server: server.answers("/health/ready"))
        assert server.post("/predict/", {"text": "yes"}).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_answers_what_was_admitted_and_ends(
    waiting: Server, number: signal.Signals
) -> None:
    with (
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        httpx.Client(base_url=waiting.url) as client,
    ):
        file = hold(waiting)
        admitted = [pool.submit(waiting.post, "/predict/", {"text": f"yes {i}"}) for i in range(4)]
        wait_until_held(waiting, 4)
        # The client keeps its connection open: the end must not wait for it.
        assert client.get("/health/ready").status_code == 200

        waiting.process.send_signal(number)
        waiting.until(lambda server: not server.answers("/health/ready"))
        file.unlink()
        assert [call.result().json()["label"] for call in admitted] == ["yes"] * 4
        waiting.process.wait(10)
    assert "Traceback" not in waiting.log
    assert '"draining"' in waiting.log


def test_a_signal_makes_it_unready_at_once_and_goes_on_to_the_servers_own_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed_on: list[int] = []

    async def scenario() -> None:
        service = Service(ServeConfig(), Metrics())
        service.state = State.READY
        with lifetime.draining_on_signals(service):
            signal.raise_signal(signal.SIGTERM)
            assert passed_on == [signal.SIGTERM]
            with pytest.raises(NotReady, match="about to end"):
                await service.classify(["a"])

    # It would end this process in a while.
    monkeypatch.setattr(lifetime, "limit_shutdown", lambda service: None)
    before = signal.signal(signal.SIGTERM, lambda number, frame: passed_on.append(number))
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_process_ends_within_the_stated_time_even_when_the_model_hangs(tmp_path: Path) -> None:
    with waiting_server(tmp_path, deadline_s=1, shutdown_s=2) as server:
        hold(server)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(server.post, "/predict/", {"text": "yes"})
            wait_until_held(server, 1)
            start = time.monotonic()
            server.process.terminate()
            server.process.wait(10)
            assert time.monotonic() - start < 4
            assert call.result().status_code == 504


def test_a_signal_while_loading_ends_the_process_within_the_stated_time(tmp_path: Path) -> None:
    (tmp_path / "loading").touch()
    with waiting_server(tmp_path, ready=False, deadline_s=1, shutdown_s=2) as server:
        start = time.monotonic()
        server.process.terminate()
        server.process.wait(10)
        assert time.monotonic() - start < 4


# Starting


def run_to_end(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a module of Python that should not come to serve."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def broken(case: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a server whose model is wrong in this way."""
    folder = tmp_path / "model"
    if case == "unset":
        return {}
    if case == "empty folder":
        folder.mkdir()
    elif case == "ETL's output":
        folder.mkdir()
        files = {name: {"sha256": "0", "size": 0} for name in ("labels.json", "train.parquet")}
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
    elif case == "a file":
        folder.write_text("text")
    elif case == "changed bundle":
        write_tiny_bundle(folder)
        (folder / "merged" / "config.json").write_text("{}")
    elif case == "unreadable weights":
        write_tiny_model(folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif case == "unnamed labels":
        write_tiny_model(folder)
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(5)}
        (folder / "config.json").write_text(json.dumps(config))
    return {"MODEL_DIR": str(folder)}


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("unset", "Set MODEL_DIR"),
        ("missing", "does not exist"),
        ("empty folder", "no bundle"),
        ("ETL's output", "is ETL's output, the data and no model. Name a bundle"),
        ("a file", "is a file, and no folder of a model. Name a bundle"),
        ("changed bundle", "config.json was changed"),
        ("unreadable weights", "cannot be loaded"),
        ("unnamed labels", "labels.json"),
    ],
)
def test_a_model_that_cannot_be_served_stops_the_start_with_one_line(
    tmp_path: Path, case: str, says: str
) -> None:
    variables = broken(case, tmp_path)
    result = run_to_end("uvicorn", "backend:app", "--port", "0", **variables)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("INFO:")]
    assert result.returncode == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def test_a_wrong_config_stops_the_start_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limit: {}\n")
    for words in (["uvicorn", "backend:app"], ["backend", "--config", str(config)]):
        result = run_to_end(*words, SERVE_CONFIG=str(config))
        assert result.returncode == 2
        assert 'did you mean "limits"' in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["backend"],
        ["bankintent", "serve"],
        ["bankintent", "score", "no.csv", "out.csv"],
        ["bankintent", "explain", "where is my card"],
    ],
    ids=" ".join,
)
def test_small_products_take_no_threads_from_the_model(words: list[str], tmp_path: Path) -> None:
    """OpenBLAS reads the variable when NumPy is imported, so it must be set by then."""
    write_tiny_model(tmp_path / "model")
    program = (
        "import os, runpy, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        "            print('threads', os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"sys.argv = {[*words, '--model-dir', str(tmp_path / 'model')]!r}\n"
        f"runpy.run_module({words[0]!r}, run_name='__main__')\n"
    )
    variables = environment()
    variables.pop("OPENBLAS_NUM_THREADS", None)
    command = [sys.executable, "-u", "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["threads 1"], result.stdout + result.stderr


def test_importing_the_backend_loads_nothing() -> None:
    program = (
        "import backend, sys\n"
        "heavy = {'torch', 'fastapi', 'transformers', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_the_limits_of_a_config_must_fit_together() -> None:
    from bankintent.errors import ConfigError

    with pytest.raises(ConfigError, match="shutdown_s is 5"):
        load(ServeConfig, None, ["limits.shutdown_s=5"])
    with pytest.raises(ConfigError, match="max_texts is 64"):
        load(ServeConfig, None, ["limits.max_queue=10"])


def test_the_shipped_config_loads_with_the_defaults() -> None:
    shipped = load(ServeConfig, ROOT / "configs" / "serve.yaml")
    assert shipped.limits == LimitsSection()
    assert shipped.batching == BatchingSection()


# The key


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server with the key `right`."""
    with serving(tmp_path, *WAITING, PYTHONPATH=WAITING_PATH, BANKINTENT_API_KEY="right") as server:
        yield server


def test_with_a_key_only_its_bearers_are_served(guarded: Server) -> None:
    for path in ("/info", "/metrics", "/card"):
        assert guarded.get(path).status_code == 401
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
        response = guarded.post("/predict/", {"text": "yes"}, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert guarded.post("/predict", {"inputs": "yes"}).status_code == 401

    right = {"Authorization": "Bearer right"}
    assert guarded.post("/predict/", {"text": "yes"}, headers=right).status_code == 200
    assert guarded.get("/info", headers=right).status_code == 200

    assert 'type="password"' in guarded.get("/").text
    page = f"{guarded.url}/"
    assert httpx.post(page, data={"text": "yes"}).status_code == 401
    assert httpx.post(page, data={"text": "yes", "key": "right"}).status_code == 200

    # Probes have no key.
    assert guarded.answers("/health/live")
    assert guarded.answers("/health/ready")
    assert "right" not in guarded.log


def test_the_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from bankintent.serving import admission
    from bankintent.serving.refusals import Unauthorized

    compared = []
    monkeypatch.setattr(admission.hmac, "compare_digest", lambda *keys: bool(compared.append(keys)))
    with pytest.raises(Unauthorized):
        admission.check_key("right", "wrong \udcff")
    assert len(compared) == 1


def test_an_empty_key_stops_the_start(tmp_path: Path) -> None:
    variables = {"BANKINTENT_API_KEY": " ", "MODEL_DIR": str(tmp_path)}
    result = run_to_end("uvicorn", "backend:app", "--port", "0", **variables)
    assert result.returncode == 2
    assert "BANKINTENT_API_KEY is set but empty" in result.stderr
