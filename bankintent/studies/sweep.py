"""Settings chosen with Optuna on validation or by cross-validation of train; the test split is never opened.

    python -m bankintent.studies.sweep JOB

JOB is the JSON file that `python -m bankintent compare` writes for a recipe with a sweep.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bankintent import cli, console, process, tracking
from bankintent.config import (
    Choices,
    CompareConfig,
    RangeSection,
    SweepSection,
    TrackingConfig,
    TrainConfig,
)
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import DataError, TrainingError
from bankintent.studies import plan
from bankintent.studies.plan import Recipe, Values
from bankintent.studies.record import Chosen, Record
from bankintent.training import job as training

if TYPE_CHECKING:
    from optuna import Study, Trial

STARTUP_TRIALS = 4
"""Trials that run to their end before the median of them stops others."""
FIRST_STOP = 2
"""The first epoch after which a trial may be stopped."""
FOLD_STEPS = 1000
"""Epoch e of fold f is step f * 1000 + e: trials with different numbers of epochs are compared fold by fold."""


@dataclass(frozen=True)
class Folds:
    """What a trial trains and is judged on: one pair, or one for each fold."""

    data: Dataset
    pairs: list[tuple[SplitData, SplitData]]
    """(rows to train on, rows to choose on)"""


class Job(Record):
    """What a sweep's process is told."""

    recipe: str
    path: Path
    """The recipe's train.yaml."""
    overrides: dict[str, Any]
    backbone: str | None
    data_dir: Path
    space: dict[str, Choices]
    sweep: SweepSection
    key: str
    result: Path
    """The file to write; Optuna's storage and the trials' work stand beside it."""

    @property
    def work(self) -> Path:
        """Where a trial trains; removed after it."""
        return self.result.with_suffix(".work")

    def settings(self, values: Values) -> TrainConfig:
        """A trial's train.yaml."""
        decided = {
            "seed": self.sweep.seed,
            "few_shot": None,
            "data_dir": self.data_dir,
            "output_dir": self.work / "trial",
            "cache_dir": self.result.parent / "cache",
            "tracking": TrackingConfig(enabled=False),
        }
        return plan.read_recipe(self.path, self.overrides | values, self.backbone).model_copy(
            update=decided
        )


def apply(recipe: Recipe, config: CompareConfig, data: Dataset, run: bool = True) -> Recipe:
    """The recipe with the values that its sweep chose, which is run first where it is not finished.

    DataError where it is not and may not be run.
    """
    if config.sweep is None or recipe.name not in config.sweep.space:
        return recipe
    job = _job(recipe, config, config.sweep, data)
    chosen = _find(job)
    if chosen is None:
        if not run:
            raise DataError(
                f"the sweep of {recipe.slug} is not finished", "Run it without --report-only"
            )
        chosen = _run(job, recipe, config)
    return plan.with_values(recipe, config, chosen)


def _job(recipe: Recipe, config: CompareConfig, sweep: SweepSection, data: Dataset) -> Job:
    settings = recipe.settings.model_copy(update={"seed": sweep.seed, "few_shot": None})
    asked = sweep.model_dump(mode="json", include={"choose_on", "metric", "space"})
    asked["space"] = asked["space"][recipe.name]
    return Job(
        recipe=recipe.slug,
        path=recipe.path,
        overrides=tracking.flatten(config.set),
        backbone=recipe.backbone,
        data_dir=config.data_dir,
        space=sweep.space[recipe.name],
        sweep=sweep,
        key=plan.short_hash(asked | plan.what_makes(settings, data)),
        result=config.folder / "sweep" / f"{recipe.slug}.json",
    )


def _find(job: Job) -> Chosen | None:
    """The result on disk, where it is of this very sweep and has enough trials."""
    if not job.result.is_file():
        return None
    chosen = Chosen.load(job.result)
    return chosen if chosen.key == job.key and len(chosen.trials) >= job.sweep.trials else None


def _run(job: Job, recipe: Recipe, config: CompareConfig) -> Chosen:
    log = config.folder / "logs" / f"sweep-{recipe.slug}.log"
    job.save(file := log.with_suffix(".json"))
    console.say(f"Sweep of {recipe.slug}: {job.sweep.trials} trials. Log: {console.show_path(log)}")
    with console.stdout.status(f"sweep of {recipe.slug}, see {console.show_path(log)}"):
        cause = process.run_module("bankintent.studies.sweep", [file], log)
    if cause is not None:
        raise TrainingError(
            f"the sweep of {recipe.slug} failed: {cause}", f"See {console.show_path(log)}"
        )
    chosen = _find(job)
    assert chosen is not None
    console.say(f"Sweep of {recipe.slug}: {chosen.words}")
    return chosen


def execute(job: Job) -> None:
    """Make the trials that are missing and write the result.

    An interrupted sweep makes the same trials as one that was not: what is tried depends on the seed and on the
    finished trials alone. TrainingError where no trial came to its end.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    folds = make_folds(job.sweep, dataset.load(job.data_dir))
    study = optuna.create_study(
        storage=f"sqlite:///{job.result.parent.absolute() / 'optuna.db'}",
        study_name=f"{job.recipe}-{job.key}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, FIRST_STOP),
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # cut off by a kill
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    while (number := len(finished(study))) < job.sweep.trials:
        study.sampler = optuna.samplers.TPESampler(seed=job.sweep.seed + number)
        _try(study, job, folds)
        last = finished(study)[-1]
        console.say(
            f"trial {number}: {_words(last.params)}: {last.state.name.lower()}, {job.sweep.metric} {last.value}"
        )
    _result(study, job).save(job.result)


def make_folds(sweep: SweepSection, data: Dataset) -> Folds:
    """Train and validation, or the folds of train; DataError where an intent has fewer rows than there are folds."""
    train = data.read("train")
    if sweep.choose_on == "val":
        return Folds(data, [(train, data.read("val"))])
    from sklearn.model_selection import StratifiedKFold

    count = sweep.choose_on.kfold
    label, rows = min(Counter(train.labels).items(), key=lambda item: item[1])
    if rows < count:
        name = data.labels.names[label]
        raise DataError(
            f'intent "{name}" has {rows} training rows, fewer than {count} folds', "Lower kfold"
        )
    parts = StratifiedKFold(count, shuffle=True, random_state=sweep.seed).split(
        train.texts, train.labels
    )
    return Folds(
        data, [(train.take(fit.tolist()), train.take(held_out.tolist())) for fit, held_out in parts]
    )


def finished(study: "Study") -> list[Any]:
    """The trials that came to an end of their own: complete, pruned, or overflowed; not those that were cut off."""
    return [
        t
        for t in study.get_trials()
        if t.state.name in ("COMPLETE", "PRUNED") or "error" in t.user_attrs
    ]


def _try(study: "Study", job: Job, folds: Folds) -> None:
    """One trial: a training run on every fold, nothing published."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    trial = study.ask()
    values = {key: _suggest(trial, key, choices) for key, choices in job.space.items()}
    scores: list[float] = []
    try:
        for _ in folds.pairs:
            scores.append(_score(trial, job, values, folds, scores))
    except TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (
        TrainingError
    ) as error:  # an overflow says something of the values, unlike any other fault
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, fmean(scores))


def _suggest(trial: "Trial", key: str, choices: Choices) -> Any:
    match choices:
        case RangeSection(low=int() as low, high=int() as high):
            return trial.suggest_int(key, low, high, log=choices.log)
        case RangeSection():
            return trial.suggest_float(key, choices.low, choices.high, log=choices.log)
        case _:
            return trial.suggest_categorical(key, choices)


def _score(trial: "Trial", job: Job, values: Values, folds: Folds, before: list[float]) -> float:
    """The metric on the next fold, after those of `before`; TrialPruned where the trial falls behind."""
    settings, (train, held_out) = job.settings(values), folds.pairs[len(before)]
    assert settings.regime is not None
    shutil.rmtree(job.work, ignore_errors=True)
    job.work.mkdir()
    watcher = Watcher(trial, f"val_{job.sweep.metric}", settings.early_stopping is not None, before)
    unlabelled = training.rows_without_labels(settings, folds.data, train, train)
    training.fit(
        training.Job(
            settings, settings.regime, folds.data, train, held_out, job.work, watcher, unlabelled
        )
    )
    shutil.rmtree(job.work)
    return watcher.score


class Watcher(tracking.Tracker):
    """In the tracker's place: hands each epoch's metric to the trial, which ends where it falls behind."""

    def __init__(self, trial: "Trial", metric: str, keeps_best: bool, before: list[float]) -> None:
        super().__init__(TrackingConfig(enabled=False))
        self._trial, self._metric, self._before = trial, metric, list(before)
        self._summarise: Callable[[list[float]], float] = (
            max if keeps_best else lambda epochs: epochs[-1]
        )
        self._epochs: list[float] = []

    @property
    def score(self) -> float:
        """The metric of the weights that training keeps."""
        return self._summarise(self._epochs)

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        from optuna import TrialPruned

        if step is None or self._metric not in values:
            return
        self._epochs.append(values[self._metric])
        self._trial.report(
            fmean([*self._before, self.score]), len(self._before) * FOLD_STEPS + step
        )
        if self._trial.should_prune():
            raise TrialPruned


def _result(study: "Study", job: Job) -> Chosen:
    trials = finished(study)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        cause = next(
            (t.user_attrs["error"] for t in trials if "error" in t.user_attrs),
            "all were stopped early",
        )
        raise TrainingError(f"no trial came to its end: {cause}", "Change the space")
    best = max(complete, key=lambda trial: trial.value)  # of equals the first
    folds = None if job.sweep.choose_on == "val" else job.sweep.choose_on.kfold
    return Chosen(
        key=job.key,
        metric=job.sweep.metric,
        folds=folds,
        values=best.params,
        value=best.value,
        trials=[
            {
                "state": "failed" if "error" in trial.user_attrs else trial.state.name.lower(),
                "values": trial.params,
                "value": trial.value,
                "after_each_epoch": [
                    value for _, value in sorted(trial.intermediate_values.items())
                ],
                **({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {}),
            }
            for trial in trials
        ],
    )


def _words(values: Values) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def main(job: Path) -> None:
    """Execute the job that a JSON file describes; end with the process that wrote it."""
    process.end_with_parent()
    execute(Job.load(job))


if __name__ == "__main__":
    cli.run(main)
