"""A comparison from its plan to its report: what is finished is kept, what is missing is run, failures are told."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bankintent import console, files, process
from bankintent.config import CompareConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset
from bankintent.errors import DataError, TrainingError
from bankintent.labels import LabelSchema
from bankintent.studies import plan, sweep
from bankintent.studies.plan import Run
from bankintent.studies.record import Rows, RunRecord
from bankintent.studies.worker import Job

ROWS = "rows.json"
LOGS = "logs"


@dataclass(frozen=True)
class Failure:
    """A run that ended without a record."""

    run: Run
    cause: str
    log: Path


def compare(config: CompareConfig) -> None:
    """Choose what is to be chosen, run what is missing, write the report.

    Raises TrainingError at the end where runs failed; the report then holds the others.
    """
    recipes, data = plan.load_recipes(config), dataset.load(config.data_dir)
    plan.require_space(config, recipes)
    plan.require_sizes(config, recipes, data)
    with files.exclusive(config.folder):
        recipes = [sweep.apply(recipe, config, data) for recipe in recipes]
        runs = plan.make_runs(config, recipes, data)
        rows = Rows.of(
            data, config.split
        )  # the test split is first opened here, when every choice is made
        rows.save(config.folder / ROWS)
        failures = run_missing(runs, config)
        if len(failures) < len(runs):
            write_report(config, runs, rows)
    if failures:
        first = failures[0]
        raise TrainingError(
            f"{len(failures)} of {len(runs)} runs failed, first {first.run.label}: {first.cause}",
            f"See {console.show_path(first.log)}; the same command runs what is missing",
        )


def report_only(config: CompareConfig) -> None:
    """Write the report anew from the records on disk; neither data nor models are opened."""
    if not (config.folder / ROWS).is_file():
        raise DataError(f"{config.folder} holds no comparison", "Run it without --report-only")
    rows = Rows.load(config.folder / ROWS)
    if rows.split != config.split:
        raise DataError(
            f"{config.folder} is of the {rows.split} split",
            "Run the comparison without --report-only",
        )
    data = Dataset(config.data_dir, LabelSchema(tuple(rows.labels)), {"data_hash": rows.data_hash})
    recipes = [sweep.apply(recipe, config, data, run=False) for recipe in plan.load_recipes(config)]
    write_report(config, plan.make_runs(config, recipes, data), rows)


def run_missing(runs: list[Run], config: CompareConfig) -> list[Failure]:
    """Run what has no record yet, with one line for each run; returns those that failed."""
    failures: list[Failure] = []
    missing = [run for run in runs if run.find_record() is None]
    done, clock = len(runs) - len(missing), Clock(runs)
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    console.say(
        f"{config.name}: {count}, {done} finished before. Logs: {console.show_path(config.folder / LOGS)}"
    )
    for index, run in enumerate(missing):
        log = config.folder / LOGS / f"{run.slug}.log"
        with console.stdout.status(f"{run.label}, see {console.show_path(log)}"), clock.timing(run):
            cause = _execute(run, config, log)
        outcome = f"failed: {cause}"
        if cause is None:
            outcome = _outcome(run, config)
        else:
            failures.append(Failure(run, cause, log))
        rest = missing[index + 1 :]
        left = f", {clock.left(rest)} left" if rest else ""
        console.say(
            f"[{done + index + 1}/{len(runs)}] {run.label}: {outcome}; {clock.spent()} spent{left}"
        )
    return failures


def _execute(run: Run, config: CompareConfig, log: Path) -> str | None:
    """One run in a fresh process; returns why it failed, or None."""
    record = config.folder / "runs" / f"{run.slug}.json"
    job = Job(
        settings=run.settings,
        split=config.split,
        key=run.key,
        record=record,
        keep_model=config.keep_models,
    )
    job.save(file := log.with_suffix(".json"))
    cause = process.run_module("bankintent.studies.worker", [file], log)
    if cause is None and not record.is_file():
        return "it ended without a record"
    return cause


def _outcome(run: Run, config: CompareConfig) -> str:
    path = run.find_record()
    assert path is not None
    figures = RunRecord.load(path).metrics[config.split]
    return f"{config.split} accuracy {100 * figures['accuracy']:.2f} %, macro-F1 {100 * figures['macro_f1']:.2f} %"


def write_report(config: CompareConfig, runs: list[Run], rows: Rows) -> None:
    """The report of the runs that have a record; DataError where none has."""
    from bankintent.studies import analysis, report

    found = {run.key: RunRecord.load(path) for run in runs if (path := run.find_record())}
    if not found:
        raise DataError(
            f"{config.folder} holds no finished run of this comparison",
            f"See {config.folder / LOGS}",
        )
    result = analysis.analyse(config, runs, found, rows)
    folder = report.write(config.folder / "report", result)
    report.show(result, folder)


class Clock:
    """How long runs took, and so how long the others may take."""

    def __init__(self, runs: list[Run]) -> None:
        self._started = time.monotonic()
        self._seconds: dict[tuple[str, object], list[float]] = {}
        for run in runs:
            path = run.find_record()
            seconds = RunRecord.load(path).run_seconds if path else None
            if seconds is not None:
                self._of(run).append(seconds)

    @contextlib.contextmanager
    def timing(self, run: Run) -> Iterator[None]:
        """Take the time of one run."""
        started = time.monotonic()
        yield
        self._of(run).append(time.monotonic() - started)

    def spent(self) -> str:
        return duration(time.monotonic() - self._started)

    def left(self, runs: list[Run]) -> str:
        """The time that `runs` may take: what their cells took before, or the mean of all where nothing is known."""
        known = [seconds for part in self._seconds.values() for seconds in part]
        total = sum(statistics.fmean(self._of(run) or known) for run in runs) if known else 0.0
        return f"about {duration(total)}"

    def _of(self, run: Run) -> list[float]:
        return self._seconds.setdefault((run.recipe.slug, run.size), [])


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
