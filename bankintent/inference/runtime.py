"""A loaded model behind one face, whatever computes it: texts to tokens, tokens to logits, and what is known of it.

Nothing here imports torch, transformers or pandas; a runtime that needs them imports them when it is chosen.
"""

import ctypes
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent import files, process
from bankintent.bundle.layout import MERGED, Checkpoint, Formats, open_checkpoint, open_formats
from bankintent.config import RuntimeName
from bankintent.errors import ModelError

Logits = NDArray[np.float32]
logger = logging.getLogger(__name__)


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
    """A loaded model. An item's logits do not depend on the items beside it, but for rounding."""

    facts: ModelFacts
    workers: int
    """How many calls of `logits` may run at once."""

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, cut to the model's longest input."""
        ...

    def logits(self, items: list[Tokens]) -> Logits:
        """(items, labels) float32; `items` are padded to the longest of them and masked, and are at least one."""
        ...


def find(
    path: Path, name: RuntimeName = "auto", threads: int | None = None, workers: int = 1
) -> Callable[[], Runtime]:
    """Find and verify the model at a path, and give what loads it with the named runtime.

    `threads` defaults to the cores of this process; `workers` is how many calls of `logits` should run at once, each on
    its share of them. auto takes, of the formats that the bundle verified and this installation can compute, the
    fastest; without any, or where there is a GPU for torch, torch. Raises a UserError where there is no such model or
    runtime, and what is given does so where the model cannot be loaded.
    """
    count = threads or cores()
    try:
        bundle = None if name == "torch" else open_formats(path)
        names = (
            [] if bundle is None and name in ("auto", "torch") else candidates(path, bundle, name)
        )
        if bundle is not None and names:
            return partial(_load, bundle, path, names, name == "auto", count, workers)
        return partial(_load_torch, open_checkpoint(path), count, workers)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})", "Check its owner and mode"
        ) from None


def candidates(path: Path, bundle: Formats | None, name: RuntimeName) -> list[str]:
    """The exported formats to try, best first, the first of them verified; none where torch is the better choice.

    Raises ModelError where a format is asked for by name and not to be had.
    """
    from bankintent.inference import exported_runtime as exported

    passed = bundle.passed if bundle is not None else {}
    if name == "auto":
        names = [
            kind for kind in exported.KINDS if kind in passed and exported.KINDS[kind].installed
        ]
        if bundle is not None and (bundle.root / MERGED).is_dir() and torch_has_gpu():
            names = []
    elif name not in passed:
        reason = (bundle.left_out if bundle is not None else {}).get(name, "it was not exported")
        raise ModelError(
            f"{path} holds no format that was verified for {name} ({reason})", "Use runtime: auto"
        )
    elif not exported.KINDS[name].installed:
        engine = exported.KINDS[name].engine
        raise ModelError(
            f"{engine} is not installed", f"Use runtime: auto, or pip install {engine}"
        )
    else:
        names = [name]
    if bundle is not None and names:
        exported.verify(bundle, names[0])
    return names


def _load(
    bundle: Formats, path: Path, names: list[str], fall_back: bool, threads: int, workers: int
) -> Runtime:
    from bankintent.inference import exported_runtime as exported

    for index, name in enumerate(names):
        try:
            if index:
                exported.verify(bundle, name)
            return exported.ExportedRuntime(bundle, name, threads, workers)
        except exported.Unfit as error:
            if not fall_back:
                raise
            logger.warning(f"warning: {error}")
    return _load_torch(open_checkpoint(path), threads, workers)


def _load_torch(checkpoint: Checkpoint, threads: int, workers: int) -> Runtime:
    process.quiet_libraries()
    from bankintent.inference.torch_runtime import TorchRuntime

    return TorchRuntime(checkpoint, threads, workers)


def torch_has_gpu() -> bool:
    """Whether torch is installed and the NVIDIA driver, asked without importing torch, knows a device."""
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return False
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def version(root: Path, manifest: dict[str, Any] | None) -> str:
    """Twelve hex digits that change with the model: the same for a bundle, for its merged/ and for every runtime."""
    if manifest is None:
        digests = [
            f"{Path(name).name} {files.sha256(root / name)}" for name in files.list_files(root)
        ]
    else:
        recorded = manifest["files"].items()
        digests = [
            f"{Path(name).name} {entry['sha256']}"
            for name, entry in recorded
            if name.startswith(f"{MERGED}/")
        ]
    return files.sha256_text("\n".join(digests))[:12]
