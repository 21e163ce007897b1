"""Example sentences to click: those of the config, otherwise some of the model's own test data."""

import ipaddress
import os
from pathlib import Path

import numpy as np

from bankintent.bundle import layout
from bankintent.config import FrontendConfig, ServeConfig
from bankintent.configfile import load
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.errors import UserError

NUM_EXAMPLES = 4

LONGEST_EXAMPLE = 90
"""Characters of a sentence that still fits on a button."""


def find_examples(settings: FrontendConfig) -> list[str]:
    """The sentences to offer; none where they cannot be the model's own.

    Without `examples` in the config they are test sentences of different intents, from the ETL
    output that the bundle names, while that is what the model was trained on. They may be private:
    only a page on loopback shows them.
    """
    if settings.examples is not None:
        return settings.examples
    if settings.backend_url is not None or not _is_loopback(settings.host):
        return []

    try:
        return choose_examples(_read_test_rows(_model_dir(settings)))
    except (UserError, OSError, ValueError):
        # The page works without examples: another machine's bundle has no data here.
        return []


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _model_dir(settings: FrontendConfig) -> Path | None:
    """The model that the page's own API serves; the same order of precedence as `backend`."""
    if settings.model_dir is not None:
        return settings.model_dir
    if os.environ.get("MODEL_DIR"):
        return Path(os.environ["MODEL_DIR"])
    return load(ServeConfig, settings.serve_config).model_dir


def _read_test_rows(model_dir: Path | None) -> SplitData:
    """The test split of the data that a bundle was trained on; no rows where that is not at hand.

    Where cross-validation judges, nothing is held out, and it is the training rows.

    Raises a UserError where the model or its data cannot be read.
    """
    if model_dir is None:
        return SplitData.empty()

    is_part = model_dir.name in (layout.MERGED, layout.ONNX)
    manifest = layout.read_manifest(model_dir.parent if is_part else model_dir)
    # A stranger's manifest may name anything: the folder must be the very data, by its hash.
    if not isinstance(manifest.data_dir, str) or manifest.data_hash is None:
        return SplitData.empty()

    data = dataset.load(Path(manifest.data_dir))
    if data.hash != manifest.data_hash:
        return SplitData.empty()
    return data.read("train" if data.is_cross else "test")


def choose_examples(rows: SplitData) -> list[str]:
    """Short sentences of different intents, spread over the labels; the same ones every time."""
    by_label: dict[int, str] = {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        if len(text) <= LONGEST_EXAMPLE:
            by_label.setdefault(label, text)

    labels = sorted(by_label)
    count = min(NUM_EXAMPLES, len(labels))
    if count == 0:
        return []

    # The middles of equal parts: neighbours in the alphabet are often about the same thing.
    places = (np.arange(count) + 0.5) * len(labels) / count
    return [by_label[labels[int(place)]] for place in places]
