"""A supervised contrastive stage before training: sentences of one intent move together, look-alikes of others apart.

Supervised contrastive loss (Khosla et al., 2020) over the vectors that the classification layer reads. Batches are
composed of a few sentences each of a few intents; with mined hard negatives, a sentence brings along the sentences of
other intents that the pretrained encoder confuses with it, as "I lost my debit card" and "I need a new debit PIN".
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent import files
from bankintent.config import ContrastiveSection
from bankintent.corpus.dataset import SplitData
from bankintent.training.backbones import output_layer
from bankintent.training.dropout import fast_dropout
from bankintent.training.regimes import fast_adapters
from bankintent.training.trainer import release

PART = 16
"""Sentences in one forward pass of the stage."""

MINED = 5
"""Hard negatives kept of each sentence."""

SAME = 0.9999
"""Cosine from which two texts count as the same one."""

BLOCK = 1000

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def supervised_contrastive_loss(
    vectors: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean over the anchors that have a positive; `vectors` (batch, hidden), `labels` (batch,).

    Khosla et al. (2020), equation 2: the mean of the log-probabilities of the positives, over cosine similarities.
    """
    vectors = functional.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarity = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    log_probability = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(
        ~positive, 0.0
    )
    counts = positive.sum(dim=1)
    return -(log_probability.sum(dim=1) / counts.clamp(min=1))[counts > 0].mean()


@dataclass(frozen=True)
class Negatives:
    """For each training row the `MINED` nearest rows of other intents, nearest first; both arrays are (rows, MINED)."""

    rows: Ints
    """Row numbers; -1 where there are fewer."""
    cosines: Floats

    def write(self, path: Path, train: SplitData, names: tuple[str, ...]) -> None:
        """A CSV file for people to read, the closest pairs first: text, label, negative, negative_label, cosine."""
        pairs = [
            (round(float(cosine), 4), anchor, int(row))
            for anchor, (rows, cosines) in enumerate(zip(self.rows, self.cosines, strict=True))
            for row, cosine in zip(rows, cosines, strict=True)
            if row >= 0
        ]
        with files.staged(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["text", "label", "negative", "negative_label", "cosine"])
            for cosine, a, b in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
                labels = names[train.labels[a]], names[train.labels[b]]
                writer.writerow([train.texts[a], labels[0], train.texts[b], labels[1], cosine])


def mine(vectors: Floats, labels: Ints) -> Negatives:
    """The hard negatives of each row by cosine of the pretrained encoder's vectors (rows, hidden).

    Two rows with the very same vector are passed over: one text under two labels is an error of the data, and teaches
    nothing.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = np.full((len(labels), MINED), -1, dtype=np.int64)
    cosines = np.full((len(labels), MINED), -np.inf, dtype=np.float32)
    for start in range(
        0, len(labels), BLOCK
    ):  # the whole square of a large split would not fit into memory
        part = slice(start, start + BLOCK)
        likeness = unit[part] @ unit.T
        likeness[(labels[part, None] == labels[None, :]) | (likeness > SAME)] = -np.inf
        nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :MINED]
        values = np.take_along_axis(likeness, nearest, axis=1)
        width = nearest.shape[1]
        found[part, :width], cosines[part, :width] = (
            np.where(np.isfinite(values), nearest, -1),
            values,
        )
    return Negatives(found, cosines)


class IntentBatches:
    """Row numbers of `steps` batches, each with up to `sentences` rows of up to `intents` intents.

    With `hard` above zero a row brings that many of its mined negatives along, for which intents make room.
    """

    def __init__(
        self, labels: Ints, negatives: Negatives | None, section: ContrastiveSection, seed: int
    ) -> None:
        self._rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._negatives = negatives
        self._section = section
        self._seed = seed

    def __len__(self) -> int:
        return self._section.steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self._seed)
        intents = max(2, self._section.intents // (1 + self._section.hard))
        for _ in range(len(self)):
            batch: dict[int, None] = {}
            for intent in rng.permutation(len(self._rows))[:intents]:
                rows = self._rows[intent]
                chosen = rng.choice(rows, min(self._section.sentences, len(rows)), replace=False)
                batch |= dict.fromkeys([*chosen.tolist(), *self._hard(chosen, rng)])
            yield list(batch)

    def _hard(self, rows: Ints, rng: np.random.Generator) -> list[int]:
        """Some of the mined negatives of each of `rows`."""
        if self._negatives is None or not self._section.hard:
            return []
        mined = self._negatives.rows[rows]
        columns = rng.permutation(mined.shape[1])[: self._section.hard]
        return [row for row in mined[:, columns].ravel().tolist() if row >= 0]


class ContrastiveTrainer(Trainer):
    """The Trainer with composed batches and the contrastive loss in the place of cross-entropy."""

    def __init__(
        self, batches: IntentBatches, labels: int, temperature: float, **options: Any
    ) -> None:
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
            # The outer autocast lets them share one cast of the weights.
            with self.accelerator.autocast():
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
    with fast_adapters(model), fast_dropout(model):
        trainer.train()
    release(trainer, model)
    return next(
        float(entry["loss"]) for entry in reversed(trainer.state.log_history) if "loss" in entry
    )
