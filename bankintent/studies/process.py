"""A long job in a fresh Python process, so that its memory is its own, with its output in a log file."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import bankintent

STDIN = 0


def run(module: str, argument: Path, log: Path) -> str | None:
    """Run `python -m module argument` to its end; returns None, or the last line it wrote where it failed.

    The caller should be light: Linux counts what a parent held at the start into its child's resident peak.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    package = str(Path(bankintent.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, "-m", module, str(argument)],
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        ) as child,
    ):
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
    return None if code == 0 else _last_words(log, code)


def end_with_parent() -> None:
    """End this process as soon as the one that called `run` is gone, however that ended."""

    def watch() -> None:
        os.read(STDIN, 1)  # returns when the other end closes; sys.stdin's own lock would break this process's end
        os._exit(1)

    if stat.S_ISFIFO(os.fstat(STDIN).st_mode):  # started by hand it has no such parent
        threading.Thread(target=watch, daemon=True).start()


def _last_words(log: Path, code: int) -> str:
    if code < 0:
        return f"ended by signal {-code}" + (" (is memory short?)" if code == -9 else "")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
