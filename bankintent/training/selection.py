"""Which weights a run publishes: those of the epoch that was best on validation, or the last."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from bankintent.config import TrainConfig
from bankintent.errors import TrainingError
from bankintent.files import JsonObject
from bankintent.measures.shares import in_percent
from bankintent.training import checkpoints, processes
from bankintent.training.checkpoints import checkpoint_of

METRIC = "macro_f1"
"""The figure of validation that epochs are compared by."""


@dataclass(frozen=True)
class Published:
    """The weights that a run publishes, and why."""

    epoch: int
    """0: the probe before training."""
    of: int
    """Epochs that were trained."""
    rule: str
    """best or last, as `keep` has it."""
    val_macro_f1: float
    probe_val_macro_f1: float | None
    """None where no probe was a candidate."""
    last_val_macro_f1: float
    which: str
    """The weights in words, for example `epoch 3 of 4, the best of validation`."""
    figures: str
    """What there was to choose from, in words."""


@dataclass(frozen=True)
class _Evaluation:
    """The figure of one epoch."""

    epoch: int
    step: int
    macro_f1: float


def counts_the_start(config: TrainConfig) -> bool:
    """Whether the weights before training are a candidate: a probe is a whole classifier."""
    return config.keep == "best" and config.head_init == "probe"


def choose_epoch(log_history: list[JsonObject], config: TrainConfig) -> Published:
    """The epoch that is published, from the Trainer's log, which a continued run has whole."""
    evaluations = _read_evaluations(log_history)
    last = evaluations[-1]
    kept = _first_best(evaluations) if config.keep == "best" else last
    probe = evaluations[0] if counts_the_start(config) else None

    return Published(
        epoch=kept.epoch,
        of=last.epoch,
        rule=config.keep,
        val_macro_f1=kept.macro_f1,
        probe_val_macro_f1=None if probe is None else probe.macro_f1,
        last_val_macro_f1=last.macro_f1,
        which=_describe_choice(kept, last, config),
        figures=_describe_figures(kept, last, probe),
    )


def _read_evaluations(log_history: list[JsonObject]) -> list[_Evaluation]:
    key = f"eval_{METRIC}"
    evaluations = []
    for entry in log_history:
        if key in entry:
            epoch = round(entry.get("epoch") or 0)
            evaluations.append(_Evaluation(epoch, entry["step"], entry[key]))
    return evaluations


def _first_best(evaluations: list[_Evaluation]) -> _Evaluation:
    # Of equals the first: the one with less training.
    return max(evaluations, key=lambda evaluation: evaluation.macro_f1)


def _describe_choice(kept: _Evaluation, last: _Evaluation, config: TrainConfig) -> str:
    if config.keep == "last":
        return f"epoch {kept.epoch} of {last.epoch}, the last, as keep: last asks"
    if kept.step == 0:
        return f"the probe before training, which no epoch beat ({last.epoch} trained)"
    return f"epoch {kept.epoch} of {last.epoch}, the best of validation"


def _describe_figures(kept: _Evaluation, last: _Evaluation, probe: _Evaluation | None) -> str:
    others = []
    if probe is not None and probe is not kept:
        others.append(f"the probe had {in_percent(probe.macro_f1)}")
    if last is not kept:
        others.append(f"the last epoch had {in_percent(last.macro_f1)}")

    figure = f"macro-F1 {in_percent(kept.macro_f1)}"
    if not others:
        return figure
    return f"{figure}; {', '.join(others)}"


def is_over(log_history: list[JsonObject], patience: int) -> bool:
    """Whether the last epochs, so many, brought no better one.

    A probe before training does not count: the first epoch may fall below it, and later ones
    recover.
    """
    evaluations = _read_evaluations(log_history)
    epochs = [evaluation for evaluation in evaluations if evaluation.step > 0]
    if not epochs:
        return False
    return len(epochs) - 1 - epochs.index(_first_best(epochs)) >= patience


def was_over(checkpoint: Path, config: TrainConfig, last_epoch: int | None = None) -> bool:
    """Whether a run had come to its end when it wrote a checkpoint, and was killed afterwards.

    It ends early by `early_stopping`, or after `last_epoch`.
    """
    if last_epoch is None and config.early_stopping is None:
        return False

    state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))
    if last_epoch is not None:
        return round(state.epoch or 0) >= last_epoch
    assert config.early_stopping is not None
    return is_over(state.log_history, config.early_stopping)


class StopEarly(TrainerCallback):
    """Stops a run that is over, by its log: a continued one stops where it would have stopped."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if is_over(state.log_history, self.patience):
            control.should_training_stop = True


class StopAfter(TrainerCallback):
    """Stops after an epoch that was chosen before training; the schedule stays that of all."""

    def __init__(self, last_epoch: int) -> None:
        self.last_epoch = last_epoch

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if round(state.epoch or 0) >= self.last_epoch:
            control.should_training_stop = True


class MeasureStart(TrainerCallback):
    """Measures the weights before training."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.evaluate()


class KeepBest(TrainerCallback):
    """Makes the weights before training a candidate, and finds the best ones again in a later run.

    The Trainer itself keeps the checkpoint of the best epoch and loads it at the end.
    """

    def __init__(self, trainer: Trainer, measures_start: bool) -> None:
        self.trainer = trainer
        self.measures_start = measures_start

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(args.output_dir)
        is_new_run = state.global_step == 0

        if is_new_run and self.measures_start:
            figures = self.trainer.evaluate()
            state.best_metric = figures[f"eval_{METRIC}"]
            state.best_global_step = 0
            # Weights alone: nothing goes on from here.
            start = checkpoint_of(folder, step=0)
            self.trainer.save_model(str(start))
            processes.from_main(lambda: checkpoints.mark(start))

        # The path that a continued run recorded may be relative to another folder.
        if state.best_global_step is not None:
            state.best_model_checkpoint = str(checkpoint_of(folder, state.best_global_step))

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The Trainer would go on with the last weights, without a word.
        require_best(state)


def require_best(state: TrainerState) -> None:
    """Raise TrainingError where the checkpoint of the best epoch is not as it was written."""
    best = state.best_model_checkpoint
    reason = "it is gone" if best is None else checkpoints.fault(Path(best))
    if reason == "it is gone":
        what = "the checkpoint of the best epoch is gone from the work folder"
    elif reason is not None:
        what = f"the checkpoint of the best epoch cannot be used: {reason}"
    else:
        return
    raise TrainingError(what, "Run the same command again: it trains again what is missing")
