"""The benchmarks work and their tables say what the records hold; nothing here is timed."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from conftest import Run

from bankintent.errors import UserError
from bankintent.inference.runtime import Outputs
from bankintent.process import free_port
from benchmarks import __main__ as everything
from benchmarks import (
    bare_apps,
    decision,
    head_only,
    load,
    machine,
    report,
    request,
    scoring,
    servers,
    serving,
    steps,
    training,
)
from benchmarks.load import Endpoint
from benchmarks.tables import Table, markdown

PEAK = {"float32": 1e12, "bf16": 2e12, "int8": 4e12}
MACHINE = {
    "date": "2026-01-02",
    "cores": 2,
    "machine": "x86_64",
    "processor": "A CPU",
    "system": "Linux",
    "python": "3.11.1",
    "libraries": {"torch": "2.0"},
}


@contextlib.contextmanager
def listening(app: Any) -> Iterator[int]:
    """An ASGI app on a free port, in a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join()


def failing(share: int, sent: list[Any]) -> Any:
    """An app that keeps what it is sent and refuses every `share`-th request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        sent.append((scope["path"], json.loads(message["body"])))
        status = 503 if len(sent) % share == 0 else 200
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", b"2")],
            }
        )
        await send({"type": "http.response.body", "body": b"{}"})

    return app


def test_the_load_generator_counts_what_it_sends() -> None:
    sent: list[Any] = []
    with listening(failing(4, sent)) as port:
        endpoint = Endpoint(port, "/classify", lambda text: {"input": [text]})
        found = asyncio.run(load.measure("x", endpoint, 3, ["a", "b"], most=28, seconds=60))
    warm = 4 * 3
    assert len(sent) == warm + 28
    assert (found.requests, found.errors) == (21, 7)
    assert {path for path, _ in sent} == {"/classify"}
    assert sorted(body["input"][0] for _, body in sent[warm:]) == ["a"] * 14 + ["b"] * 14
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.requests_per_second == pytest.approx(21 / found.seconds)
    assert found.client_cores > 0


def test_a_server_that_answers_nothing_is_no_measurement() -> None:
    with (
        listening(failing(1, [])) as port,
        pytest.raises(UserError, match="all 12 requests failed"),
    ):
        asyncio.run(load.measure("x", Endpoint(port), 3, ["a"], most=12, seconds=60))
    with pytest.raises(UserError, match="the server is gone"):
        asyncio.run(load.measure("x", Endpoint(port), 1, ["a"], most=1, seconds=60))


def test_servers_are_started_compared_and_loaded(tmp_path: Path) -> None:
    contenders = request.find_contenders(tmp_path, "auto")[:2]  # the apps without a model
    found = serving.measure_load(contenders, [1, 2], ["a", "b"], requests=5, seconds=60, rounds=1)
    assert found["agreement_with_naive"] == {"constant": 1.0}
    assert [
        (m["clients"], m["server"], m["requests"], m["errors"]) for m in found["measurements"]
    ] == [
        (1, "empty", 5, 0),
        (1, "constant", 5, 0),
        (2, "empty", 5, 0),
        (2, "constant", 5, 0),
    ]
    assert all(server["memory_mb"] > 1 for server in found["servers"])
    assert found["servers"][1]["runtime"] == "constant, float32"


def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    contender = servers.ours("auto", tmp_path / "none", "auto")
    with (
        pytest.raises(UserError, match=r'the server "auto" did not start: error: .*none'),
        servers.running(contender),
    ):
        pass


def test_the_floor_counts_the_matrices_of_the_encoder(tiny_bert: Path) -> None:
    hidden, inner, layers = 32, 48, 2
    assert machine.flops_per_token(tiny_bert) == 2 * layers * (
        4 * hidden * hidden + 2 * hidden * inner
    )


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mkldnn_linear", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::native_dropout", "dropout"),
        ("aten::bernoulli_", "dropout"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::native_layer_norm_backward", "normalisation"),
        ("aten::copy_", "copies and casts"),
        ("aten::mul", steps.OTHER),
    ],
)
def test_operations_are_sorted_by_kind(operation: str, kind: str) -> None:
    assert steps.kind_of(operation) == kind


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> None:
    """The training benchmarks on a tiny encoder, with small batches."""
    for module in (training, head_only):
        monkeypatch.setattr(module, "MODEL", str(tiny_bert))
        monkeypatch.setattr(module, "MAX_LENGTH", 32)
    monkeypatch.setattr(training, "BATCH", 4)
    monkeypatch.setattr(machine, "peak", lambda: PEAK)


@pytest.mark.filterwarnings(
    "ignore:.*pin_memory.*:UserWarning"
)  # stock Trainers are left as they come
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("contender", ["stock-default", "stock-lora", "full-ft", "lora"])
def test_every_contender_trains(contender: str, data_dir: Path) -> None:
    found = training.contend(
        {"contender": contender, "data_dir": str(data_dir), "sentences": 8, "epochs": 1}
    )
    assert found["sentences_per_second"] == pytest.approx(8 / found["seconds"])
    assert found["useful_flops_per_second"] > 0 and found["peak_memory_bytes"] > 2**20
    assert 0 <= found["accuracy"] <= 1


@pytest.mark.usefixtures("tiny")
def test_a_frozen_weight_costs_four_operations_and_a_trained_one_six(data_dir: Path) -> None:
    full, lora = (
        training.prepare(regime, data_dir, 4, 1).flops_per_token for regime in ("full-ft", "lora")
    )
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    adapters = 2 * training.LORA.r * (4 * (32 + 32) + 2 * (32 + 48))
    assert (full, lora) == (6 * weights, 4 * weights + 6 * adapters)


@pytest.mark.usefixtures("tiny")
def test_a_profile_accounts_for_the_whole_step(data_dir: Path) -> None:
    found = steps.profile({"regime": "full-ft", "data_dir": str(data_dir), "steps": 2})
    assert {"matrix products", "attention", "dropout", "optimizer", steps.HOST} <= set(
        found["kinds"]
    )
    assert sum(found["kinds"].values()) == pytest.approx(found["profiled_seconds"])
    record = {"steps": 2, "peak": PEAK, "machine": MACHINE, "profiles": {"full-ft": found}}
    assert "matrix products" in markdown(steps.make_tables(record)[0])


@pytest.mark.usefixtures("tiny")
def test_head_only_runs_the_encoder_once(data_dir: Path, tmp_path: Path) -> None:
    job = {"data_dir": str(data_dir), "epochs": 2, "cache": str(tmp_path / "cache")}
    first, second = head_only.train(job), head_only.train(job)
    assert first["encoder_seconds"] > 0
    assert second["encoder_seconds"] == 0
    assert first["start_seconds"] + first["epochs_seconds"] == pytest.approx(first["seconds"])


@pytest.mark.usefixtures("tiny")
def test_scoring_writes_its_record(bundle: Path, run: Run) -> None:
    result = run(
        scoring.main,
        "--model-dir",
        bundle,
        "--rows",
        64,
        "--rounds",
        1,
        "--output",
        "out/scoring.json",
    )
    assert result.code == 0, result.err
    record = json.loads(Path("out/scoring.json").read_text())
    assert [m["way"] for m in record["measurements"]] == ["bulk", ".parquet", ".csv"]
    assert "of the floor" in result.out


def test_a_request_can_be_taken_apart() -> None:
    model = bare_apps.ConstantRuntime()
    found = {
        "body": request.body_cost(model, ["a", "b"]),
        **request.model_cost(model, ["a", "b"] * 8),
    }
    found |= {"empty": 0.1, "constant": 0.5, "whole": 5.0}
    assert found["body"] > 0
    table = request.make_tables({"clients": 32, "runtime": "constant", "milliseconds": found})[0]
    parts = [float(row[1]) for row in table.rows]
    assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=0.01)


def measured(
    server: str, clients: int, rate: float, p50: float = 10.0, p99: float = 20.0
) -> dict[str, Any]:
    return {
        "server": server,
        "clients": clients,
        "requests": 10,
        "errors": 0,
        "seconds": 1.0,
        "requests_per_second": rate,
        "p50_ms": p50,
        "p99_ms": p99,
        "client_cores": 0.5,
    }


def serving_record() -> dict[str, Any]:
    names = ("naive", "auto")
    start = {"ready_seconds": 1.5, "answer_seconds": 1.6, "memory_mb": 250.0}
    bulk = {
        "server": "auto",
        "precision": "bf16",
        "flops_per_sentence": 4e8,
        "tokens_per_sentence": 16.0,
        "batch": 8,
    }
    return {
        "model": {"name": "quickstart", "parity": None},
        "machine": MACHINE,
        "peak": PEAK,
        "bulk": [{**bulk, "sentences_per_second": 1000.0}],
        "starts": [{"server": name, **start} for name in names],
        "servers": [{"server": name, "runtime": f"{name}'s", "memory_mb": 300.0} for name in names],
        "agreement_with_naive": {"auto": 1.0},
        "measurements": [
            *(measured("naive", clients, 50, p50=11.0) for clients in (1, 32)),
            measured("auto", 1, 200, p99=5.5),
            *(measured("auto", 32, rate) for rate in (420, 400, 380)),
        ],
    }


def training_record() -> dict[str, Any]:
    rates = {
        "stock, defaults": 10.0,
        "stock, tuned": 90.0,
        "ours, full-ft": 110.0,
        "ours, LoRA": 132.0,
    }
    run = {"precision": "bf16", "threads": 2, "accuracy": 0.8, "peak_memory_bytes": 2**30}
    results = {
        name: [{**run, "sentences_per_second": rate, "useful_flops_per_second": rate * 1e10}]
        for name, rate in rates.items()
    }
    return {"machine": MACHINE, "peak": PEAK, "sentences": 1024, "epochs": 3, "results": results}


def cells(text: str, first: str) -> list[str]:
    """The cells of the first row of a report that begins with a cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_sets_what_was_measured_beside_the_targets() -> None:
    parts = json.loads(json.dumps({"training": training_record(), "serving": serving_record()}))
    text = report.render(parts, {"request": "it ended with code 2"})
    assert text == report.render(parts, {"request": "it ended with code 2"})
    assert "2026-01-02, A CPU, 2 cores, Linux" in text
    assert "**request failed:** it ended with code 2" in text
    assert cells(text, "full-ft: rate of a stock Trainer")[1:] == ["at least 12 x", "11 x", "no"]
    assert cells(text, "LoRA: rate of full-ft")[1:] == ["at least 1 x", "1.2 x", "yes"]
    assert cells(text, "API, 32 clients: rate of the naive app")[1:] == [
        "at least 8 x",
        "8 x",
        "yes",
    ]
    assert cells(text, "API, one client: p99 over the naive app's p50")[1:] == [
        "at most 1 x",
        "0.5 x",
        "yes",
    ]
    # 400 requests/s of 1000 sentences/s on the 1.5 of 2 cores that the load generator leaves.
    assert cells(text, "API, 32 clients: of bulk on the cores left")[1:] == [
        "at least 75 %",
        "53.3 %",
        "no",
    ]
    assert cells(text, "ours, full-ft")[3] == "11.0"
    assert "infinity" not in text and "student" not in text and "head-only" not in text


def test_markdown_tables_are_aligned() -> None:
    text = markdown(
        Table("A title", ["name", "figure"], [["a|b", "1.5"], ["longer", "22.0"]], "A note.")
    )
    assert text == (
        "### A title\n\n"
        "| name   | figure |\n"
        "| ------ | -----: |\n"
        "| a\\|b   |    1.5 |\n"
        "| longer |   22.0 |\n"
        "\nA note.\n"
    )


def test_one_failure_does_not_lose_the_others(
    bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path("out")
    out.mkdir()
    (out / "serving.json").write_text(json.dumps(serving_record()))
    (out / "scoring.json").write_text(
        "{}"
    )  # of an earlier run: it must not be taken for a result of this one
    monkeypatch.setattr(everything, "SMOKE", {"scoring": ["--rows", "none"]})
    result = run(
        everything.main, "--smoke", "--only", "scoring", "--model-dir", bundle, "--output-dir", out
    )
    assert "scoring failed" in result.one_line_error()
    results = json.loads((out / "results.json").read_text())
    assert set(results["parts"]) == {"serving"} and results["failed"] == {
        "scoring": "it ended with code 2"
    }
    assert "**scoring failed:**" in (out / "report.md").read_text()


def test_wrong_options_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for command, words, said in (
        (serving.main, ["--model-dir", nothing], "does not exist"),
        (serving.main, ["--model-dir", nothing, "--runtimes", "fast"], "no runtime is called fast"),
        (training.main, ["--contender", "mine"], 'there is no contender "mine"'),
        (training.main, ["--data-dir", nothing], "nothing"),
        (everything.main, ["--only", "cooking"], 'there is no benchmark "cooking"'),
        (everything.main, ["--only", "scoring", "--model-dir", nothing], "does not exist"),
    ):
        assert said in run(command, *words).one_line_error()


class Constant:
    """A runtime that answers every text alike."""

    def tokenize(self, texts: list[str]) -> list[str]:
        return texts

    def outputs(self, texts: list[str]) -> Outputs:
        return Outputs(np.zeros((len(texts), 3), dtype=np.float32), None)


def test_deciding_is_timed_with_every_policy() -> None:
    policies = decision.make_policies(("a", "b", "c"), decision.WIDTH)
    timings = decision.measure(Constant(), policies, batch=2, rounds=6)  # type: ignore[arg-type]
    assert [timing.policy for timing in timings] == list(decision.WEIGHTS)
    for timing in timings:
        assert timing.interval[0] <= timing.ratio <= timing.interval[1]
