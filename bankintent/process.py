"""This process and others: quiet libraries, a free port, a module run in a fresh process."""

import os
import socket
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import bankintent

STDIN = 0

LIBRARY_SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables, most of which the libraries read when they are imported."""


def quiet_libraries() -> None:
    """Turn off the telemetry, progress bars and advice of the libraries."""
    warnings.simplefilter("ignore", FutureWarning)
    # In a terminal the bar stays: a download of some hundred megabytes should be seen.
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_module(module: str, arguments: list[str | Path], log: Path) -> str | None:
    """Run `python -m module arguments` to its end, with its output in the file `log`.

    Returns None, or the last line that it wrote where it failed. The module should call
    `end_with_parent`, so that it does not outlive a caller that was killed. The caller should be
    light: Linux counts what a parent held at the start into its child's resident peak.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": _import_path(), "PYTHONUNBUFFERED": "1"},
        ) as child,
    ):
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            raise

    if code == 0:
        return None
    return _last_words(log, code)


def end_with_parent() -> None:
    """End this process as soon as the one that called `run_module` is gone, however that ended."""
    started_by_run_module = stat.S_ISFIFO(os.fstat(STDIN).st_mode)
    if not started_by_run_module:
        return

    def watch() -> None:
        # Not sys.stdin.read: its lock would break the normal end of this process.
        os.read(STDIN, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _import_path() -> str:
    """PYTHONPATH with the folder of this package in front, whatever the working folder is."""
    package = str(Path(bankintent.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    if not inherited:
        return package
    return os.pathsep.join([package, inherited])


def _last_words(log: Path, code: int) -> str:
    if code == -9:
        return "ended by signal 9 (is memory short?)"
    if code < 0:
        return f"ended by signal {-code}"

    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if not lines:
        return f"exit code {code}"
    return lines[-1].removeprefix("error: ")
