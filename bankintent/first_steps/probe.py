"""A measurement of some seconds: a forward pass and training steps on sentences of the user."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.config import LoraSection, Regime, TrainConfig
from bankintent.first_steps.estimate import Measured
from bankintent.first_steps.machine import free_memory
from bankintent.labels import LabelSchema
from bankintent.texts import fold
from bankintent.training import backbones, forward_check, hardware, regimes
from bankintent.training.backbones import Backbone
from bankintent.training.dropout import fast_dropout
from bankintent.training.features import replaced_encoder, runs_on_features

BATCHES = 3
"""Of short, middle and long sentences, as training groups them by length."""

PILOT_ROWS = 8
"""Sentences of a first pass, which says how large the other batches can be."""

STEP_SECONDS = 1.0
"""What a training step of the probe should take at most, also on a slow or busy machine."""

STEP_COST = 4
"""A training step in passes of the frozen encoder, roughly: forward, and backward for two."""

STEP_LIMIT = 3.0
"""Seconds of training steps of one regime, after which the steps so far are enough."""

HEAD_STEPS = 10
"""Steps on cached features, which take milliseconds."""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that a precision computes in."""

Batch = dict[str, torch.Tensor]


def measure(
    recipe: TrainConfig, texts: list[str], labels: LabelSchema, threads: int | None = None
) -> Measured:
    """Measure the encoder of a LoRA recipe on some of `texts`, with a head for `labels`.

    `threads` are those of a CPU, by default as many as training takes. Raises ModelError or
    SourceUnavailable where the encoder cannot be loaded.
    """
    usual_threads = torch.get_num_threads()
    wanted = threads or usual_threads
    torch.set_num_threads(min(wanted, usual_threads))

    # The threads are of the whole process, which goes on after the probe.
    try:
        return _measure(recipe, texts, labels)
    finally:
        torch.set_num_threads(usual_threads)


def _measure(recipe: TrainConfig, texts: list[str], labels: LabelSchema) -> Measured:
    free = _free_memory()
    hardware.prepare_memory()

    started = time.perf_counter()
    backbone = backbones.load_backbone(
        recipe.model_name,
        labels,
        recipe.max_length,
        recipe.revision,
        recipe.pooling,
        recipe.prefix,
    )
    load_seconds = time.perf_counter() - started

    forward_check.require_answers(backbone, recipe.max_length)
    backbone.model.to(_device())
    sample = Sample.draw(backbone.tokenizer, texts, recipe.batch_size)
    most_tokens = _most_tokens(backbone, sample)
    batches, are_cut = sample.batches(most_tokens)
    forward = _time_forward(backbone, batches)
    precision = hardware.pick_precision(recipe.precision)

    steps: dict[Regime, float] = {}
    memory: dict[Regime, int] = {}
    # In the order of their memory: a process's peak never falls.
    steps["head-only"] = _time_head(backbone, recipe.batch_size, batches)
    memory["head-only"] = hardware.peak_memory()
    steps["lora"] = _time_lora(backbone, recipe, batches, precision)
    memory["lora"] = hardware.peak_memory()
    steps["full-ft"] = _time_steps(backbone.model.requires_grad_(True), batches, precision)
    memory["full-ft"] = hardware.peak_memory()

    return Measured(
        load_seconds=load_seconds,
        forward_seconds=forward,
        step_seconds=steps,
        memory=memory,
        is_least_memory=are_cut,
        free_memory=free,
        precision=precision,
        hardware=hardware.hardware_name(),
    )


def _device() -> str:
    """The device that the Trainer would take."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _free_memory() -> int | None:
    """Bytes that are free: of the GPU if there is one, otherwise of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_memory()


@dataclass(frozen=True)
class Sample:
    """Some sentences, the short ones first."""

    tokenizer: Tokenizer
    texts: list[str]
    lengths: list[int]
    """Tokens of each."""
    batch_size: int

    @classmethod
    def draw(cls, tokenizer: Tokenizer, texts: list[str], batch_size: int) -> Self:
        """Sentences at even distances in `texts`, enough for BATCHES."""
        wanted = BATCHES * batch_size
        step = max(1, len(texts) // wanted)
        apart = texts[::step]
        drawn = [fold(text) for text in apart[:wanted]]

        token_ids = tokenizer(drawn, truncation=True)["input_ids"]
        lengths = list(map(len, token_ids))
        rows = range(len(drawn))
        order = sorted(rows, key=lengths.__getitem__)

        ordered_texts = [drawn[row] for row in order]
        ordered_lengths = [lengths[row] for row in order]
        return cls(tokenizer, ordered_texts, ordered_lengths, batch_size)

    def batches(self, most_tokens: int | None) -> tuple[list[Batch], bool]:
        """Batches of like length, and whether some are below the batch size.

        A batch has at most `most_tokens` tokens, padding included, but two rows at least. The
        middle batch comes first: where time is short, it stands for all.
        """
        size = max(1, len(self.texts) // BATCHES)
        ends = range(size, len(self.texts) + 1, size)

        batches = []
        are_cut = False
        for end in ends[:BATCHES]:
            rows = self._rows(end, size, most_tokens)
            batches.append(self.encode(rows))
            if len(rows) < self.batch_size:
                are_cut = True

        middle = batches.pop(len(batches) // 2)
        return [middle, *batches], are_cut

    def _rows(self, end: int, size: int, most_tokens: int | None) -> range:
        """The rows of the batch that ends before `end`: its longest ones where it is cut."""
        if most_tokens is not None:
            longest = self.lengths[end - 1]
            most_rows = max(2, most_tokens // longest)
            size = min(size, most_rows)

        start = max(0, end - size)
        return range(start, end)

    def encode(self, rows: range) -> Batch:
        """The rows as a model takes them, padded to the longest."""
        chosen = [self.texts[row] for row in rows]
        encoded = self.tokenizer(chosen, truncation=True, padding=True, return_tensors="pt")
        return dict(encoded)


def _most_tokens(backbone: Backbone, sample: Sample) -> int | None:
    """Tokens of a batch whose training step takes STEP_SECONDS; None on a GPU, which is fast."""
    if _device() != "cpu":
        return None

    count = len(sample.texts)
    middle = count // 2
    end = min(middle + PILOT_ROWS, count)
    batch = sample.encode(range(middle, end))
    token_ids = batch["input_ids"]

    # Padding counts: the encoder computes it like other tokens.
    seconds = _time_forward(backbone, [batch]) * len(token_ids)
    seconds_a_token = seconds / token_ids.numel()
    step_seconds_a_token = STEP_COST * seconds_a_token
    return int(STEP_SECONDS / step_seconds_a_token)


@torch.inference_mode()
def _time_forward(backbone: Backbone, batches: list[Batch]) -> float:
    """Seconds of a sentence in a pass of the encoder, in float32 as features are computed."""
    model = backbone.model.eval()
    device = _device()

    def run(batch: Batch) -> None:
        inputs = {key: values.to(device) for key, values in batch.items()}
        # Reading a number makes a GPU finish.
        model(**inputs).logits.float().sum().item()

    return _seconds_a_row(run, batches)


def _time_head(backbone: Backbone, batch_size: int, batches: list[Batch]) -> float:
    """Seconds of a sentence in a training step of the head.

    It is on cached features where the model's head runs on them, otherwise on `batches`.
    """
    model = regimes.prepare(backbone, "head-only", LoraSection())
    if not runs_on_features(backbone.model):
        return _time_steps(model, batches, "fp32")
    table = torch.randn(batch_size, model.config.hidden_size)

    # The token of a row is its place in the table.
    rows = torch.arange(batch_size).unsqueeze(1)
    batch = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}

    with replaced_encoder(model, table):
        return _time_steps(model, [batch] * HEAD_STEPS, "fp32")


def _time_lora(
    backbone: Backbone, recipe: TrainConfig, batches: list[Batch], precision: str
) -> float:
    """Seconds of a sentence in a training step of an adapter, which is removed again."""
    adapted: Any = regimes.prepare(backbone, "lora", recipe.lora)
    with regimes.fast_adapters(adapted):
        seconds = _time_steps(adapted, batches, precision)

    backbone.model = adapted.unload()
    gc.collect()
    return seconds


def _time_steps(model: Any, batches: list[Batch], precision: str) -> float:
    """Seconds of a sentence in a training step: forward, backward, clip, AdamW."""
    device = _device()
    num_labels = model.config.num_labels
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    # Too small to change the model: it is the same for the next measurement.
    optimizer = torch.optim.AdamW(parameters, lr=1e-9, fused=True)
    model.train()

    def run(batch: Batch) -> None:
        inputs = {key: values.to(device) for key, values in batch.items()}
        row_numbers = torch.arange(len(inputs["input_ids"]), device=device)
        label_ids = row_numbers % num_labels

        with _autocast(device, precision):
            loss = model(**inputs, labels=label_ids).loss

        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # Reading it makes a GPU finish.
        loss.item()

    with fast_dropout(model):
        return _seconds_a_row(run, batches)


def _autocast(device: str, precision: str) -> torch.autocast:
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def _seconds_a_row(run: Callable[[Batch], None], batches: list[Batch]) -> float:
    """Mean over the batches; the first runs once before, for what stays prepared from then on."""
    run(batches[0])

    rows = 0
    seconds = 0.0
    for batch in batches:
        started = time.perf_counter()
        run(batch)
        seconds += time.perf_counter() - started
        rows += len(batch["input_ids"])
        if seconds > STEP_LIMIT:
            break

    return seconds / rows
