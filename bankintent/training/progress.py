"""What is seen of a training run while it goes on: a progress bar, and a line for each epoch."""

import math
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState

from bankintent import console
from bankintent.tracking import Tracker


class EpochReport(TrainerCallback):
    """A progress bar, one line for each epoch with its validation metrics, and the same numbers to the tracker."""

    def __init__(self, history: list[dict[str, float]], tracker: Tracker) -> None:
        self.history = history
        self.tracker = tracker
        self.loss = math.nan
        self.started = self.epoch_started = time.perf_counter()
        self.first_epoch = 0.0
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
        self.started = self.epoch_started = time.perf_counter()
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
        self.loss = (logs or {}).get("loss", self.loss)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
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
        entry = {"epoch": float(epoch), "train_loss": self.loss, "seconds": self.epoch_seconds}
        entry |= {
            f"val_{k.removeprefix('eval_')}": metrics[k]
            for k in ("eval_loss", "eval_accuracy", "eval_macro_f1")
        }
        self.history.append(entry)
        elapsed = time.perf_counter() - self.started
        left = _duration(
            elapsed / max(epoch - self.first_epoch, 1) * (args.num_train_epochs - epoch)
        )
        console.say(
            f"epoch {epoch:>2}/{args.num_train_epochs:.0f}  loss {self.loss:6.3f}"
            f"  val loss {entry['val_loss']:6.3f}  accuracy {100 * entry['val_accuracy']:5.2f} %"
            f"  macro-F1 {100 * entry['val_macro_f1']:5.2f} %  {self.epoch_seconds:5.0f} s  about {left} left"
        )
        self.tracker.metrics(
            {k: v for k, v in entry.items() if k != "epoch" and math.isfinite(v)}, step=epoch
        )

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
