"""Commands in forks of one process that has imported the libraries: each starts at once, not after seconds.

`python tests/warm.py SOCKET` answers jobs on a Unix socket. Each job is run in a fork of this
process, as `python -m MODULE WORDS` would be in the folder that the job names. The processes that a
command starts by `process.run_module` are forks of this process too, not of the command: they hold
nothing of it.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS = 300
DIED = -1
"""The code of a job whose process ended without an answer."""


@dataclass(frozen=True)
class Job:
    """A module with its words, the folder that it runs in, and the file that gets its output."""

    module: str
    words: list[str]
    folder: str
    output: str


def ask(address: Path, job: Job) -> int:
    """Have a job done; its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        connection.sendall(json.dumps(asdict(job)).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile().read()
    return int(answer) if answer else DIED


@contextlib.contextmanager
def warm(environment: dict[str, str]) -> Iterator[Path]:
    """Run the process until the block ends; gives the address of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "socket"
        command = [sys.executable, "-W", "ignore", __file__, str(address)]
        with subprocess.Popen(command, env=environment) as process:
            try:
                end = time.monotonic() + START_SECONDS
                while not address.exists():
                    assert process.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.05)
                yield address
            finally:
                process.kill()


def import_libraries() -> None:
    """Import what the commands import late, but no module that is run as a main one."""
    from bankintent import process

    # Some settings are read when a library is imported.
    process.quiet_libraries()
    import matplotlib.pyplot
    import mlflow
    import peft
    import torch
    import transformers

    from bankintent.baselines import trivial
    from bankintent.corpus import figures, leaks, sources, writing
    from bankintent.export import publish
    from bankintent.inference import evaluation_report
    from bankintent.scoring import score
    from bankintent.studies import analysis, comparison, report
    from bankintent.training import publication, run

    torch.set_num_threads(1)
    del matplotlib, mlflow, peft, transformers, trivial, figures, leaks, sources, writing, publish
    del evaluation_report, score, analysis, comparison, report, publication, run


def execute(job: Job, address: Path) -> None:
    """Do a job in this process, as a process of its own would."""
    from bankintent import process

    os.chdir(job.folder)
    sys.path[0] = job.folder
    output = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)

    def run_module(module: str, arguments: list[str | Path], log: Path) -> str | None:
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [str(argument) for argument in arguments]
        code = ask(address, Job(module, words, os.getcwd(), str(log.absolute())))
        return process._failure(log, code) if code else None

    process.run_module = run_module
    sys.argv = [job.module, *job.words]
    runpy.run_module(job.module, run_name="__main__", alter_sys=True)


def answer(connection: socket.socket, address: Path) -> None:
    """Read a job from a connection, do it and send its exit code; this process ends with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        job = Job(**json.loads(connection.makefile().read()))
        execute(job, address)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 (shown, as a process shows what ends it)
        sys.excepthook(*sys.exc_info())

    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code).encode())
    os._exit(0)


def main(address: Path) -> None:
    """Answer jobs until this process is killed."""
    sys.path.insert(1, str(ROOT))
    import_libraries()
    # Forks that have ended leave nothing to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                answer(connection, address)
            connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
