"""This process and others: quiet libraries, a free port, a module run in a fresh process."""

import ctypes
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import bankintent

STDIN = 0
"""The file descriptor of standard input."""

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends."""

LIBRARY_SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables against telemetry and needless output. MLflow would print an address with
its password, and a traceback beside the error that it raises.

Most of them are read when their library is imported. Tokenizers run without threads: with them they
print a warning in each process that forks.
"""


LAUNCH_NAMES = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
}
LAUNCH_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_")
"""Environment variables by which torchrun and `accelerate launch` tell a process of the others."""

MAIN_SPEAKS = 15.0
"""Seconds that a process of several leaves to the main one to say what is wrong for all."""


def quiet_libraries() -> None:
    """Turn off the telemetry, progress bars and advice of the libraries."""
    # These are for the developers who call a library, not for the users of a command.
    warnings.simplefilter("ignore", FutureWarning)
    # tqdm's, in a notebook without a widget for bars, of which there are none here.
    warnings.filterwarnings("ignore", "IProgress not found")

    # A terminal keeps the bar: it shows that a large download goes on.
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    # Not overwritten: a variable that the user has set wins.
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)


def launched() -> int:
    """How many processes a launcher has started as one run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if is_launched() else 1


def is_launched() -> bool:
    """Whether a launcher has started this process, alone or with others."""
    return "RANK" in os.environ


def rank() -> int:
    """The number of this process among those that a launcher has started; 0 is the main one."""
    return int(os.environ["RANK"]) if launched() > 1 else 0


def environment() -> dict[str, str]:
    """The environment for a process that this one starts: it is alone, also where this is not."""
    return {name: value for name, value in os.environ.items() if not _is_of_launch(name)}


def forget_launch() -> None:
    """Let this process, and what it starts, be alone from here on."""
    for name in list(os.environ):
        if _is_of_launch(name):
            del os.environ[name]


def _is_of_launch(name: str) -> bool:
    return name in LAUNCH_NAMES or name.startswith(LAUNCH_PREFIXES)


def leave_to_main() -> None:
    """Wait, where this is not the main process: what is wrong for all is said once.

    The launcher ends this process when the main one fails. Where it does not, the fault is this
    process's own.
    """
    if rank() > 0:
        time.sleep(MAIN_SPEAKS)


def keep_products_on_one_thread() -> None:
    """Let NumPy compute each matrix product on the thread that asks for it.

    To be called before NumPy is imported. The products of a decision are small. OpenBLAS would
    share each among all cores, and its threads wait in busy loops, which takes the cores from the
    model and from other processes.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def free_port() -> int:
    """A loopback port that no process listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> int:
    """Number of cores that this process may run on."""
    # taskset or a container can allow fewer cores than the machine has. macOS has no such call.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_module(
    module: str, arguments: list[str | Path], log: Path, folder: Path | None = None
) -> str | None:
    """Run `python -m module arguments` to its end, with its output in the file `log`.

    It works in `folder`, by default in that of this process.

    Returns None, or the last line of its output where it failed. It ends with this process, also
    where that is killed. The caller should use little memory: Linux counts the memory that a parent
    has at the start in its child's peak.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = bound_command(module, [str(argument) for argument in arguments])

    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end tells the child that this process is gone
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment() | {"PYTHONPATH": _import_path(), "PYTHONUNBUFFERED": "1"},
        ) as child,
    ):
        try:
            code = child.wait()
        # Also Ctrl+C: on leaving the block, Popen waits for the child.
        except BaseException:
            child.terminate()
            raise

    if code == 0:
        return None
    return _failure(log, code)


def bound_command(module: str, arguments: list[str]) -> list[str]:
    """The command `python -m module arguments` of a child that ends when this process does.

    Its standard input has to be a pipe.
    """
    # Not the module itself: it would be bound to this process only after all its imports.
    bound = ["bankintent.process", str(os.getpid()), module]
    return [sys.executable, "-m", *bound, *arguments]


def end_with_parent() -> None:
    """End this process when the one that started it, with a pipe as its input, ends."""
    has_pipe = stat.S_ISFIFO(os.fstat(STDIN).st_mode)
    if not has_pipe:
        return

    # By the system where it can: a thread of this process waits while a library computes.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        # Not sys.stdin.read: it would hold the lock that a normal end of this process needs.
        os.read(STDIN, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_bound(parent: int, module: str, arguments: list[str]) -> None:
    """Run a module as the main one of this process, which ends with its parent."""
    end_with_parent()
    # The parent may have ended before the system was asked to tell.
    if sys.platform == "linux" and os.getppid() != parent:
        os._exit(1)

    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _import_path() -> str:
    """PYTHONPATH with the folder of this package first, so that any working folder will do."""
    package = str(Path(bankintent.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")

    if not inherited:
        return package
    return os.pathsep.join([package, inherited])


def _failure(log: Path, code: int) -> str:
    """The reason of a failure: the signal, the last line of the output, or the exit code."""
    # Where memory is short, Linux kills a process with signal 9.
    if code == -9:
        return "ended by signal 9 (is memory short?)"
    if code < 0:
        return f"ended by signal {-code}"

    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if not lines:
        return f"exit code {code}"
    return lines[-1].removeprefix("error: ")


if __name__ == "__main__":
    run_bound(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
