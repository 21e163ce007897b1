"""The rows that a model was trained on, where they are at hand, and which texts are among them."""

from collections.abc import Sequence
from pathlib import Path

from bankintent.bundle.layout import Checkpoint
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import UserError
from bankintent.files import JsonObject
from bankintent.inference.labelled import LabelledRows, recorded_data
from bankintent.texts import normalise

MOST_IN_MEMORY = 200_000
"""Training rows up to which they are in memory; more are read from a file."""

CACHE = Path("artifacts/cache")
"""Folder of that file, which is gone when the evaluation ends."""


def trained_rows(checkpoint: Checkpoint, evaluated: LabelledRows) -> SplitData | None:
    """The labelled rows that a model was trained on; None where they are not at hand.

    They are read from the data that it is evaluated on, where that is the data of its training, or
    from the folder that it records. A checkpoint without a record is taken to be trained on the
    data that it is evaluated on.
    """
    try:
        data = _training_data(checkpoint, evaluated.dataset)
        train = _read_train(data)
        return _drawn(train, _trained_settings(checkpoint))
    # Gone, changed, of other labels, no room for a copy: an evaluation does not need them.
    except (UserError, OSError):
        return None


def _read_train(data: Dataset) -> SplitData:
    if data.count("train") > MOST_IN_MEMORY:
        return data.read_mapped("train", CACHE)
    return data.read("train")


def _drawn(train: SplitData, settings: JsonObject) -> SplitData | None:
    """The rows that a run with these settings drew; None where the settings are not a run's."""
    few_shot = settings.get("few_shot")
    seed = settings.get("seed")
    if few_shot is None:
        return train
    if not isinstance(few_shot, int) or not isinstance(seed, int):
        return None
    return train.few_shot(few_shot, seed)


def _training_data(checkpoint: Checkpoint, evaluated: Dataset | None) -> Dataset:
    manifest = checkpoint.manifest
    if evaluated is not None:
        is_own = manifest is None or manifest.data_hash == evaluated.hash
        if is_own and evaluated.labels.hash == checkpoint.labels.hash:
            return evaluated
    return recorded_data(checkpoint)


def _trained_settings(checkpoint: Checkpoint) -> JsonObject:
    """The settings of a run; none where they are not recorded."""
    if checkpoint.manifest is None:
        return {}
    return checkpoint.manifest.settings


def find_known(texts: Sequence[str], train: SplitData) -> list[bool]:
    """Whether each text stands in the training rows, whatever its intent there."""
    asked = [normalise(text) for text in texts]
    wanted = set(asked)
    # Of the training rows only the texts that are asked for are kept: there may be millions.
    known = set()
    for text in train.texts:
        normalised = normalise(text)
        if normalised in wanted:
            known.add(normalised)
    return [text in known for text in asked]
