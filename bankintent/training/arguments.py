"""The arguments of transformers' Trainer that a training config stands for."""

import torch
from transformers import TrainingArguments

from bankintent.config import TrainConfig
from bankintent.training import processes
from bankintent.training.course import Course
from bankintent.training.selection import METRIC


def trainer_arguments(
    config: TrainConfig, precision: str, course: Course, is_validated: bool
) -> TrainingArguments:
    """Batches, schedule, precision, and checkpoints.

    `is_validated` is whether there are validation rows to compare epochs by.
    """
    folder = course.checkpoints
    scheduler = "constant_with_warmup" if config.scheduler == "constant" else config.scheduler
    has_cuda = torch.cuda.is_available()

    return TrainingArguments(
        # Whole: a checkpoint records its own path, and may be continued from another folder.
        output_dir=str(folder.absolute()),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size // processes.count(),
        per_device_eval_batch_size=config.eval_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=scheduler,
        warmup_steps=config.warmup,  # a float below one is a share of all steps
        train_sampling_strategy="group_by_length",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not (has_cuda or torch.backends.mps.is_available()),
        dataloader_pin_memory=has_cuda,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no" if course.is_fold else "epoch",
        # `checkpoints.rotate` removes old ones, when the new one is marked as whole.
        save_total_limit=None,
        load_best_model_at_end=config.keep == "best",
        metric_for_best_model=METRIC if is_validated else None,
        greater_is_better=True if is_validated else None,
        logging_nan_inf_filter=False,  # it would show a NaN loss as 0.0
        remove_unused_columns=False,  # a row holds what the model takes, and what the loss does
        # Under PEFT the Trainer cannot find it out, and eval_loss goes missing.
        label_names=["labels"],
        # The table of cached features is one, and would be sent to all at each step.
        ddp_broadcast_buffers=False,
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )
