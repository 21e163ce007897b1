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
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving_fixtures import (
    HTML_LABEL,
    LABELS,
    MAX_LENGTH,
    ROOT,
    Server,
    environment,
    serving,
    write_evaluation,
    write_tiny_bundle,
    write_tiny_model,
)

from bankintent.config import BatchingSection, LimitsSection, ServeConfig
from bankintent.configfile import load
from bankintent.serving.app import draining_on_signals
from bankintent.serving.limits import NotReady
from bankintent.serving.service import Service, State, find_model

WAITING = ("--factory", "serving_fixtures:waiting_app")
SECRET = "sekretsentence"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_evaluation(folder / "evals", bundle.name)
    with serving(
        folder, MODEL_DIR=str(bundle), config={"evals_dir": str(folder / "evals")}
    ) as server:
        yield server


@pytest.fixture
def waiting(tmp_path):
    """A server whose model works only while the file `hold` is absent; a short deadline and a short queue."""
    with waiting_server(tmp_path, max_queue=4, max_texts=4, deadline_s=20, shutdown_s=30) as server:
        yield server


def waiting_server(folder: Path, *, ready: bool = True, **limits: float):
    tests = str(ROOT / "tests")
    return serving(
        folder, *WAITING, ready=ready, config={"limits": limits}, PYTHONPATH=f"{ROOT}:{tests}"
    )


def hold(server: Server) -> Path:
    file = server.log_file.parent / "hold"
    file.touch()
    return file


def began(server: Server) -> list[str]:
    """The texts whose work has begun since the warm-up."""
    lines = (server.log_file.parent / "started").read_text().splitlines()
    return [line for line in lines if "text" not in line]


# Answers


def test_a_text_gets_its_intent_and_the_best_few(server):
    response = server.post("/predict/", {"text": "my card has not arrived", "top_k": 2})
    body = response.json()
    assert response.status_code == 200
    assert body.keys() == {"label", "score", "top_k", "truncated", "model"}
    assert body["label"] == body["top_k"][0]["label"] and body["score"] == body["top_k"][0]["score"]
    assert len(body["top_k"]) == 2 and body["top_k"][0]["score"] >= body["top_k"][1]["score"]
    assert body["truncated"] is False and body["model"]["name"] == "tiny"


def test_a_list_gives_a_list_in_order_and_top_k_beyond_the_labels_gives_all(server):
    texts = ["my card", "change pin", "lost"]
    many = server.post("/predict/", {"text": texts, "top_k": 99}).json()
    one_by_one = [server.post("/predict/", {"text": text, "top_k": 99}).json() for text in texts]
    assert [answer["label"] for answer in many] == [answer["label"] for answer in one_by_one]
    assert all(len(answer["top_k"]) == len(LABELS) for answer in many)
    assert sum(score["score"] for score in many[0]["top_k"]) == pytest.approx(1, abs=1e-5)


def test_a_long_text_is_cut_and_says_so(server):
    exact = " ".join(["card"] * (MAX_LENGTH - 2))
    answers = server.post("/predict/", {"text": [exact, f"{exact} card"]}).json()
    assert [answer["truncated"] for answer in answers] == [False, True]


def test_the_other_predict_takes_the_same_body(server):
    body = {"text": "my card", "top_k": 3}
    assert server.post("/predict", body).json() == server.post("/predict/", body).json()


def test_the_inference_servers_body_gets_its_shapes(server):
    single = server.post("/predict", {"inputs": "my card", "parameters": {"anything": 1}}).json()
    assert [set(score) for score in single] == [{"label", "score"}] * len(LABELS)
    assert [score["score"] for score in single] == sorted(
        (score["score"] for score in single), reverse=True
    )
    assert server.post("/predict", {"inputs": ["my card"]}).json() == single
    batch = server.post(
        "/predict", {"inputs": [["my card"], ["change pin"]], "truncate": None}
    ).json()
    assert len(batch) == 2 and batch[0] == single
    raw = server.post("/predict", {"inputs": "my card", "raw_scores": True}).json()
    assert [score["label"] for score in raw] == [score["label"] for score in single]
    assert np.exp([score["score"] for score in raw]) / np.exp(
        [s["score"] for s in raw]
    ).sum() == pytest.approx([score["score"] for score in single], abs=1e-5)


@pytest.mark.parametrize("inputs", [["a", "b"], [["a", "b"]], [["x"], ["a", "b"]]])
def test_a_pair_is_refused_with_the_way_to_write_a_batch(server, inputs):
    response = server.post("/predict", {"inputs": inputs})
    assert response.status_code == 422
    assert 'write a batch as [["a"], ["b"]]' in response.json()["error"]


def test_truncate_false_refuses_what_would_be_cut(server):
    response = server.post("/predict", {"inputs": "card " * 100, "truncate": False})
    assert response.status_code == 422 and "32 tokens" in response.json()["error"]
    assert server.post("/predict", {"inputs": "card", "truncate": False}).status_code == 200


def test_a_thousand_concurrent_texts_each_get_their_own_answer(server, bundle):
    texts = [f"{'my card ' * (i % 12)}number {i * 7919}" for i in range(1000)]
    predictor = find_model(ServeConfig(model_dir=bundle, threads=1))()
    expected = [predictor.logits(predictor.tokenize([text]))[0] for text in texts]
    with httpx.Client(
        base_url=server.url, limits=httpx.Limits(max_connections=100), timeout=60
    ) as client:

        def ask(text: str) -> dict[str, float]:
            scores = client.post("/predict", json={"inputs": text, "raw_scores": True}).json()
            return {score["label"]: score["score"] for score in scores}

        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, texts))
    found = np.array([[answer[label] for label in LABELS] for answer in answers])
    assert np.abs(found - np.array(expected)).max() < 1e-4
    assert len({tuple(row) for row in found.round(4)}) > 900
    assert server.metric("bankintent_batch_texts_count") < server.metric(
        "bankintent_batch_texts_sum"
    )


def test_a_bundle_and_its_merged_folder_are_the_same_model(bundle, tmp_path):
    whole, merged = (
        find_model(ServeConfig(model_dir=folder, threads=1))()
        for folder in (bundle, bundle / "merged")
    )
    assert whole.facts == merged.facts
    plain = find_model(ServeConfig(model_dir=write_tiny_model(tmp_path / "plain"), threads=1))()
    assert plain.facts.labels == LABELS and plain.facts.backbone == "bert"


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
        ({"text": SECRET, "topk": 3}, "unknown key"),
        ({"text": [SECRET] * 65}, "at most 64"),
        ({"text": SECRET + "x" * 5000}, "at most 5000"),
        ({}, "text: Field required"),
        ([SECRET], "JSON object"),
        (SECRET, "JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/predict/", "/predict"])
def test_a_wrong_body_is_a_422_that_says_what_and_repeats_nothing(server, path, body, says):
    response = server.post(path, body)
    assert response.status_code == 422
    assert (
        response.json().keys() == {"error", "error_type"}
        and response.json()["error_type"] == "validation"
    )
    assert says in response.json()["error"]
    assert SECRET not in response.text


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
def test_what_json_cannot_say_is_refused_without_a_fault(server, content, status):
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{server.url}/predict/", content=content, headers=headers)
    assert response.status_code == status and response.json().keys() == {"error", "error_type"}


def test_a_form_body_is_told_to_be_json(server):
    response = httpx.post(f"{server.url}/predict/", content=b'{"text": "a"}')
    assert response.status_code == 422 and "application/json" in response.json()["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_a_413(server, chunked):
    content = b'{"text": "' + b"a" * 2_000_000 + b'"}'
    parts = (content[i : i + 65536] for i in range(0, len(content), 65536)) if chunked else content
    response = httpx.post(
        f"{server.url}/predict/", content=parts, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413 and response.json()["error_type"] == "too_large"
    assert server.answers("/health/ready")


def test_unknown_pages_and_methods_have_the_common_error_body(server):
    assert server.get("/nowhere").json()["error_type"] == "not_found"
    response = httpx.delete(f"{server.url}/predict/")
    assert response.status_code == 405 and response.json()["error_type"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


def test_no_other_origin_is_allowed_in(server):
    response = server.get("/info", headers={"Origin": "http://elsewhere.test"})
    assert not [name for name in response.headers if name.startswith("access-control")]


# Operations


def test_info_shows_the_model_and_every_limit(server):
    info = server.get("/info").json()
    assert (
        info["labels"] == list(LABELS)
        and info["max_length"] == MAX_LENGTH
        and info["backbone"] == "tiny-bert"
    )
    assert (
        info["limits"] == LimitsSection().model_dump()
        and info["batching"] == BatchingSection().model_dump()
    )
    assert (
        info["runtime"].endswith("cpu, 1 thread")
        and info["parameters"] > 1000
        and len(info["version"]) == 12
    )


def test_a_repeated_text_is_answered_from_a_bounded_cache(tmp_path):
    tests = str(ROOT / "tests")
    with serving(tmp_path, *WAITING, config={"cache": 2}, PYTHONPATH=f"{ROOT}:{tests}") as server:
        first = server.post("/predict/", {"text": ["yes a", "no b", "yes a"]}).json()
        assert first == server.post("/predict/", {"text": ["yes a", "no b", "yes a"]}).json()
        assert began(server) == ["yes a", "no b"]
        assert server.metric("bankintent_cached_answers_total") == 3
        for text in (
            "yes a",
            "no c",
            "yes a",
            "no b",
        ):  # "no c" takes the place of "no b", asked longer ago
            server.post("/predict/", {"text": text})
        assert began(server) == ["yes a", "no b", "no c", "no b"]


def test_without_a_cache_every_text_is_worked_on(waiting):
    waiting.post("/predict/", {"text": ["yes a", "yes a"]})
    waiting.post("/predict/", {"text": "yes a"})
    assert began(waiting) == ["yes a"] * 3


def test_metrics_count_requests_batches_tokens_and_intents(server):
    names = (
        "batch_texts_sum",
        "tokens_total",
        "predictions_total",
        "requests_total",
        "request_seconds_count",
    )
    before = {name: server.metric(f"bankintent_{name}") for name in names}
    refused = server.metric("bankintent_rejected_total")
    server.post("/predict/", {"text": ["my card", "pin"]})
    server.post("/predict/", {"text": ""})
    grown = {name: server.metric(f"bankintent_{name}") - before[name] for name in names}
    assert grown["batch_texts_sum"] == grown["predictions_total"] == 2
    assert grown["tokens_total"] in (7, 8)
    assert grown["requests_total"] >= 2 and grown["request_seconds_count"] >= 2
    assert server.metric("bankintent_rejected_total") == refused + 1
    assert server.metric("bankintent_queue_texts") == server.metric("bankintent_held_texts") == 0
    assert server.get("/metrics").headers["Content-Type"].startswith("text/plain; version=")


def test_a_request_id_is_kept_or_made_and_the_log_has_it_but_no_text(server):
    given = server.post("/predict/", {"text": SECRET}, headers={"X-Request-ID": "mine-1"})
    assert given.headers["X-Request-ID"] == "mine-1"
    for bad in ("a b", "x" * 65, '"quoted"'):
        assert re.fullmatch(
            "[0-9a-f]{32}",
            server.get("/info", headers={"X-Request-ID": bad}).headers["X-Request-ID"],
        )
    server.get(f"/{SECRET}?text={SECRET}")
    httpx.post(f"{server.url}/", data={"text": SECRET})
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    line = next(line for line in lines if line.get("request_id") == "mine-1")
    assert (
        line["route"] == "/predict/"
        and line["status"] == 200
        and line["texts"] == 1
        and line["tokens"] > 2
    )
    assert SECRET not in server.log


def test_every_example_of_the_documentation_works_when_pasted(server):
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    own, other = schemas["PredictRequest"]["examples"], schemas["TeiRequest"]["examples"]
    assert own and other
    assert [server.post("/predict/", body).status_code for body in own] == [200] * len(own)
    assert [server.post("/predict", body).status_code for body in own + other] == [200] * len(
        own + other
    )
    docs = server.get("/docs").text
    assert "http://" not in docs and "https://" not in docs


def test_the_card_is_json_for_programs_and_safe_html_for_browsers(server):
    card = server.get("/card").json()
    assert card["markdown"].startswith("# tiny") and card["plots"] == {
        "confusion": "/card/confusion.png"
    }
    assert server.get("/card/confusion.png").content.startswith(b"\x89PNG")
    assert server.get("/card/reliability.png").status_code == 404
    assert server.get("/card/..%2f..%2fsecret.png").status_code == 404
    page = server.get("/card", headers={"Accept": "text/html"})
    assert "<strong>card</strong>" in page.text and "&lt;script&gt;" in page.text
    assert "<script>" not in page.text and 'src="http' not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_page_works_as_a_form_and_escapes_text_and_labels(server):
    response = httpx.post(f"{server.url}/", data={"text": "<b>my card</b>"})
    assert response.status_code == 200
    assert "&lt;b&gt;my card&lt;/b&gt;" in response.text and "<b>" not in response.text
    assert "&lt;img src=x" in response.text and HTML_LABEL not in response.text
    assert httpx.post(f"{server.url}/", data={"text": " "}).status_code == 422
    assert httpx.post(f"{server.url}/", data={"text": "x" * 6000}).status_code == 422


# Load, limits in time, and ends


def test_a_full_queue_is_a_429_while_probes_and_the_admitted_are_answered(waiting):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        held = hold(waiting)
        admitted = [pool.submit(waiting.post, "/predict/", {"text": f"yes {i}"}) for i in range(4)]
        waiting.until(lambda s: s.metric("bankintent_held_texts") == 4)
        refused = waiting.post("/predict/", {"text": "yes too many"})
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error_type"] == "overloaded"
        assert (
            waiting.answers("/health/live")
            and waiting.answers("/health/ready")
            and waiting.answers("/info")
        )
        held.unlink()
        assert [call.result().json()["label"] for call in admitted] == ["yes"] * 4
    assert waiting.post("/predict/", {"text": "no"}).json()["label"] == "no"
    assert "yes too many" not in began(waiting)


def test_a_failing_text_is_a_500_without_details_and_costs_its_neighbours_nothing(waiting):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        held = hold(waiting)
        texts = ["yes one", "yes poison", "no"]
        calls = [pool.submit(waiting.post, "/predict/", {"text": text}) for text in texts]
        waiting.until(lambda s: s.metric("bankintent_held_texts") == 3)
        held.unlink()
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[1].json()["error_type"] == "internal" and "poison" not in answers[1].text
    assert "poison" not in waiting.log and '"type": "ValueError"' in waiting.log


def test_past_the_deadline_is_a_504_and_what_had_not_begun_is_not_done(tmp_path):
    with waiting_server(tmp_path, deadline_s=1, shutdown_s=30) as server:
        held = hold(server)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            first = pool.submit(server.post, "/predict/", {"text": "yes first"})
            server.until(lambda s: began(s) == ["yes first"])
            second = server.post("/predict/", {"text": "yes second"})
            assert second.status_code == first.result().status_code == 504
            assert second.json()["error_type"] == "timeout"
        held.unlink()
        assert server.post("/predict/", {"text": "no third"}).status_code == 200
        assert began(server) == ["yes first", "no third"]


def test_a_client_that_leaves_takes_its_work_out_of_the_queue(waiting):
    held = hold(waiting)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(waiting.post, "/predict/", {"text": "yes first"})
        waiting.until(lambda s: began(s) == ["yes first"])
        with socket.create_connection(("127.0.0.1", waiting.port)) as client:
            client.sendall(request_bytes(b'{"text": "yes gone"}'))
            waiting.until(lambda s: s.metric("bankintent_held_texts") == 2)
        waiting.until(lambda s: s.metric("bankintent_held_texts") == 1)
        held.unlink()
        assert first.result().status_code == 200
    assert waiting.post("/predict/", {"text": "no"}).status_code == 200
    assert began(waiting) == ["yes first", "no"]


def test_a_client_that_sends_too_slowly_is_a_408_and_holds_nobody_up(tmp_path):
    with (
        waiting_server(tmp_path, deadline_s=1, shutdown_s=30) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(request_bytes(b'{"text": "yes slow"}')[:-5])
        assert server.post("/predict/", {"text": "yes"}).status_code == 200
        assert b" 408 " in client.recv(4096)


def request_bytes(body: bytes) -> bytes:
    head = f"POST /predict/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_it_is_live_while_loading_and_ready_only_when_warm(tmp_path):
    loading = tmp_path / "loading"
    loading.touch()
    held = tmp_path / "hold"
    held.touch()
    with waiting_server(tmp_path, ready=False) as server:

        def unready() -> None:
            response = server.post("/predict/", {"text": "yes"})
            assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
            assert server.answers("/health/live") and server.answers("/health/ready", 503)
            assert "still loading" in server.get("/").text

        unready()
        loading.unlink()
        server.until(lambda s: (tmp_path / "started").exists())
        assert server.answers("/health/ready", 503)
        held.unlink()
        server.until(lambda s: s.answers("/health/ready"))
        assert server.post("/predict/", {"text": "yes"}).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_answers_what_was_admitted_and_ends(waiting, number):
    with (
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        httpx.Client(base_url=waiting.url) as kept,
    ):
        held = hold(waiting)
        admitted = [pool.submit(waiting.post, "/predict/", {"text": f"yes {i}"}) for i in range(4)]
        waiting.until(lambda s: s.metric("bankintent_held_texts") == 4)
        assert kept.get("/health/ready").status_code == 200
        waiting.process.send_signal(number)
        waiting.until(lambda s: not s.answers("/health/ready"))
        held.unlink()
        assert [call.result().json()["label"] for call in admitted] == ["yes"] * 4
        waiting.process.wait(10)
    assert "Traceback" not in waiting.log and '"draining"' in waiting.log


def test_a_signal_makes_it_unready_at_once_and_goes_on_to_the_servers_own_handler(monkeypatch):
    async def scenario() -> None:
        service = Service(ServeConfig())
        service.state = State.READY
        with draining_on_signals(service):
            signal.raise_signal(signal.SIGTERM)
            assert passed_on == [signal.SIGTERM]
            with pytest.raises(NotReady, match="about to end"):
                await service.classify(["a"])

    monkeypatch.setattr(Service, "drain", lambda self: None)  # it would end this process in a while
    passed_on: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: passed_on.append(number))
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_process_ends_within_the_stated_time_even_when_the_model_hangs(tmp_path):
    with waiting_server(tmp_path, deadline_s=1, shutdown_s=2) as server:
        hold(server)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(server.post, "/predict/", {"text": "yes"})
            server.until(lambda s: s.metric("bankintent_held_texts") == 1)
            start = time.monotonic()
            server.process.terminate()
            server.process.wait(10)
            assert time.monotonic() - start < 4
            assert call.result().status_code == 504


def test_a_signal_while_loading_ends_the_process_within_the_stated_time(tmp_path):
    (tmp_path / "loading").touch()
    with waiting_server(tmp_path, ready=False, deadline_s=1, shutdown_s=2) as server:
        start = time.monotonic()
        server.process.terminate()
        server.process.wait(10)
        assert time.monotonic() - start < 4


# Starting


def broken(case: str, tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "model"
    if case == "unset":
        return {}
    if case == "empty folder":
        folder.mkdir()
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
        ("changed bundle", "config.json was changed"),
        ("unreadable weights", "cannot be loaded"),
        ("unnamed labels", "labels.json"),
    ],
)
def test_a_model_that_cannot_be_served_stops_the_start_with_one_line(tmp_path, case, says):
    env = environment(**broken(case, tmp_path))
    command = [sys.executable, "-m", "uvicorn", "backend:app", "--port", "0"]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("INFO:")]
    assert result.returncode == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0]


def test_a_wrong_config_stops_the_start_with_one_line(tmp_path):
    (tmp_path / "serve.yaml").write_text("limit: {}\n")
    env = environment(SERVE_CONFIG=str(tmp_path / "serve.yaml"))
    for command in (
        ["uvicorn", "backend:app"],
        ["backend", "--config", str(tmp_path / "serve.yaml")],
    ):
        result = subprocess.run(
            [sys.executable, "-m", *command],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 2 and 'did you mean "limits"' in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_importing_the_backend_loads_nothing():
    code = "import backend, sys; print([m for m in ('torch', 'fastapi', 'transformers', 'numpy') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_the_limits_of_a_config_must_fit_together():
    from bankintent.errors import ConfigError

    with pytest.raises(ConfigError, match="shutdown_s is 5"):
        load(ServeConfig, None, ["limits.shutdown_s=5"])
    with pytest.raises(ConfigError, match="max_texts is 64"):
        load(ServeConfig, None, ["limits.max_queue=10"])


def test_the_shipped_config_loads_with_the_defaults():
    shipped = load(ServeConfig, ROOT / "configs" / "serve.yaml")
    assert shipped.limits == LimitsSection() and shipped.batching == BatchingSection()


# The key


def test_with_a_key_only_its_bearers_are_served(tmp_path):
    tests = str(ROOT / "tests")
    with serving(
        tmp_path, *WAITING, PYTHONPATH=f"{ROOT}:{tests}", BANKINTENT_API_KEY="right"
    ) as server:
        for path in ("/info", "/metrics", "/card"):
            assert server.get(path).status_code == 401
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            response = server.post("/predict/", {"text": "yes"}, headers=headers)
            assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
        assert server.post("/predict", {"inputs": "yes"}).status_code == 401
        right = {"Authorization": "Bearer right"}
        assert server.post("/predict/", {"text": "yes"}, headers=right).status_code == 200
        assert server.get("/info", headers=right).status_code == 200
        assert server.answers("/health/live") and server.answers("/health/ready")
        assert 'type="password"' in server.get("/").text
        assert httpx.post(f"{server.url}/", data={"text": "yes"}).status_code == 401
        assert httpx.post(f"{server.url}/", data={"text": "yes", "key": "right"}).status_code == 200
        assert "right" not in server.log


def test_the_key_is_compared_in_constant_time(monkeypatch):
    from bankintent.serving import admission
    from bankintent.serving.limits import Unauthorized

    compared = []
    monkeypatch.setattr(admission.hmac, "compare_digest", lambda *keys: bool(compared.append(keys)))
    with pytest.raises(Unauthorized):
        admission.check_key("right", "wrong \udcff")
    assert len(compared) == 1


def test_an_empty_key_stops_the_start(tmp_path):
    env = environment(BANKINTENT_API_KEY=" ", MODEL_DIR=str(tmp_path))
    command = [sys.executable, "-m", "uvicorn", "backend:app", "--port", "0"]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "BANKINTENT_API_KEY is set but empty" in result.stderr
