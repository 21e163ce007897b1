"""The one Trainer path: every regime gets the same batches, loss, schedule, metrics and checkpoints."""

import contextlib
import ctypes
import json
import math
import platform
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent import console, files
from bankintent.config import Regime, TrainConfig
from bankintent.corpus.dataset import SplitData
from bankintent.errors import TrainingError
from bankintent.measures import metrics
from bankintent.tracking import Tracker
from bankintent.training import features
from bankintent.training.dropout import fast_dropout
from bankintent.training.methods.distillation import Floats, TaughtLoss
from bankintent.training.progress import EpochReport
from bankintent.training.regimes import fast_adapters, set_training_mode

COMPLETE = "complete.json"
"""Written into a checkpoint folder after everything else; without it the folder may be a half-written one."""

BAD_STEPS = 10
"""Steps in a row with a non-finite loss, or skipped by the gradient scaler, after which training stops."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt, as its malloc.h numbers them."""


@dataclass(frozen=True)
class Fit:
    """What training cost and how it went."""

    seconds: float
    epochs: float
    sentences_per_second: float
    peak_memory_bytes: int
    precision: str
    hardware: str
    history: list[dict[str, float]]


def pick_precision(wanted: str) -> str:
    """bf16 where it is native, fp16 with gradient scaling on CUDA GPUs without it, else fp32."""
    if wanted != "auto":
        if wanted == "fp16" and not torch.cuda.is_available():
            raise TrainingError(
                "precision: fp16 needs a CUDA GPU, and there is none", "Set precision: auto"
            )
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def encode(
    data: SplitData, tokenizer: Tokenizer, teacher: Floats | None = None
) -> list[dict[str, Any]]:
    """Token ids without padding: batches are padded to their own longest text. With a teacher, each row's logits too."""
    encoded = tokenizer(data.texts, truncation=True)
    keys = [key for key in tokenizer.model_input_names if key in encoded]
    rows = [
        {**{key: encoded[key][i] for key in keys}, "labels": label}
        for i, label in enumerate(data.labels)
    ]
    return (
        rows
        if teacher is None
        else [{**row, "teacher": said} for row, said in zip(rows, teacher, strict=True)]
    )


def fit(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    train: SplitData,
    val: SplitData,
    labels: int,
    regime: Regime,
    config: TrainConfig,
    work: Path,
    tracker: Tracker,
    table: torch.Tensor | None = None,
    teacher: Floats | None = None,
) -> Fit:
    """Train `model` in place, from the newest complete checkpoint under `work` if there is one.

    With `table`, the frozen encoder's vectors of the training and then the validation rows, the encoder is not run.
    With `teacher`, the logits of a teacher for the training rows, `config.distill` says what they weigh in the loss.
    Raises TrainingError when the arithmetic overflows persistently.
    """
    precision = pick_precision(config.precision)
    weights = _class_weights(train.labels, labels) if config.class_weights == "balanced" else None
    loss = IntentLoss(config.label_smoothing, weights)
    history: list[dict[str, float]] = []
    callbacks: list[TrainerCallback] = [EpochReport(history, tracker), MarkComplete()]
    if config.early_stopping:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.early_stopping))
    trainer = IntentTrainer(
        regime=regime,
        precision=precision,
        head_lr=config.head_lr,
        model=model,
        args=_arguments(config, precision, work / "checkpoints"),
        train_dataset=encode(train, tokenizer, teacher)
        if table is None
        else features.rows(0, train.labels),
        eval_dataset=encode(val, tokenizer)
        if table is None
        else features.rows(len(train), val.labels),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=partial(_epoch_metrics, precision),
        compute_loss_func=loss if config.distill is None else TaughtLoss(loss, config.distill),
        callbacks=callbacks,
    )
    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    checkpoint = newest_complete_checkpoint(work / "checkpoints")
    if checkpoint is not None:
        console.say(f"Going on from {console.show_path(checkpoint)}.")
    started, cuda = time.perf_counter(), torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        keep_freed_memory()
    cached = contextlib.nullcontext() if table is None else features.replaced_encoder(model, table)
    with cached, fast_adapters(model), fast_dropout(model):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    release(trainer, model)
    trained = sum(entry.get("seconds", 0.0) for entry in history)
    return Fit(
        seconds=seconds,
        epochs=float(trainer.state.epoch or 0),
        sentences_per_second=len(train) * len(history) / trained if trained else 0.0,
        peak_memory_bytes=peak_memory(),
        precision=precision,
        hardware=torch.cuda.get_device_name()
        if cuda
        else f"CPU, {torch.get_num_threads()} threads",
        history=history,
    )


def release(trainer: Trainer, model: torch.nn.Module) -> None:
    """Undo what mixed precision did to the model's forward method: from here on it answers in float32 again.

    Accelerate marks a model that it has prepared and passes over it the next time, which would leave a second Trainer
    in float32 without a word, at half the speed; so the mark goes too.
    """
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.__dict__.pop("_is_accelerate_prepared", None)


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; half-written ones are passed over."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def overflow(what: str, precision: str) -> TrainingError:
    """What to say, and which settings to change, when numbers are no longer finite."""
    change = f"precision: {'bf16 or fp32' if precision == 'fp16' else 'fp32'}"
    return TrainingError(f"{what} (precision {precision})", f"Set a lower lr, or {change}")


class IntentLoss:
    """Cross-entropy with label smoothing and class weights, normalised over the whole accumulated batch."""

    def __init__(self, smoothing: float, weights: torch.Tensor | None) -> None:
        self.smoothing = smoothing
        self.weights = weights

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        logits = outputs.logits.float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        total = functional.cross_entropy(
            logits, labels, weight=weights, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))


class IntentTrainer(Trainer):
    """Trainer with the regime's training mode, a learning rate for the head, and a stop on persistent overflow."""

    def __init__(
        self, regime: Regime, precision: str, head_lr: float | None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._regime = regime
        self._precision = precision
        self._head_lr = head_lr
        self._bad_steps = 0
        self._last_loss: torch.Tensor | None = None
        self.optimizer: torch.optim.Optimizer | None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        if model.training:
            set_training_mode(model, self._regime)
        if "teacher" in inputs:  # what the Trainer hands on to the loss are the labels
            inputs["labels"] = inputs["labels"], inputs.pop("teacher")
        return super().compute_loss(model, inputs, *args, **options)

    def training_step(self, model: Any, *args: Any, **options: Any) -> torch.Tensor:
        self._stop_on_overflow()
        # The loss is looked at one step later: reading it now would make a GPU wait.
        self._last_loss = super().training_step(model, *args, **options)
        return self._last_loss

    def _stop_on_overflow(self) -> None:
        finite = self._last_loss is None or math.isfinite(self._last_loss.item())
        skipped = getattr(self.optimizer, "step_was_skipped", False)
        self._bad_steps = 0 if finite and not skipped else self._bad_steps + 1
        if self._bad_steps >= BAD_STEPS:
            raise overflow(f"the loss overflowed in {BAD_STEPS} steps in a row", self._precision)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            target = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(target))
            heads = _head_parameters(target)
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in target.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((id(parameter) in heads, name in decayed), []).append(
                        parameter
                    )
            self.optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "weight_decay": self.args.weight_decay if decay else 0.0,
                        "lr": (self._head_lr if head else None) or self.args.learning_rate,
                    }
                    for (head, decay), parameters in groups.items()
                ],
                fused=True,
            )
        return self.optimizer


class MarkComplete(TrainerCallback):
    """Marks a checkpoint as whole, after the Trainer has written all of it."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        files.write_text(folder / COMPLETE, json.dumps({"step": state.global_step}) + "\n")


def _arguments(config: TrainConfig, precision: str, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=config.scheduler
        if config.scheduler != "constant"
        else "constant_with_warmup",
        warmup_steps=config.warmup,  # a float below one is a share of all steps
        train_sampling_strategy="group_by_length",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=config.early_stopping is not None,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        logging_nan_inf_filter=False,  # it would show a NaN loss as 0.0
        remove_unused_columns=False,  # a row holds what the model takes, and what the loss does
        label_names=[
            "labels"
        ],  # under PEFT the Trainer cannot find it out, and eval_loss goes missing
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )


def _epoch_metrics(precision: str, prediction: EvalPrediction) -> dict[str, float]:
    logits = np.asarray(prediction.predictions, dtype=np.float32)
    if not np.isfinite(logits).all():
        raise overflow("the model's answers overflowed", precision)
    return metrics.summary(logits, np.asarray(prediction.label_ids))


def _class_weights(train_labels: list[int], labels: int) -> torch.Tensor:
    """n / (labels * count): the mean weight over the training rows is one."""
    counts = np.bincount(train_labels, minlength=labels)
    return torch.tensor(len(train_labels) / (labels * np.maximum(counts, 1)), dtype=torch.float32)


def _head_parameters(model: Any) -> set[int]:
    """ids of the parameters behind the encoder, also inside a PEFT wrapper."""
    from bankintent.training.regimes import head_modules

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {id(parameter) for module in head_modules(inner) for parameter in module.parameters()}


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next one; does nothing with another C library.

    By default it gives large blocks back to the system at once, and each step pays for the same pages anew: kept, steps
    on a CPU were 7 to 10 % faster. The process holds its peak to its end, which for training is its life.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1)):
        mallopt(option, value)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else the process's resident peak."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
