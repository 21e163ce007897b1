"""What the service needs of a model, and the one that gives it with torch. A faster runtime has the same face."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent import cli, files
from bankintent.bundle.layout import Checkpoint, open_checkpoint
from bankintent.config import ServeConfig
from bankintent.errors import ConfigError, ModelError

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What `/info` says of the model."""

    name: str
    version: str
    labels: tuple[str, ...]
    labels_hash: str
    backbone: str
    parameters: int
    max_length: int
    runtime: str
    folder: Path
    """Where the model card is; not shown."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokenizer's output for one text; its length is in tokens."""

    features: dict[str, list[int]]
    truncated: bool

    def __len__(self) -> int:
        return len(self.features["input_ids"])


class Runtime(Protocol):
    """A loaded model. Each item's logits do not depend on the items beside it (to 1e-4)."""

    facts: ModelFacts

    def tokenize(self, texts: list[str]) -> list[Tokens]: ...

    def logits(self, items: list[Tokens]) -> Logits: ...


class TorchRuntime:
    """The predictor of `bankintent.inference`, in float32 on a fixed number of threads."""

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        cli.quiet_libraries()
        import torch

        from bankintent.inference.predictor import Predictor

        torch.set_num_threads(threads)
        self._predictor = Predictor.load(checkpoint)
        self._max_length = int(self._predictor.tokenizer.model_max_length)
        self._inference_mode = torch.inference_mode
        model = self._predictor.model
        self.facts = ModelFacts(
            name=checkpoint.name,
            version=version(checkpoint),
            labels=checkpoint.labels.names,
            labels_hash=checkpoint.labels.hash,
            backbone=(checkpoint.manifest or {}).get("base_model") or str(model.config.model_type),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            max_length=self._max_length,
            runtime=f"torch {torch.__version__}, float32, {self._predictor.device.type}, {threads} thread{'s' * (threads > 1)}",
            folder=checkpoint.root,
        )

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, cut to the model's longest input."""
        batch = self._predictor.tokenizer(texts, truncation=True)
        rows = [dict(zip(batch.keys(), row, strict=True)) for row in zip(*batch.values(), strict=True)]
        return [Tokens(row, self._overflows(text, row)) for text, row in zip(texts, rows, strict=True)]

    def _overflows(self, text: str, row: dict[str, list[int]]) -> bool:
        full = len(row["input_ids"]) >= self._max_length
        return full and len(self._predictor.tokenizer(text, verbose=False)["input_ids"]) > self._max_length

    def logits(self, items: list[Tokens]) -> Logits:
        """(items, labels) float32, padded to the longest and masked."""
        predictor = self._predictor
        rows = [item.features for item in items]
        with self._inference_mode():
            batch = predictor.tokenizer.pad(rows, return_tensors="pt").to(predictor.device)
            return np.asarray(predictor.model(**batch).logits.float().cpu().numpy())


def find(settings: ServeConfig) -> Callable[[], Runtime]:
    """Find and verify the model that the settings name, and give what loads it; a UserError says what is wrong."""
    if settings.model_dir is None:
        raise ConfigError("no model is named", "Set MODEL_DIR, for example MODEL_DIR=artifacts/models/quickstart")
    try:
        checkpoint = open_checkpoint(settings.model_dir)
    except OSError as error:
        raise ModelError(
            f"{settings.model_dir} cannot be read ({error.strerror})", "Check its owner and mode"
        ) from None
    return lambda: TorchRuntime(checkpoint, settings.threads or cores())


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(checkpoint: Checkpoint) -> str:
    """Twelve hex digits that change with the served files: the same for a bundle and its merged/."""
    root = checkpoint.root
    folders = [folder for folder in (checkpoint.model, checkpoint.adapter) if folder is not None]
    names = [f"{folder}/{name}" for folder in folders for name in files.list_files(folder)]
    recorded = {
        str(root / name): entry["sha256"] for name, entry in (checkpoint.manifest or {}).get("files", {}).items()
    }
    digests = [f"{Path(name).name} {recorded.get(name) or files.sha256(Path(name))}" for name in names]
    return files.sha256_text("\n".join(digests))[:12]
