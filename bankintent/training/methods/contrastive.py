"""A supervised contrastive stage before training: sentences of one intent move together.

Supervised contrastive loss (Khosla et al., 2020) over the vectors that the classification layer
reads. Batches are composed of a few sentences each of a few intents. With mined hard negatives, a
sentence brings along the sentences of other intents that the pretrained encoder confuses with it,
as "I lost my debit card" and "I need a new debit PIN".
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
    Trainer,
    TrainingArguments,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent import files
from bankintent.config import ContrastiveSection
from bankintent.corpus.dataset import SplitData
from bankintent.inference.head_inputs import HeadInputs, output_layer
from bankintent.training import processes
from bankintent.training.dropout import fast_dropout
from bankintent.training.features import EncodedRows
from bankintent.training.progress import StageReport
from bankintent.training.regimes import fast_adapters
from bankintent.training.trainer import release, remove_default_output

FORWARD_ROWS = 16
"""Sentences in one forward pass of the stage."""

MINED = 5
"""Hard negatives that are kept of each sentence."""

SAME_TEXT = 0.9999
"""Cosine from which two texts count as the same one: equal vectors differ by rounding alone."""

BLOCK_ROWS = 1000
"""Rows whose cosines are computed at a time: those of a large split do not fit into memory."""

COLUMNS = ("text", "label", "negative", "negative_label", "cosine")
"""Columns of the table of hard negatives."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def supervised_contrastive_loss(
    vectors: torch.Tensor, label_ids: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean over the anchors that have a positive; `vectors` (batch, hidden), `label_ids` (batch,).

    Khosla et al. (2020), equation 2: the mean of the log-probabilities of the positives, over
    cosine similarities.
    """
    unit = functional.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(label_ids), dtype=torch.bool, device=label_ids.device)
    similarity = unit @ unit.T / temperature
    similarity = similarity.masked_fill(itself, -torch.inf)

    same_intent = label_ids[:, None] == label_ids[None, :]
    positive = same_intent & ~itself
    positives = positive.sum(dim=1)

    # Masked before the sum: the -inf of an anchor with itself times zero would be NaN.
    log_probability = similarity - similarity.logsumexp(dim=1, keepdim=True)
    log_probability = log_probability.masked_fill(~positive, 0.0)
    means = log_probability.sum(dim=1) / positives.clamp(min=1)

    # An intent with one sentence in the batch gives no positive to learn from.
    return -means[positives > 0].mean()


@dataclass(frozen=True)
class Negatives:
    """The nearest rows of other intents of each training row, nearest first."""

    rows: Ints
    """(rows, MINED) row numbers; -1 where there are fewer."""
    cosines: Floats
    """(rows, MINED)."""

    def write(self, path: Path, train: SplitData, names: tuple[str, ...]) -> None:
        """Write a CSV file with COLUMNS for people to read, the closest pairs first."""
        with files.staged(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)

            for cosine, anchor, negative in sorted(self.pairs(), key=_closest_first):
                text = train.texts[anchor]
                label = names[train.labels[anchor]]
                negative_text = train.texts[negative]
                negative_label = names[train.labels[negative]]
                writer.writerow([text, label, negative_text, negative_label, cosine])

    def pairs(self) -> list[tuple[float, int, int]]:
        """(cosine with four decimals, row, negative) of every negative, in the order of rows."""
        pairs = []
        for anchor, rows in enumerate(self.rows.tolist()):
            for row, cosine in zip(rows, self.cosines[anchor], strict=True):
                if row >= 0:
                    pairs.append((round(float(cosine), 4), anchor, row))
        return pairs


def _closest_first(pair: tuple[float, int, int]) -> tuple[float, int, int]:
    cosine, anchor, negative = pair
    return -cosine, anchor, negative


def mine(vectors: Floats, label_ids: Ints) -> Negatives:
    """The hard negatives of each row by cosine of the pretrained encoder's vectors (rows, hidden).

    Two rows with the very same vector are passed over: one text under two labels is an error of
    the data, and teaches nothing.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(norms, 1e-12)
    rows = np.full((len(label_ids), MINED), -1, dtype=np.int64)
    cosines = np.full((len(label_ids), MINED), -np.inf, dtype=np.float32)

    for start in range(0, len(label_ids), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        likeness = unit[block] @ unit.T
        same_intent = label_ids[block, None] == label_ids[None, :]
        likeness[same_intent | (likeness > SAME_TEXT)] = -np.inf

        # Stable, so that rows of equal cosine keep their order on every machine.
        order = np.argsort(-likeness, axis=1, kind="stable")
        nearest = order[:, :MINED]
        nearest_cosines = np.take_along_axis(likeness, nearest, axis=1)

        # A split with fewer rows than MINED fills only the first columns.
        width = nearest.shape[1]
        is_of_another_intent = np.isfinite(nearest_cosines)
        rows[block, :width] = np.where(is_of_another_intent, nearest, -1)
        cosines[block, :width] = nearest_cosines
    return Negatives(rows, cosines)


class IntentBatches:
    """A batch sampler: row numbers of a few sentences each of a few intents.

    There are `section.steps` batches, each with up to `sentences` rows of up to `intents` intents.
    With `hard` above zero a row brings that many of its mined negatives along, for which intents
    make room.
    """

    def __init__(
        self,
        label_ids: Ints,
        negatives: Negatives | None,
        section: ContrastiveSection,
        seed: int,
    ) -> None:
        self.section = section
        self.seed = seed
        self._rows_by_intent = [
            np.flatnonzero(label_ids == label_id) for label_id in np.unique(label_ids)
        ]
        self._negatives = negatives

    @property
    def fewest_rows(self) -> int:
        """Rows that every batch has at least: one of each of its intents."""
        return min(self._intents, len(self._rows_by_intent))

    @property
    def _intents(self) -> int:
        # At least two: with a single intent every pair is a positive, and nothing is contrasted.
        rows_of_anchor = 1 + self.section.hard
        return max(2, self.section.intents // rows_of_anchor)

    def __len__(self) -> int:
        return self.section.steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self.seed)
        for _ in range(len(self)):
            yield self._compose(self._intents, rng)

    def _compose(self, intents: int, rng: np.random.Generator) -> list[int]:
        """Row numbers of one batch, each once."""
        order = rng.permutation(len(self._rows_by_intent))
        batch: list[int] = []
        for intent in order[:intents]:
            rows = self._rows_by_intent[intent]
            sentences = min(self.section.sentences, len(rows))
            anchors = rng.choice(rows, sentences, replace=False)
            batch += anchors.tolist()
            batch += self._draw_negatives(anchors, rng)

        # A row can be drawn as an anchor and as a negative. A dict keeps the order, a set does not.
        return list(dict.fromkeys(batch))

    def _draw_negatives(self, anchors: Ints, rng: np.random.Generator) -> list[int]:
        """Some of the mined negatives of each of the rows `anchors`."""
        if self._negatives is None or not self.section.hard:
            return []

        mined = self._negatives.rows[anchors]
        columns = rng.permutation(mined.shape[1])
        rows = mined[:, columns[: self.section.hard]].ravel()
        return rows[rows >= 0].tolist()


class StageShare:
    """A batch sampler: every so many-th row of each batch, for one of several processes."""

    def __init__(self, batches: IntentBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch[processes.rank() :: processes.count()]


class ContrastiveTrainer(Trainer):
    """The Trainer with composed batches and the contrastive loss in the place of cross-entropy."""

    def __init__(self, batches: IntentBatches, **options: Any) -> None:
        super().__init__(**options)
        self._batches = batches
        self._output_layer = output_layer(self.model, self.model.config.num_labels)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as `IntentBatches` composes them; the Trainer's own sampler would draw rows."""
        batches: Any = self._batches
        if processes.count() > 1:
            batches = StageShare(batches)
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
        )
        # Of several processes each draws all batches and takes its part: nothing is left to divide.
        return self.accelerator.prepare(loader) if processes.count() == 1 else loader

    def training_step(self, model: Any, *args: Any, **options: Any) -> torch.Tensor:
        if processes.count() == 1:
            return super().training_step(model, *args, **options)

        # Not by what wraps the model: a step has several forward passes, which that cannot count.
        assert self.model is not None
        self.model.train()
        loss = super().training_step(self.model, *args, **options)
        processes.add_gradients(self.model.parameters())
        return loss

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        """The loss over what the classification layer reads; its own weights get no gradient."""
        label_ids = inputs.pop("labels")
        lengths = inputs["attention_mask"].sum(dim=1)
        order = lengths.argsort()

        vectors: list[torch.Tensor] = []
        is_padded_left = not inputs["attention_mask"][:, 0].all()
        # One loss, but several forward passes over texts of like length: most of one wide pass
        # would be padding. The outer autocast lets them share one cast of the weights.
        with self.accelerator.autocast(), HeadInputs(self._output_layer) as head:
            for rows in order.split(FORWARD_ROWS):
                longest = int(lengths[rows].max())
                columns = slice(-longest, None) if is_padded_left else slice(longest)
                part = {key: values[rows, columns] for key, values in inputs.items()}
                vectors.append(head.take(model(**part).logits))

        temperature = self._batches.section.temperature
        # Each vector is contrasted with those of all processes.
        every_vector, every_label = processes.gathered(torch.cat(vectors), label_ids[order])
        return supervised_contrastive_loss(every_vector, every_label, temperature)


def run_stage(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    rows: EncodedRows,
    batches: IntentBatches,
    precision: str,
    output_dir: Path,
) -> float:
    """Train those weights of `model` that require gradients, in place.

    `rows` are the encoded training rows, which `batches` numbers. Returns the mean loss of the
    last quarter of the steps.
    """
    processes.require_rows(batches.fewest_rows, "contrastive.intents")
    trainer = ContrastiveTrainer(
        batches,
        model=model,
        args=_stage_arguments(batches, precision, output_dir),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[StageReport("contrastive stage")],
    )
    remove_default_output(trainer)

    with fast_adapters(model), fast_dropout(model):
        trainer.train()
    # The next Trainer prepares this model again.
    release(trainer, model)

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return float(losses[-1])


def _stage_arguments(batches: IntentBatches, precision: str, output_dir: Path) -> TrainingArguments:
    section = batches.section
    has_accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()

    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=section.steps,
        learning_rate=section.lr,
        warmup_steps=0.1,  # a float below one is a share of all steps
        weight_decay=0.01,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not has_accelerator,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",  # an interrupted stage is run again from its start
        logging_steps=max(section.steps // 4, 1),
        logging_nan_inf_filter=False,  # it would show a NaN loss as 0.0
        report_to="none",
        disable_tqdm=True,
        seed=batches.seed,
    )
