"""What a user sees of training: a bar of steps, and a row of figures after each epoch."""

import math
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState

from bankintent import console
from bankintent.measures.shares import in_percent
from bankintent.progress import LogClock
from bankintent.training import processes
from bankintent.training.checkpoints import checkpoint_of
from bankintent.training.course import Course, Past

VALIDATION_METRICS = ("loss", "accuracy", "macro_f1")
"""Figures of the Trainer's evaluation that are kept of each epoch."""

EPOCH_COLUMNS = {
    "epoch": 7,
    "train loss": 12,
    "val loss": 10,
    "accuracy": 11,
    "macro-F1": 11,
    "time": 14,
    "left": 14,
}
"""Columns of the table of epochs and their widths: 79 characters in all."""


class StepBar:
    """Steps done and time left: a bar in a terminal, otherwise a line every half minute."""

    def __init__(self, title: str) -> None:
        self.title = title

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
            TimeRemainingColumn(),
            console=console.stdout,
            transient=True,
            expand=True,
            # In a log the bar would be a line of its own each time.
            disable=not console.stdout.is_terminal,
        )
        self._total = 0
        self._first = 0

    def start(self, total: int, done: int = 0) -> None:
        """Begin to count; `done` steps are those of an earlier process."""
        self._total = total
        self._first = done
        self._started = time.monotonic()
        self._clock = LogClock()

        self._task = self._bar.add_task(self.title, total=total, completed=done)
        self._bar.start()

    def show(self, done: int) -> None:
        """Show that so many steps of all are done."""
        self._bar.update(self._task, description=self.title, completed=done)

        if not self._clock.is_due():
            return
        pace = (time.monotonic() - self._started) / max(done - self._first, 1)
        left = duration(pace * (self._total - done))
        console.say(f"{self.title}: step {done:,} of {self._total:,}, about {left} left")

    def name(self, what: str) -> None:
        """Show what is done between two steps."""
        self._bar.update(self._task, description=what)

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class StageReport(TrainerCallback):
    """The bar of a stage without epochs."""

    def __init__(self, title: str) -> None:
        self._bar = StepBar(title)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.start(state.max_steps)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.show(state.global_step)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.stop()


class EpochReport(TrainerCallback):
    """Shows progress, keeps each epoch's figures in `history`, and hands them to the tracker.

    Every checkpoint gets them too, so that a run that goes on from it has those of all epochs.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self.history = list(course.past.history)
        self.start = course.past.start
        self.tracker = course.tracker
        self.bar = StepBar("training")

        self.train_loss = math.nan
        self.started = time.perf_counter()
        self.epoch_started = self.started
        self.epoch_seconds = 0.0
        self.first_epoch = 0.0

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.started = time.perf_counter()
        self.epoch_started = self.started
        # A run that continues from a checkpoint does not begin at zero.
        self.first_epoch = state.epoch or 0.0

        console.say(_row(list(EPOCH_COLUMNS)))
        self._repeat_past(args.num_train_epochs)
        self.bar.start(state.max_steps, done=state.global_step)

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.epoch_started = time.perf_counter()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.bar.show(state.global_step)

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
        self.bar.name("validating")

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        epoch = round(state.epoch or 0)
        # Where all rows are trained on, there is nothing to measure.
        measured = [name for name in VALIDATION_METRICS if f"eval_{name}" in metrics]
        figures = {f"val_{name}": metrics[f"eval_{name}"] for name in measured}

        if state.global_step == 0:
            self.start = figures
            _say_start(figures)
        else:
            figures = {"train_loss": self.train_loss, "seconds": self.epoch_seconds, **figures}
            self.history.append({"epoch": float(epoch), **figures})
            self._say(figures, epoch, args.num_train_epochs)

        self._track(figures, epoch)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if processes.is_main():
            past = Past(self.history, self.start, self.course.seconds)
            past.write(checkpoint_of(Path(args.output_dir), state.global_step))

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.bar.stop()

    def _repeat_past(self, epochs: float) -> None:
        """Show and track what earlier processes have seen, as if it were seen here."""
        if self.start is not None:
            _say_start(self.start)
            self._track(self.start, 0)

        for entry in self.history:
            epoch = round(entry["epoch"])
            console.say(_row([*_epoch_cells(entry, epoch, epochs), "-"]))
            self._track({key: value for key, value in entry.items() if key != "epoch"}, epoch)

    def _track(self, figures: dict[str, float], epoch: int) -> None:
        # The training loss is NaN until the first log.
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.tracker.metrics(finite, step=epoch)

    def _say(self, figures: dict[str, float], epoch: int, epochs: float) -> None:
        elapsed = time.perf_counter() - self.started
        finished_here = max(epoch - self.first_epoch, 1)
        left = duration(elapsed / finished_here * (epochs - epoch))
        console.say(_row([*_epoch_cells(figures, epoch, epochs), left]))


def _say_start(figures: dict[str, float]) -> None:
    # The weights before training: no epoch, and nothing was learned or timed.
    console.say(_row(["probe", "-", *_figure_cells(figures), "-", "-"]))


def _epoch_cells(figures: dict[str, float], epoch: int, epochs: float) -> list[str]:
    """The cells of an epoch's row, but for the time that is left."""
    cells = [f"{epoch}/{epochs:.0f}", f"{figures['train_loss']:.3f}", *_figure_cells(figures)]
    return [*cells, duration(figures["seconds"])]


def _figure_cells(figures: dict[str, float]) -> list[str]:
    if "val_loss" not in figures:
        return ["-"] * len(VALIDATION_METRICS)
    return [
        f"{figures['val_loss']:.3f}",
        in_percent(figures["val_accuracy"]),
        in_percent(figures["val_macro_f1"]),
    ]


def _row(cells: list[str]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells, EPOCH_COLUMNS.values(), strict=True)]
    return "".join(padded)


def duration(seconds: float) -> str:
    """For people: `8 s`, `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
