"""Commands in processes that die at their n-th write: `python tests/dying.py`, jobs as JSON lines.

Each job is run in a fork of this process, which has imported everything before, in the folder that
the job names. Only writes below that folder count. The answer is a line of JSON: the exit code, the
writes up to the end, and what was printed.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
"""Events of Python's audit that change a folder; `open` is one where it opens for writing."""

KILLED = -signal.SIGKILL
"""Exit code of a process that died at a write."""


class Watch:
    """Counts the writes below a folder and kills its own process at one of them."""

    def __init__(self, folder: Path, dies_at: int | None, log: Path) -> None:
        self._folder = str(folder)
        self._dies_at = dies_at
        self._count = 0
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def begin(self) -> None:
        """Watch this process from here on; there is no way back."""
        sys.addaudithook(self._event)
        # Without the wait for the disk: what a process has written outlives it.
        os.fsync = lambda _: self._write("os.fsync")

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(path, str | bytes) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = args[0]
        else:
            return

        place = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes) else ""
        if place.startswith(self._folder + os.sep):
            self._write(f"{event} {os.path.relpath(place, self._folder)}")

    def _write(self, what: str) -> None:
        self._count += 1
        os.write(self._log, f"{what}\n".encode())
        if self._count == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def import_all() -> None:
    """Import what the commands import late, so that forks need not."""
    import matplotlib.pyplot
    import torch

    import etl
    import eval as evaluate
    import multiregime
    from bankintent import __main__ as verbs
    from bankintent import tracking
    from bankintent.baselines import trivial
    from bankintent.corpus import figures, leaks, writing
    from bankintent.export import fresh_check
    from bankintent.inference import evaluation_report
    from bankintent.scoring import score
    from bankintent.studies import analysis, report, worker
    from bankintent.training import publication

    torch.set_num_threads(1)
    del matplotlib, etl, evaluate, multiregime, verbs, tracking, trivial, figures, leaks, writing
    del fresh_check, evaluation_report, score, analysis, report, worker, publication


def command_of(name: str) -> Callable[..., Any]:
    """The function of a command."""
    import etl
    import eval as evaluate
    import multiregime
    from bankintent import __main__ as verbs

    commands: dict[str, Callable[..., Any]] = {
        "etl": etl.main,
        "eval": evaluate.main,
        "train": multiregime.main,
        "compare": verbs.compare,
        "compare_models": verbs.compare_models,
        "score": score_words,
        "policy": verbs.policy,
    }
    return commands[name]


def score_words(source: Path, output: Path, overwrite: bool = False) -> None:
    """`score` with a model of words."""
    from score_fixtures import WordModel, settings

    from bankintent.scoring import score

    score.score(settings(source, output), overwrite, WordModel)


def run_here(module: str, arguments: list[str | Path], log: Path) -> str | None:
    """In the place of `process.run_module`: the same in this process."""
    from bankintent.export import fresh_check
    from bankintent.studies import worker
    from bankintent.studies.jobs import RunJob

    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    if module == "bankintent.export.fresh_check":
        fresh_check.main(*map(Path, arguments))
    else:
        assert module == "bankintent.studies.worker", module
        worker.execute_run(RunJob.load(Path(arguments[0])))
    return None


def execute(job: dict[str, Any], scratch: Path) -> None:
    """Run a job in this process, which ends with it."""
    from bankintent import cli, process
    from bankintent.corpus import division

    folder = Path(job["folder"])
    os.chdir(folder)
    output = os.open(scratch / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)

    # Small tables would be judged by cross-validation.
    division.CROSS_BELOW = 0
    process.run_module = run_here
    sys.argv = ["command", *job["words"]]
    command = command_of(job["command"])

    Watch(folder, job["dies_at"], scratch / "writes").begin()
    cli.run(command)


def main(scratch: Path) -> None:
    """Answer jobs until standard input ends."""
    import_all()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                execute(job, scratch)
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:  # noqa: BLE001 (shown, as a process shows what ends it)
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

        _, status = os.waitpid(child, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "writes": (scratch / "writes").read_text().splitlines(),
            "output": (scratch / "output").read_text(),
        }
        for name in ("writes", "output"):
            (scratch / name).unlink()
        print(json.dumps(answer), flush=True)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
