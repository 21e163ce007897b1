"""The sweeps of a comparison: one finished result for each recipe that has a search space.

The trials run in a child process (`trials`). This module is imported by its light parent and must
import neither torch nor transformers, see `plan`.
"""

from bankintent import console
from bankintent.config import CompareConfig, SweepSection
from bankintent.corpus.dataset import Dataset
from bankintent.errors import DataError, TrainingError
from bankintent.studies import plan
from bankintent.studies.engine import Engine, Task
from bankintent.studies.jobs import SweepJob
from bankintent.studies.recipes import Recipe, with_sweep
from bankintent.studies.record import SweepResult
from bankintent.tracking import flatten

LOGS = "logs"
"""Folder of the children's output, in the study's folder."""

TRIALS = "bankintent.studies.trials"
"""The module that executes a SweepJob."""


def apply_sweep(
    recipe: Recipe, config: CompareConfig, data: Dataset, engine: Engine | None = None
) -> Recipe:
    """The recipe with the values that its sweep chose.

    A sweep that is not finished is run first; DataError where there is no `engine` for it.
    """
    if config.sweep is None or recipe.name not in config.sweep.space:
        return recipe

    job = _plan_sweep(recipe, config, config.sweep, data)
    result = _find_result(job)
    if result is None:
        if engine is None:
            raise DataError(
                f"the sweep of {recipe.slug} is not finished", "Run it without --report-only"
            )
        result = _run_sweep(job, recipe, config, engine)
    return with_sweep(recipe, config, result)


def _plan_sweep(
    recipe: Recipe, config: CompareConfig, sweep: SweepSection, data: Dataset
) -> SweepJob:
    settings = recipe.settings.model_copy(update={"seed": sweep.seed, "few_shot": None})
    # The number of trials is not in the key: more trials continue the same sweep. The seed is, as
    # one of the settings.
    search = sweep.model_dump(mode="json", include={"choose_on", "metric", "space"})
    # Another recipe's space changes nothing here.
    search["space"] = search["space"][recipe.name]

    return SweepJob(
        recipe=recipe.slug,
        path=recipe.path,
        overrides=flatten(config.set),
        backbone=recipe.backbone,
        data_dir=config.data_dir,
        space=sweep.space[recipe.name],
        sweep=sweep,
        key=plan.short_hash(search | plan.study_identity(settings, data)),
        result=config.folder / "sweep" / f"{recipe.slug}.json",
    )


def _find_result(job: SweepJob) -> SweepResult | None:
    """The result on disk; None where it is of another sweep or has too few trials."""
    if not job.result.is_file():
        return None

    result = SweepResult.load(job.result)
    is_of_this_sweep = result.key == job.key
    has_enough_trials = len(result.trials) >= job.sweep.trials
    if is_of_this_sweep and has_enough_trials:
        return result
    return None


def _run_sweep(job: SweepJob, recipe: Recipe, config: CompareConfig, engine: Engine) -> SweepResult:
    """Run the trials in a fresh process; TrainingError where it fails."""
    log = config.folder / LOGS / f"sweep-{recipe.slug}.log"
    log_name = console.show_path(log)
    job_file = log.with_suffix(".json")
    job.save(job_file)
    console.say(f"Sweep of {recipe.slug}: {job.sweep.trials} trials. Log: {log_name}")

    # Recipes share Optuna's file, so that one sweep is run at a time, on any engine.
    task = Task(f"sweep of {recipe.slug}", TRIALS, job_file, log, job.work, job.result)
    [ended] = engine.execute([task])
    if ended.cause is not None:
        raise TrainingError(f"the sweep of {recipe.slug} failed: {ended.cause}", f"See {log_name}")

    # A child process that ended without a fault has written it.
    result = _find_result(job)
    assert result is not None
    console.say(f"Sweep of {recipe.slug}: {result.describe()}")
    return result
