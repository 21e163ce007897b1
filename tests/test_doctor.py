"""`python -m bankintent doctor`: each check says what it found, none ends the others, and no secret is shown."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run

from bankintent import __main__ as verbs
from bankintent import hub
from bankintent.config import TrackingConfig, TrainConfig
from bankintent.errors import SourceUnavailable
from bankintent.first_steps import checks, doctor, libraries, library_checks, machine
from bankintent.first_steps.finding import Finding, run_bounded
from bankintent.public_names import without_secrets

OK = [Finding("imports", "ok", "all work")]
PROBLEM = [Finding("torch", "problem", "cannot be imported: no such file", "reinstall it")]


def settings(**more: Any) -> TrainConfig:
    values: dict[str, Any] = {"model_name": "tiny", "regime": "lora", "output_dir": "models/x"}
    return TrainConfig.model_validate(values | more)


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Finding]], None]:
    """Sets what the check of libraries finds, which takes seconds."""

    def find(findings: list[Finding]) -> None:
        monkeypatch.setattr(library_checks, "check_libraries", lambda _: findings)

    return find


def test_all_checks_are_shown_and_notes_are_no_failure(
    run: Run, imports: Callable[[list[Finding]], None]
) -> None:
    imports(OK)
    result = run(verbs.doctor)
    assert result.code == 0, result.out
    for name in ("Python", "packages", "imports", "processor", "memory", "ports", "Hub"):
        assert f"\n{name} " in result.out
    for name in ("data", "models", "features", "Hub cache"):
        assert f"\ndisk: {name} " in result.out
    assert "Nothing stops a run" in result.out


def test_a_problem_is_exit_code_1_and_says_what_to_do(
    run: Run, imports: Callable[[list[Finding]], None]
) -> None:
    imports(PROBLEM)
    result = run(verbs.doctor)
    assert result.code == 1
    assert "cannot be imported: no such file" in result.out
    assert "reinstall it" in result.out
    assert "1 problem stops a run" in result.out


def test_a_config_says_what_is_checked(
    run: Run, imports: Callable[[list[Finding]], None], tmp_path: Path
) -> None:
    imports(OK)
    config = tmp_path / "train.yaml"
    config.write_text("model_name: tiny\nregime: lora\noutput_dir: elsewhere/x\n")
    result = run(verbs.doctor, "--config", config, "--set", "tracking.enabled=false")
    assert "elsewhere/x: writable" in result.out
    assert "off (tracking.enabled)" in result.out
    assert "unknown key" in run(verbs.doctor, "--set", "epoch=1").one_line_error()


def test_a_failing_check_does_not_end_the_others(
    run: Run, imports: Callable[[list[Finding]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Finding]:
        raise RuntimeError("sensors are out")

    imports(OK)
    monkeypatch.setattr(checks, "check_memory", fail)
    result = run(verbs.doctor)
    assert result.code == 0
    assert "this check failed (RuntimeError: sensors are out)" in result.out
    assert "\nHub " in result.out


def test_a_check_that_never_answers_is_left_behind() -> None:
    never = threading.Event()

    def wait() -> list[Finding]:
        never.wait(20)
        return []

    started = time.monotonic()
    found = run_bounded("disk", wait, 0.2)
    never.set()
    assert time.monotonic() - started < 10
    assert [(item.state, item.found) for item in found] == [("note", "no answer within 0 s")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://me:secret@db/runs", "mysql://***@db/runs"),
        ("https://token@hub.example", "https://***@hub.example"),
        ("db://host/x?password=secret&a=1", "db://host/x?password=***&a=1"),
        ("db://host/x?a=1&api_key=secret", "db://host/x?a=1&api_key=***"),
        ("sqlite:///artifacts/mlflow.db", "sqlite:///artifacts/mlflow.db"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_secrets_of_addresses_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_no_finding_shows_a_secret(
    run: Run, imports: Callable[[list[Finding]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    imports([Finding("encoder", "problem", "https://me:secret@hub.example does not answer")])
    monkeypatch.setattr(constants, "ENDPOINT", "https://me:secret@hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "require_reachable", lambda *_: None)
    result = run(verbs.doctor, "--set", "tracking.uri=https://me:secret@db/runs")
    assert "https://***@hub.example answers" in result.out
    assert "https://***@db/runs" in result.out
    assert "secret" not in result.out + result.err


def test_versions_that_differ_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    monkeypatch.setattr(library_checks, "REQUIREMENTS", path)
    installed = {"torch": "2.13.0+cpu", "numpy": "2.0.0"}
    monkeypatch.setattr(library_checks, "_installed", installed.get)

    assert library_checks.check_packages()[0].state == "note"

    path.write_text("-c constraints.txt\n# torch==1\ntorch==2.13.0\n")
    assert library_checks.check_packages()[0].state == "ok"

    path.write_text("torch==2.13.0\nnumpy==2.4.6  # arrays\nwin==1; sys_platform == 'no'\n")
    [found] = library_checks.check_packages()
    assert (found.state, found.found) == ("note", "1 of 2 differ: numpy 2.0.0 (pinned: 2.4.6)")

    path.write_text("torch==2.13.0\ngone==1.0\n")
    [found] = library_checks.check_packages()
    assert (found.state, found.found) == ("problem", "not installed: gone")
    assert found.to_do == "pip install -r requirements.txt"


def test_the_shipped_requirements_are_read() -> None:
    pins = library_checks.read_pins(library_checks.REQUIREMENTS.read_text(encoding="utf-8"))
    assert len(pins) > 30
    assert "torch" in pins


def test_libraries_are_imported_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
) -> None:
    monkeypatch.setattr(libraries, "NEEDED", ("numpy", "no_such_library"))
    libraries.main("fp32", str(tiny_bert))
    report = library_checks.read_report(capsys.readouterr().out)

    assert report.imported == 2
    assert list(report.faults) == ["no_such_library"]
    assert report.hardware is not None
    assert report.hardware["picked"] == "fp32"
    assert (report.is_whole, report.encoder_fault) == (True, None)


def test_a_missing_encoder_and_a_precision_without_hardware_are_problems(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "NEEDED", ())
    libraries.main("fp16", "./no/model")
    report = library_checks.read_report(capsys.readouterr().out)
    assert "./no/model does not exist" in str(report.encoder_fault)

    import torch

    if not torch.cuda.is_available():
        assert report.hardware is not None
        states = {found.name: found.state for found in findings_of(report.hardware)}
        assert states["precision"] == "problem"


def findings_of(hardware: dict[str, Any], has_nvidia: bool = False) -> list[Finding]:
    return library_checks.hardware_findings(hardware, has_nvidia)


def stub_process(
    monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]], returncode: int
) -> None:
    """The process that imports libraries prints these lines and ends so; None: it hangs."""
    output = "\n".join(["noise", *map(json.dumps, lines), '{"half'])

    def run(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(stdout=output.encode(), returncode=returncode)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_library_that_crashes_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = [
        {"importing": "torch"},
        {"imported": "torch", "fault": None},
        {"importing": "openvino"},
    ]
    stub_process(monkeypatch, lines, returncode=-4)
    [found] = library_checks.check_libraries(settings())
    assert (found.state, found.found) == ("problem", "importing openvino ended by signal 4")


def test_a_library_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("python", 1, output=b'{"importing": "onnx"}\n')

    monkeypatch.setattr(subprocess, "run", run)
    [found] = library_checks.check_libraries(settings())
    assert found.state == "problem"
    assert found.found.startswith("importing onnx took longer than")


def test_a_library_that_cannot_be_imported_has_a_line_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[dict[str, Any]] = [
        {"importing": "torch"},
        {"imported": "torch", "fault": "libgomp.so.1: cannot open"},
        {"precision": "auto", "fault": "no torch"},
        {"encoder": "tiny", "fault": None},
    ]
    stub_process(monkeypatch, lines, returncode=0)
    found = {item.name: item for item in library_checks.check_libraries(settings())}
    assert found["torch"].state == "problem"
    assert "libgomp" in found["torch"].found
    assert found["torch"].to_do == "pip install -r requirements.txt"
    # What follows from it is not said again.
    assert set(found) == {"imports", "torch", "encoder"}


def test_a_gpu_that_torch_does_not_see_is_noted() -> None:
    entry = {"precision": "auto", "picked": "bf16", "fault": None, "features": ["AVX-512 bf16"]}
    seen = {item.name: item for item in findings_of({**entry, "has_gpu": False}, has_nvidia=True)}
    assert seen["GPU"].state == "note"
    assert "AVX-512 bf16" in seen["precision"].found

    gpu = {**entry, "has_gpu": True, "hardware": "Some GPU"}
    assert findings_of(gpu, has_nvidia=True)[0].found == "Some GPU"
    assert findings_of({**entry, "has_gpu": False})[0].state == "ok"


@pytest.mark.parametrize(
    ("cores", "limit", "load", "threads", "to_do"),
    [
        (8, None, 0.2, None, ""),
        (8, None, 0.2, "16", "set OMP_NUM_THREADS=8"),
        (8, 2, 0.2, None, "set OMP_NUM_THREADS=2"),
        (8, 2, 0.2, "2", ""),
        (2, None, 1.3, None, "set OMP_NUM_THREADS=1"),
        (2, None, 9.0, "1", ""),
    ],
)
def test_more_threads_than_free_cores_are_noted(
    cores: int,
    limit: int | None,
    load: float,
    threads: str | None,
    to_do: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "cores", lambda: cores)
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "processor_limit", lambda: limit)
    monkeypatch.setattr(machine, "load", lambda: load)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    [found] = checks.check_processor()
    assert found.to_do == to_do
    assert found.state == ("note" if to_do else "ok")


def write_cgroup(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    monkeypatch.setattr(machine, "CGROUP", folder)
    for name, text in texts.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("text", "limit"), [("max 100000\n", None), ("250000 100000\n", 2), ("50000 100000\n", 1)]
)
def test_a_container_limits_the_processor(
    text: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cgroup(tmp_path, monkeypatch, cpu_max=text)
    assert machine.processor_limit() == limit


def test_the_older_control_groups_limit_the_processor_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.processor_limit() is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    assert machine.processor_limit() == 3


def test_free_memory_is_what_machine_and_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:   8000 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    write_cgroup(tmp_path, monkeypatch, memory_max="max\n", memory_current="100\n")
    assert machine.free_memory() == 8000 * 1024

    write_cgroup(tmp_path, monkeypatch, memory_max="5000\n")
    assert machine.free_memory() == 4900

    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "none")
    assert machine.free_memory() is None


@pytest.mark.parametrize(
    ("free", "state"), [(None, "note"), (5 * 10**8, "problem"), (2 * 10**9, "note"), (10**10, "ok")]
)
def test_little_memory_is_a_problem(
    free: int | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    assert checks.check_memory()[0].state == state


def test_a_place_that_is_no_folder_cannot_be_written() -> None:
    config = settings()
    Path("models").write_text("")
    found = {item.name: item for item in checks.check_disks(config)}
    assert found["disk: models"].state == "problem"
    assert "is a file" in found["disk: models"].found
    assert found["disk: data"].state == "ok"


def test_a_folder_without_permission_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    # root may write everywhere, and a read-only disk answers like this too.
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = checks.disk_finding("disk: data", Path("data"), worst="problem")
    assert found.state == "problem"
    assert "is not writable" in found.found
    assert checks.disk_finding("disk: Hub cache", Path("data"), worst="note").state == "note"


@pytest.mark.parametrize(("free", "state"), [(10**8, "problem"), (2 * 10**9, "note")])
def test_a_full_disk_is_a_problem(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert checks.disk_finding("disk: data", Path("a/b/c"), worst="problem").state == state


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind((checks.LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(checks, "PORTS", {"API": port})
        [found] = checks.check_ports()
    assert (found.state, found.found) == ("note", f"in use: {port} (API)")
    assert checks.check_ports()[0].state == "ok"


def test_the_usual_ports_are_those_of_the_commands() -> None:
    assert list(checks.PORTS.values()) == [8000, 7860, 5000]


def tracked(path: str) -> list[Finding]:
    return checks.check_tracking(settings(tracking=TrackingConfig(uri=f"sqlite:///{path}")))


def test_a_tracking_store_that_opens_is_left_as_it_is() -> None:
    assert "will be made" in tracked("new/runs.db")[0].found
    assert not Path("new").exists()

    with sqlite3.connect("runs.db") as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    connection.close()
    content = Path("runs.db").read_bytes()
    assert tracked("runs.db")[0].state == "ok"
    assert Path("runs.db").read_bytes() == content


def test_a_tracking_store_that_is_held_is_a_note_and_a_broken_one_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "LOCK_SECONDS", 0.1)
    connection = sqlite3.connect("runs.db", isolation_level=None)
    connection.execute("CREATE TABLE runs (name TEXT)")
    connection.execute("BEGIN EXCLUSIVE")
    [found] = tracked("runs.db")
    connection.close()
    assert found.state == "note"
    assert "locked" in found.found

    Path("broken.db").write_text("no database " * 100)
    [found] = tracked("broken.db")
    # A run would stop there.
    assert found.state == "problem"
    assert "broken.db is no database" in found.found


def test_a_hub_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def refuse(*_: str) -> None:
        raise SourceUnavailable("no answer")

    monkeypatch.setattr(hub, "require_reachable", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    [found] = checks.check_hub()
    assert found.state == "note"
    assert "embedded" in found.found

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checks.check_hub()[0].state == "ok"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ok"], "Nothing stops a run."),
        (["ok", "note"], "Nothing stops a run; 1 note."),
        (["note", "problem", "problem", "note"], "2 problems stop a run (2 notes beside)."),
    ],
)
def test_the_verdict_counts(states: list[Any], expected: str) -> None:
    assert doctor.verdict([Finding("x", state, "y") for state in states]) == expected


def test_the_help_says_what_is_checked(run: Run) -> None:
    text = " ".join(run(verbs.doctor, "--help").out.split())
    for word in ("memory", "ports", "exit code is 1", "--config"):
        assert word in text
