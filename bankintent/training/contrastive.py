"""A supervised contrastive stage before training: sentences of one intent move together, look-alikes of others apart.

Supervised contrastive loss (Khosla et al., 2020) over the vectors that the classification layer reads. Batches are
composed of a few sentences each of a few intents; with mined hard negatives, intents that the pretrained encoder
confuses come into the same batch, so that "I lost my debit card" is told from "I need a new debit PIN".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.config import ContrastiveSection
from bankintent.training.probe import output_layer

PART = 32
"""Sentences in one forward pass of the stage."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def supervised_contrastive_loss(vectors: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean over the anchors that have a positive; `vectors` (batch, hidden), `labels` (batch,).

    Khosla et al. (2020), equation 2: the mean of the log-probabilities of the positives, over cosine similarities.
    """
    vectors = functional.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarity = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    log_probability = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~positive, 0.0)
    counts = positive.sum(dim=1)
    return -(log_probability.sum(dim=1) / counts.clamp(min=1))[counts > 0].mean()


def nearest_intents(vectors: Floats, labels: Ints, count: int) -> Ints:
    """(count, count) intents by likeness of their mean vectors, each row beginning with the intent itself.

    `vectors` (rows, hidden) are the pretrained encoder's; the mean of all is taken away first, which all sentences of
    one domain share.
    """
    centres = np.zeros((count, vectors.shape[1]), dtype=np.float32)
    np.add.at(centres, labels, vectors)
    centres /= np.maximum(np.bincount(labels, minlength=count), 1)[:, None]
    centres -= centres.mean(axis=0)
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    likeness = centres @ centres.T
    np.fill_diagonal(likeness, np.inf)
    return np.asarray(np.argsort(-likeness, axis=1, kind="stable"))


class IntentBatches:
    """Row numbers of `steps` batches, each with up to `sentences` rows of up to `intents` intents.

    With `hard` above zero an intent brings that many of its nearest intents along.
    """

    def __init__(self, labels: Ints, nearest: Ints, section: ContrastiveSection, seed: int) -> None:
        self._rows = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
        self._nearest = nearest
        self._section = section
        self._seed = seed

    def __len__(self) -> int:
        return self._section.steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self._seed)
        for _ in range(len(self)):
            chosen: list[int] = []
            for intent in self._intents(rng):
                rows = self._rows[intent]
                size = min(self._section.sentences, len(rows))
                chosen += rng.choice(rows, size, replace=False).tolist()
            yield chosen

    def _intents(self, rng: np.random.Generator) -> list[int]:
        found: dict[int, None] = {}
        for anchor in rng.permutation(list(self._rows)):
            for intent in self._nearest[anchor][: 1 + self._section.hard]:
                if int(intent) in self._rows:
                    found[int(intent)] = None
            if len(found) >= self._section.intents:
                break
        return list(found)[: self._section.intents]


class ContrastiveTrainer(Trainer):
    """The Trainer with composed batches and the contrastive loss in the place of cross-entropy."""

    def __init__(self, batches: IntentBatches, labels: int, temperature: float, **options: Any) -> None:
        super().__init__(**options)
        self._batches = batches
        self._temperature = temperature
        self._layer = output_layer(self.model, labels)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        """The loss over what the classification layer reads; its own weights get no gradient."""
        labels, kept = inputs.pop("labels"), []
        lengths = inputs["attention_mask"].sum(dim=1)
        order = lengths.argsort()
        handle = self._layer.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
        try:
            # One loss, but several forward passes over texts of like length: most of one wide pass would be padding.
            for part in order.split(PART):
                longest = int(lengths[part].max())
                model(**{key: values[part, :longest] for key, values in inputs.items()})
        finally:
            handle.remove()
        return supervised_contrastive_loss(torch.cat(kept), labels[order], self._temperature)


def run(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    rows: list[dict[str, Any]],
    batches: IntentBatches,
    labels: int,
    section: ContrastiveSection,
    precision: str,
    seed: int,
    folder: Path,
) -> float:
    """Train the weights of `model` that learn, in place; returns the mean loss of the last quarter of the steps."""
    trainer = ContrastiveTrainer(
        batches,
        labels,
        section.temperature,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=section.steps,
            learning_rate=section.lr,
            warmup_steps=0.1,
            weight_decay=0.01,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=max(section.steps // 4, 1),
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        ),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return next(float(entry["loss"]) for entry in reversed(trainer.state.log_history) if "loss" in entry)
