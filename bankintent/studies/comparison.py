"""A comparison from its plan to its report.

Finished runs are not repeated, missing ones run in processes of their own, failures are reported.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bankintent import console, files, tracking_store
from bankintent.config import CompareConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import DataManifest, Dataset, SourceConfig
from bankintent.errors import DataError, TrainingError
from bankintent.labels import LabelSchema
from bankintent.measures.shares import in_percent
from bankintent.studies import plan
from bankintent.studies.clock import StudyClock
from bankintent.studies.engine import Ended, Engine, LocalEngine, Task
from bankintent.studies.jobs import RunJob
from bankintent.studies.plan import PlannedRun
from bankintent.studies.recipes import load_recipes, require_valid_space
from bankintent.studies.record import RunRecord, StudyRows
from bankintent.studies.sweep import LOGS, apply_sweep

ROWS = "rows.json"
"""File of the true labels, in the study's folder: with it a report needs no data."""

REPORT = "report"
"""Folder of the report, in the study's folder."""

WORKER = "bankintent.studies.worker"
"""The module that executes a RunJob."""


@dataclass(frozen=True)
class FailedRun:
    """A run that ended without a record."""

    run: PlannedRun
    cause: str
    log: Path


def run_comparison(config: CompareConfig, engine: Engine | None = None) -> None:
    """Finish the sweeps, make the missing runs, write the report.

    `engine` executes both; by default this machine does. Raises TrainingError at the end where runs
    failed; the report then holds the others.
    """
    engine = engine or LocalEngine()
    tracking_store.require_usable(config.tracking)
    recipes = load_recipes(config)
    data = dataset.load(config.data_dir)
    # What can be refused is refused here, before hours of work.
    data.require_held_out()
    require_valid_space(config, recipes)
    plan.require_sizes(config, recipes, data)

    # One process at a time: two would train the same runs.
    with files.exclusive(config.folder):
        # Before the plan: the key of a run depends on the values that its sweep chose.
        recipes = [apply_sweep(recipe, config, data, engine) for recipe in recipes]
        runs = plan.make_runs(config, recipes, data)

        # The test split is first opened here, when every choice is made.
        rows = StudyRows.of(data, config.split)
        rows.save(config.folder / ROWS)

        failures = run_missing(runs, config, engine)
        if len(failures) < len(runs):
            report_runs(config, runs, rows)

    if failures:
        first = failures[0]
        raise TrainingError(
            f"{len(failures)} of {len(runs)} runs failed, first {first.run.label}: {first.cause}",
            f"See {console.show_path(first.log)}; the same command runs what is missing",
        )


def report_only(config: CompareConfig) -> None:
    """Write the report again from the records on disk; neither data nor models are opened."""
    path = config.folder / ROWS
    if not path.is_file():
        raise DataError(f"{config.folder} holds no comparison", "Run it without --report-only")
    rows = StudyRows.load(path)
    if rows.split != config.split:
        raise DataError(
            f"{config.folder} is of the {rows.split} split",
            "Run the comparison without --report-only",
        )

    labels = LabelSchema(tuple(rows.labels))
    # A substitute for the data itself, of which the keys of runs need only the hashes.
    hashes = DataManifest(
        SourceConfig(""), {}, labels.hash, rows.data_hash, {}, unlabelled_hash=rows.unlabelled_hash
    )
    data = Dataset(config.data_dir, labels, hashes)
    recipes = [apply_sweep(recipe, config, data) for recipe in load_recipes(config)]
    runs = plan.make_runs(config, recipes, data)
    report_runs(config, runs, rows)


def run_missing(runs: list[PlannedRun], config: CompareConfig, engine: Engine) -> list[FailedRun]:
    """Make the runs without a record, with one printed line for each; returns those that failed."""
    missing = [run for run in runs if run.find_record() is None]
    for run in runs:
        if run not in missing:
            _remove_rest(run, config)
    num_finished = len(runs) - len(missing)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    logs = console.show_path(config.folder / LOGS)

    console.say(f"{config.name}: {count}, {num_finished} finished before. Logs: {logs}")

    clock = StudyClock(runs)
    failures: list[FailedRun] = []
    remaining = list(missing)
    for ended in engine.execute(_tasks(missing, config)):
        [run] = [run for run in remaining if run.new_record == ended.task.result]
        remaining.remove(run)
        clock.took(run, ended.seconds)

        cause = _find_cause(run, ended)
        if cause is None:
            outcome = _describe_result(run, config)
        else:
            outcome = f"failed: {cause}"
            failures.append(FailedRun(run, cause, ended.task.log))

        number = len(runs) - len(remaining)
        times = _describe_times(clock, remaining, engine.at_once)
        console.say(f"[{number}/{len(runs)}] {run.label}: {outcome}; {times}")
    return failures


def _log(run: PlannedRun, config: CompareConfig) -> Path:
    return config.folder / LOGS / f"{run.slug}.log"


def _remove_rest(run: PlannedRun, config: CompareConfig) -> None:
    """Remove what a finished run left that was killed before it had removed it."""
    job_file = _log(run, config).with_suffix(".json")
    with contextlib.suppress(DataError):
        job = RunJob.load(job_file)
        # As the run was told, whatever the study says now.
        if job.key == run.key and job.settings.output_dir == run.settings.output_dir:
            job.remove_rest()


def _describe_times(clock: StudyClock, remaining: list[PlannedRun], at_once: int) -> str:
    times = f"{clock.spent()} spent"
    if remaining:
        times += f", {clock.left(remaining, at_once)} left"
    return times


def _tasks(runs: Iterable[PlannedRun], config: CompareConfig) -> Iterator[Task]:
    """The task of each run; its job is written when it is asked for."""
    for run in runs:
        job = RunJob(
            settings=run.settings,
            split=config.split,
            key=run.key,
            record=run.new_record,
            keep_model=config.keep_models,
        )
        log = _log(run, config)
        job_file = log.with_suffix(".json")
        job.save(job_file)
        place = run.settings.output_dir
        yield Task(run.label, WORKER, job_file, log, place, run.new_record)


def _find_cause(run: PlannedRun, ended: Ended) -> str | None:
    """Why a run failed, or None."""
    # The record, not the exit code, makes a run a finished one.
    if ended.cause is None and not run.new_record.is_file():
        return "it ended without a record"
    return ended.cause


def _describe_result(run: PlannedRun, config: CompareConfig) -> str:
    # The caller has seen that the run ended with one.
    path = run.find_record()
    assert path is not None

    metrics = RunRecord.load(path).metrics[config.split]
    accuracy = in_percent(metrics["accuracy"])
    macro_f1 = in_percent(metrics["macro_f1"])
    return f"{config.split} accuracy {accuracy}, macro-F1 {macro_f1}"


def report_runs(config: CompareConfig, runs: list[PlannedRun], rows: StudyRows) -> None:
    """Write and print the report of the runs that have a record; DataError where none has."""
    # Late: matplotlib and scipy in this process would count as memory of the runs, see `plan`.
    from bankintent.studies import analysis, report

    records: dict[str, RunRecord] = {}
    for run in runs:
        path = run.find_record()
        if path is not None:
            records[run.key] = RunRecord.load(path)
    if not records:
        raise DataError(
            f"{config.folder} holds no finished run of this comparison",
            f"See {config.folder / LOGS}",
        )

    figures = analysis.analyse(config, runs, records, rows)
    folder = config.folder / REPORT
    report.write_report(folder, figures)
    report.print_report(figures, folder)
