"""The trials of a sweep: settings chosen with Optuna; the test split is never opened.

    python -m bankintent.studies.trials JOB

JOB is the JSON file that `python -m bankintent compare` writes for a recipe with a sweep.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna import Study, Trial, TrialPruned
from optuna.trial import FrozenTrial, TrialState
from sklearn.model_selection import StratifiedKFold

from bankintent import cli, console, files, tracking
from bankintent.bundle.work import WorkFolder
from bankintent.config import (
    Choices,
    RangeSection,
    SweepSection,
    TrackingConfig,
    TrainConfig,
)
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import DataError, TrainingError
from bankintent.files import JsonObject
from bankintent.studies.jobs import SweepJob
from bankintent.studies.record import SweepResult
from bankintent.training.rows import RunRows, rows_without_labels

STARTUP_TRIALS = 4
"""Trials that run to their end before the median of them stops others."""

FIRST_STOP = 2
"""The first epoch after which a trial may be stopped: the first one alone says little, as accuracy
may fall below that of the probe in it and recover later (docs/explanation/recipes.md)."""

FOLD_STEPS = 1000
"""Epoch e of fold f is step f * 1000 + e: trials of any length are compared fold by fold."""

ERROR = "error"
"""Name of the attribute that holds the message of a trial whose settings made training fail."""


@dataclass(frozen=True)
class Folds:
    """The rows of a trial: one pair of splits, or one for each fold."""

    data: Dataset
    pairs: list[tuple[SplitData, SplitData]]
    """(rows to train on, rows to choose on)"""


def run_sweep(job: SweepJob) -> None:
    """Make the trials that are missing and write the result.

    An interrupted sweep makes the same trials as one that was not: the values of a trial depend
    on the seed and on the finished trials alone. Raises TrainingError where no trial completed.
    """
    folds = make_folds(job.sweep, dataset.load(job.data_dir))
    study = _open_study(job)
    num_finished = len(finished_trials(study))

    while num_finished < job.sweep.trials:
        # A sampler of its own for each trial: its random numbers do not depend on interruptions.
        study.sampler = optuna.samplers.TPESampler(seed=job.sweep.seed + num_finished)
        run_trial(study, job, folds)

        trials = finished_trials(study)
        _report_trial(num_finished, trials[-1], job.sweep.metric)
        num_finished = len(trials)

    # Before the result: with it, nothing of the sweep is run any more.
    files.discard(job.work)
    result = summarise_trials(job, finished_trials(study))
    result.save(job.result)


def _open_study(job: SweepJob) -> Study:
    """Optuna's study of this sweep: a new one, or the one that an interrupted sweep left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = job.result.parent.absolute()
    folder.mkdir(parents=True, exist_ok=True)

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}",
        study_name=f"{job.recipe}-{job.key}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, FIRST_STOP),
    )

    # A trial that is still running was cut off with its process.
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _report_trial(number: int, trial: FrozenTrial, metric: str) -> None:
    values = ", ".join(f"{key} {value}" for key, value in trial.params.items())
    state = trial.state.name.lower()
    console.say(f"trial {number}: {values}: {state}, {metric} {trial.value}")


def make_folds(sweep: SweepSection, data: Dataset) -> Folds:
    """Train and validation, or the folds of train.

    Raises DataError where an intent has fewer rows than there are folds.
    """
    train = data.read("train")
    if sweep.choose_on == "val":
        return Folds(data, [(train, data.read("val"))])

    num_folds = sweep.choose_on.kfold
    rows_by_label = Counter(train.labels)
    rarest = min(rows_by_label, key=rows_by_label.__getitem__)
    # scikit-learn would only warn, and leave the intent out of some folds.
    if rows_by_label[rarest] < num_folds:
        raise DataError(
            f'intent "{data.labels.names[rarest]}" has {rows_by_label[rarest]} training rows,'
            f" fewer than {num_folds} folds",
            "Lower kfold, or set rare: drop or merge:NAME in data.yaml",
        )

    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=sweep.seed)
    pairs = []
    for fit_rows, held_out_rows in splitter.split(train.texts, train.labels):
        pair = (train.take(fit_rows.tolist()), train.take(held_out_rows.tolist()))
        pairs.append(pair)
    return Folds(data, pairs)


def finished_trials(study: Study) -> list[FrozenTrial]:
    """The trials that completed, were pruned or failed, without those that were cut off."""
    trials = []
    for trial in study.get_trials():
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs:
            trials.append(trial)
    return trials


def run_trial(study: Study, job: SweepJob, folds: Folds) -> None:
    """One trial: a training run on every fold, nothing published."""
    trial = study.ask()
    values = {key: _suggest(trial, key, choices) for key, choices in job.space.items()}
    settings = job.trial_settings(values)

    metric = f"val_{job.sweep.metric}"
    keeps_best = settings.keep == "best"

    scores: list[float] = []
    try:
        for train, held_out in folds.pairs:
            watcher = TrialWatcher(trial, metric, keeps_best, scores)
            _train_fold(settings, folds.data, train, held_out, job.work, watcher)
            scores.append(watcher.score)
    except TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        # An overflow comes from the values, so that the sweep goes on; other faults end it.
        trial.set_user_attr(ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, fmean(scores))
    finally:
        # Also of a trial that was stopped: no later one goes on from it.
        files.discard(job.work)


def _suggest(trial: Trial, key: str, choices: Choices) -> Any:
    match choices:
        case RangeSection(low=int() as low, high=int() as high):
            return trial.suggest_int(key, low, high, log=choices.log)
        case RangeSection():
            return trial.suggest_float(key, choices.low, choices.high, log=choices.log)
        case _:
            return trial.suggest_categorical(key, choices)


def _train_fold(
    settings: TrainConfig,
    data: Dataset,
    train: SplitData,
    held_out: SplitData,
    work: Path,
    watcher: "TrialWatcher",
) -> None:
    """Train once in an empty work folder; TrialPruned where the trial falls behind."""
    # Late: the libraries read the settings of `process.quiet_libraries` when they are imported.
    from bankintent.training import fit

    files.make_empty(work)

    # As if all of `train` were drawn: a fold's held-out rows are not to be learned from.
    unlabelled = rows_without_labels(settings, data, train, train)
    rows = RunRows(train, held_out, unlabelled)
    fit.fit_run(fit.TrainingRun(settings, data, rows, WorkFolder(work), watcher))


class TrialWatcher(tracking.Tracker):
    """A tracker that logs nothing and reports epochs to Optuna, which may stop the trial."""

    def __init__(
        self, trial: Trial, metric: str, keeps_best: bool, earlier_scores: list[float]
    ) -> None:
        super().__init__(TrackingConfig(enabled=False))
        self._trial = trial
        self._metric = metric
        self._keeps_best = keeps_best
        # A copy, because the caller's list grows with each fold.
        self._earlier_scores = list(earlier_scores)
        self._epochs: list[dict[str, float]] = []

    @property
    def score(self) -> float:
        """The metric of the weights that training keeps: the best epoch's, or the last one's."""
        kept = self._epochs[-1]
        if self._keeps_best:
            # As training chooses, which goes by one metric whatever the sweep maximises.
            kept = max(self._epochs, key=lambda figures: figures["val_macro_f1"])
        return kept[self._metric]

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Report an epoch's mean over the folds so far; TrialPruned where it falls behind."""
        if step is None or self._metric not in values:
            return

        self._epochs.append(values)
        mean = fmean([*self._earlier_scores, self.score])
        # Optuna compares trials at the same step, so each fold has steps of its own.
        first_step = len(self._earlier_scores) * FOLD_STEPS
        self._trial.report(mean, first_step + step)

        if self._trial.should_prune():
            raise TrialPruned


def summarise_trials(job: SweepJob, trials: list[FrozenTrial]) -> SweepResult:
    """The best trial's values and the record of all; TrainingError where none completed."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise TrainingError(f"no trial came to its end: {_first_error(trials)}", "Change the space")

    # Of equals the first.
    best = max(complete, key=_score)
    num_folds = None if job.sweep.choose_on == "val" else job.sweep.choose_on.kfold

    return SweepResult(
        key=job.key,
        metric=job.sweep.metric,
        folds=num_folds,
        values=best.params,
        value=_score(best),
        trials=[_trial_record(trial) for trial in trials],
    )


def _score(trial: FrozenTrial) -> float:
    # Optuna's type allows None for trials that did not complete.
    assert trial.value is not None
    return trial.value


def _first_error(trials: list[FrozenTrial]) -> str:
    for trial in trials:
        if ERROR in trial.user_attrs:
            return str(trial.user_attrs[ERROR])
    return "all were stopped early"


def _trial_record(trial: FrozenTrial) -> JsonObject:
    failed = ERROR in trial.user_attrs
    # In order of their steps, which Optuna's storage does not promise.
    epochs = sorted(trial.intermediate_values.items())

    record: JsonObject = {
        "state": "failed" if failed else trial.state.name.lower(),
        "values": trial.params,
        "value": trial.value,
        "after_each_epoch": [value for _, value in epochs],
    }
    if failed:
        record["error"] = trial.user_attrs[ERROR]
    return record


def main(job: Path) -> None:
    """Execute the job that a JSON file describes."""
    run_sweep(SweepJob.load(job))


if __name__ == "__main__":
    cli.run(main)
