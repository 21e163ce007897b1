"""What a user sees of a training run: a progress bar, and a line after each epoch."""

import math
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState

from bankintent import console
from bankintent.tracking import Tracker

VALIDATION_METRICS = ("loss", "accuracy", "macro_f1")
"""Figures of the Trainer's evaluation that are kept of each epoch."""


class EpochReport(TrainerCallback):
    """Shows progress, keeps each epoch's figures in `history`, and hands them to the tracker."""

    def __init__(self, history: list[dict[str, float]], tracker: Tracker) -> None:
        self.history = history
        self.tracker = tracker

        self.train_loss = math.nan
        self.started = time.perf_counter()
        self.epoch_started = self.started
        self.epoch_seconds = 0.0
        self.first_epoch = 0.0

        # In a log the bar would be a line of its own each time.
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
            TimeRemainingColumn(),
            console=console.stdout,
            transient=True,
            disable=not console.stdout.is_terminal,
        )

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.started = time.perf_counter()
        self.epoch_started = self.started
        # A run that continues from a checkpoint does not begin at zero.
        self.first_epoch = state.epoch or 0.0

        self.task = self.progress.add_task(
            "training", total=state.max_steps, completed=state.global_step
        )
        self.progress.start()

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.epoch_started = time.perf_counter()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        # Called for evaluations too, whose logs have no training loss.
        self.train_loss = (logs or {}).get("loss", self.train_loss)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The evaluation comes after it, and is not counted.
        self.epoch_seconds = time.perf_counter() - self.epoch_started

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        epoch = round(state.epoch or 0)

        entry = {
            "epoch": float(epoch),
            "train_loss": self.train_loss,
            "seconds": self.epoch_seconds,
        }
        for name in VALIDATION_METRICS:
            entry[f"val_{name}"] = metrics[f"eval_{name}"]

        self.history.append(entry)
        self._say(entry, epoch, args.num_train_epochs)

        # The training loss is NaN until the first log.
        figures = {
            name: value for name, value in entry.items() if name != "epoch" and math.isfinite(value)
        }
        self.tracker.metrics(figures, step=epoch)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.stop()

    def _say(self, entry: dict[str, float], epoch: int, epochs: float) -> None:
        elapsed = time.perf_counter() - self.started
        finished_here = max(epoch - self.first_epoch, 1)
        left = _duration(elapsed / finished_here * (epochs - epoch))

        console.say(
            f"epoch {epoch:>2}/{epochs:.0f}  loss {entry['train_loss']:6.3f}"
            f"  val loss {entry['val_loss']:6.3f}"
            f"  accuracy {100 * entry['val_accuracy']:5.2f} %"
            f"  macro-F1 {100 * entry['val_macro_f1']:5.2f} %"
            f"  {entry['seconds']:5.0f} s  about {left} left"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
