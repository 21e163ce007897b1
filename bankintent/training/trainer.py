"""The one Trainer path: every regime has the same batches, loss, schedule, metrics, checkpoints."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from bankintent.config import Regime, TrainConfig
from bankintent.training import checkpoints, hardware, processes
from bankintent.training.arguments import trainer_arguments
from bankintent.training.batch_share import BatchShare, RowsWithFillers
from bankintent.training.course import Course
from bankintent.training.dropout import fast_dropout
from bankintent.training.encoding import TrainingRows
from bankintent.training.features import Features, replaced_encoder
from bankintent.training.forward_check import has_idle_weights
from bankintent.training.losses import IntentLoss, class_weights
from bankintent.training.methods.distillation import TaughtLoss
from bankintent.training.progress import EpochReport
from bankintent.training.regimes import fast_adapters, head_modules, set_training_mode
from bankintent.training.selection import (
    KeepBest,
    MeasureStart,
    Published,
    StopAfter,
    StopEarly,
    choose_epoch,
    counts_the_start,
    require_best,
    was_over,
)
from bankintent.training.validating import Validator, overflow

BAD_STEPS = 10
"""Steps in a row with a non-finite loss, or skipped by the gradient scaler, after which training
stops."""


@dataclass(frozen=True)
class Fit:
    """The cost of training and its course."""

    seconds: float
    epochs: float
    sentences_per_second: float
    peak_memory_bytes: int
    precision: str
    hardware: str
    processes: int
    """How many have trained together; seconds and memory are those of the main one."""
    history: list[dict[str, float]]
    """Figures of each epoch."""
    published: Published
    """The epoch whose weights the model has."""
    answers: list[NDArray[np.float32]] = field(default_factory=list)
    """Of a fold: (validation rows, labels) logits after each epoch, before them those of a probe
    that training starts from."""


def fit(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    rows: TrainingRows,
    config: TrainConfig,
    course: Course,
) -> Fit:
    """Train `model` in place, from the checkpoint of `course` if there is one.

    Afterwards it has the weights that are to be published. Raises TrainingError when the arithmetic
    overflows persistently.
    """
    precision = hardware.pick_precision(config.precision)
    loss = _loss(model, rows, config)
    val_rows = rows.encode_val(tokenizer)
    batch = config.eval_batch_size
    validator = Validator(val_rows, tokenizer, batch, loss, precision, course.is_fold)
    report = EpochReport(course)

    trainer = IntentTrainer(
        regime=config.regime,
        validator=validator,
        precision=precision,
        head_lr=config.head_lr,
        model=model,
        args=trainer_arguments(config, precision, course, is_validated=bool(val_rows)),
        train_dataset=rows.encode_train(tokenizer, config.cache_dir),
        eval_dataset=val_rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_loss_func=loss,
        callbacks=_callbacks(config, report),
    )
    _complete_callbacks(trainer, config, course)

    hardware.prepare_memory()
    _train(trainer, model, rows.features, config, course)

    return Fit(
        seconds=course.seconds,
        epochs=float(trainer.state.epoch or 0),
        sentences_per_second=_rate(len(rows.train), report.history),
        peak_memory_bytes=hardware.peak_memory(),
        precision=precision,
        hardware=hardware.hardware_name(),
        processes=processes.count(),
        history=report.history,
        published=course.published or choose_epoch(trainer.state.log_history, config),
        answers=validator.answers,
    )


def _train(
    trainer: "IntentTrainer",
    model: torch.nn.Module,
    features: Features | None,
    config: TrainConfig,
    course: Course,
) -> None:
    if course.last_epoch == 0:
        # The weights before training are the ones to publish.
        return

    checkpoint = course.resume_from
    if checkpoint is not None and was_over(checkpoint, config, course.last_epoch):
        # Nothing is left to train; the Trainer would begin another epoch.
        trainer.args.max_steps = checkpoints.step_of(checkpoint)

    processes.draw_apart(config.seed)
    with contextlib.ExitStack() as stack:
        if features is not None:
            stack.enter_context(replaced_encoder(model, features.table))
            stack.enter_context(hardware.one_thread())
        stack.enter_context(fast_adapters(model))
        stack.enter_context(fast_dropout(model))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    release(trainer, model)


def _complete_callbacks(trainer: Trainer, config: TrainConfig, course: Course) -> None:
    # EpochReport is in their place.
    remove_default_output(trainer)
    if course.is_fold:
        if config.head_init == "probe":
            trainer.add_callback(MeasureStart(trainer))
        return
    if course.last_epoch is not None:
        trainer.add_callback(StopAfter(course.last_epoch))
        return
    if config.keep == "best":
        trainer.add_callback(KeepBest(trainer, counts_the_start(config)))


def remove_default_output(trainer: Trainer) -> None:
    """Take the Trainer's own progress bar and log lines away."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def release(trainer: Trainer, model: torch.nn.Module) -> None:
    """Undo what mixed precision did to the model's forward method: it answers in float32 again.

    Accelerate marks a model that it has prepared and passes over it the next time, which would
    leave a second Trainer in float32 without a word, at half the speed; so the mark goes too.
    """
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.__dict__.pop("_is_accelerate_prepared", None)


class IntentTrainer(Trainer):
    """Trainer with the regime's training mode, a learning rate for the head, a stop on overflow.

    It validates in float32.
    """

    def __init__(
        self,
        regime: Regime,
        validator: Validator,
        precision: str,
        head_lr: float | None,
        **options: Any,
    ) -> None:
        if processes.count() > 1:
            # To look for such weights at each step takes time, and a warning says so.
            is_idle = has_idle_weights(options["model"], options["processing_class"])
            options["args"].ddp_find_unused_parameters = is_idle
        super().__init__(**options)

        self._regime = regime
        self._validator = validator
        self._precision = precision
        self._head_lr = head_lr
        self._bad_steps = 0
        self._last_loss: torch.Tensor | None = None

        self.optimizer: torch.optim.Optimizer | None
        self.control: TrainerControl

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        if model.training:
            # At each step: the Trainer has just called model.train(), which would put the frozen
            # encoder of a head-only run into training mode, dropout included.
            # Not what wraps it where several processes train.
            set_training_mode(self.model, self._regime)

        if "teacher" in inputs:
            # The Trainer hands nothing but the labels on to the loss.
            inputs["labels"] = (inputs["labels"], inputs.pop("teacher"))

        return super().compute_loss(model, inputs, *args, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches; of several processes each gets its part of every one."""
        if processes.count() == 1:
            return super().get_train_dataloader()

        assert self.data_collator is not None
        # The sampler groups by length, and draws, as for one process.
        whole = self.args.per_device_train_batch_size * processes.count()
        rows = self.train_dataset
        sampler = LengthGroupedSampler(
            whole * self.args.gradient_accumulation_steps,
            dataset=rows,
            model_input_name=self.processing_class.model_input_names[0],
        )
        return DataLoader(
            RowsWithFillers(rows),
            batch_sampler=BatchShare(sampler, whole),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # With another number of processes the main one's has another name.
        with checkpoints.own_random_state(checkpoint, processes.count()) as folder:
            super()._load_rng_state(folder)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation rows, and log the figures under the Trainer's names.

        Without such rows there are no figures.
        """
        assert self.model is not None
        figures: dict[str, float] = {}
        if len(self._validator):
            measured = self._validator.measure(self.model)
            figures = {f"eval_{name}": value for name, value in measured.items()}
            self.log(figures)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, figures
        )
        return figures

    def training_step(self, model: Any, *args: Any, **options: Any) -> torch.Tensor:
        self._stop_on_overflow()
        # The loss is looked at one step later: reading it now would make a GPU wait.
        self._last_loss = super().training_step(model, *args, **options)
        return self._last_loss

    def _stop_on_overflow(self) -> None:
        # Before the first step there is no loss; without fp16 no step is skipped.
        is_finite = self._last_loss is None or math.isfinite(self._last_loss.item())
        was_skipped = getattr(self.optimizer, "step_was_skipped", False)
        if is_finite and not was_skipped:
            self._bad_steps = 0
            return

        # A few such steps are normal: the gradient scaler finds its scale by them.
        self._bad_steps += 1
        if self._bad_steps >= BAD_STEPS:
            raise overflow(f"the loss overflowed in {BAD_STEPS} steps in a row", self._precision)

    def _load_best_model(self) -> None:
        # Before the Trainer opens it, which believes what it finds there.
        require_best(self.state)
        super()._load_best_model()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = self._parameter_groups(self.model if model is None else model)
            self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def _parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """AdamW's groups: weights with and without decay, of the encoder and of the head."""
        decayed_names = set(self.get_decay_parameter_names(model))
        head_ids = head_parameters(model)

        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                group = (id(parameter) in head_ids, name in decayed_names)
                groups.setdefault(group, []).append(parameter)

        head_lr = self._head_lr or self.args.learning_rate
        return [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                "lr": head_lr if is_head else self.args.learning_rate,
            }
            for (is_head, is_decayed), parameters in groups.items()
        ]


class MarkComplete(TrainerCallback):
    """Marks a checkpoint as whole, after all of it is written, and only then removes older ones."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir)

        def mark() -> None:
            checkpoints.mark(checkpoints.checkpoint_of(folder, state.global_step))
            checkpoints.rotate(folder, keeps_best=args.load_best_model_at_end)

        # Every process writes the state of its random numbers.
        processes.wait_for_all()
        processes.from_main(mark)


def head_parameters(model: Any) -> set[int]:
    """ids of the parameters behind the encoder, also inside a PEFT wrapper."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()

    ids: set[int] = set()
    for module in head_modules(model):
        ids.update(id(parameter) for parameter in module.parameters())
    return ids


def _loss(
    model: torch.nn.Module, rows: TrainingRows, config: TrainConfig
) -> Callable[..., torch.Tensor]:
    weights = None
    if config.class_weights == "balanced":
        weights = class_weights(rows.train.labels, model.config.num_labels)
    loss = IntentLoss(config.label_smoothing, weights)

    return loss if config.distill is None else TaughtLoss(loss, config.distill)


def _callbacks(config: TrainConfig, report: EpochReport) -> list[TrainerCallback]:
    # In this order: what the report saves of the epochs is a part of the checkpoint.
    callbacks: list[TrainerCallback] = [report, MarkComplete()]
    if config.early_stopping is not None:
        callbacks.append(StopEarly(config.early_stopping))

    return callbacks


def _rate(train_rows: int, history: list[dict[str, float]]) -> float:
    """Training sentences a second, over all epochs."""
    seconds = sum(entry.get("seconds", 0.0) for entry in history)
    return train_rows * len(history) / seconds if seconds else 0.0
