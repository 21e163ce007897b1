"""A module in a fresh process ends with its caller, and a failure gives its last line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

from bankintent import process


def lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False

    status = Path(f"/proc/{process_id}/stat")
    if not status.exists():
        return True  # a system without /proc
    is_zombie = status.read_text().split()[2] == "Z"  # ended, and not yet waited for
    return not is_zombie


SLEEPS = {
    "python": "time.sleep(600)",
    "library": "ctypes.PyDLL(None).sleep(600)  # no thread of Python runs meanwhile",
}


@pytest.mark.parametrize("where", SLEEPS)
def test_a_module_ends_with_the_process_that_started_it(where: str, tmp_path: Path) -> None:
    if where == "library" and sys.platform != "linux":
        return  # its watching thread ends it when the library has returned
    (tmp_path / "sleeper.py").write_text(
        f"import ctypes, os, time\nprint(os.getpid(), flush=True)\n{SLEEPS[where]}\n"
    )
    program = (
        "from pathlib import Path\n"
        "from bankintent import process\n"
        "process.run_module('sleeper', [], Path('log'))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path)

    log = tmp_path / "log"
    while not (log.is_file() and log.read_text().strip()):
        assert parent.poll() is None
        time.sleep(0.05)
    child = int(log.read_text())

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    # The test's own limit ends a wait that never ends.
    while lives(child):
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9 (is memory short?)"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('works')", None),
    ],
)
def test_a_module_that_fails_gives_its_last_line(
    body: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "module.py").write_text(body)
    assert process.run_module("module", [], tmp_path / "logs" / "log") == expected
