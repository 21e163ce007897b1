"""The sentences of a run: few-shot draw, label names, sentences without labels; imports no torch.

This module and `identity` are the light ones of this room: they import neither torch nor
transformers. `studies` plans its runs with them in the process that starts the runs, and Linux
counts a parent's memory into its child's resident peak, which studies report.
"""

from dataclasses import dataclass, field

from bankintent.config import TrainConfig
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.folds import Folds
from bankintent.errors import ConfigError
from bankintent.labels import LabelSchema
from bankintent.texts import normalise


@dataclass(frozen=True)
class RunRows:
    """The rows of one run, as they are read from ETL's output."""

    train: SplitData
    """Labelled rows; with `few_shot`, those that were drawn."""
    val: SplitData
    """No rows where the data is judged by cross-validation."""
    unlabelled: SplitData = field(default_factory=SplitData.empty)
    """Rows for `pseudo_labels`, all with an unknown label."""
    folds: Folds | None = None
    """Of the training rows, where the data is judged by cross-validation."""


def read_rows(config: TrainConfig, data: Dataset) -> RunRows:
    """Read and draw the rows of a run.

    More than `stream_above` training rows stay on disk. Raises DataError if no intent has
    `few_shot` rows, ConfigError as `rows_without_labels` does, where the settings need validation
    rows and the data has none, or where they need rows in memory that stay on disk.
    """
    if _is_streamed(config, data):
        _require_streamable(config, data)
        return RunRows(data.read_mapped("train", config.cache_dir), data.read("val"))

    train = data.read("train")
    if data.is_cross:
        _require_no_validation(config, data)
        unlabelled = rows_without_labels(config, data, train, train)
        return RunRows(train, SplitData.empty(), unlabelled, data.read_folds())

    drawn = draw(config, train)

    unlabelled = rows_without_labels(config, data, train, drawn)
    return RunRows(drawn, data.read("val"), unlabelled)


def _is_streamed(config: TrainConfig, data: Dataset) -> bool:
    """Whether the training rows stay on disk; `few_shot` draws few of them."""
    if data.is_cross or config.few_shot is not None:
        return False
    return data.count("train") > config.stream_above


def _require_streamable(config: TrainConfig, data: Dataset) -> None:
    """Raise ConfigError for settings that hold something of every training row in memory."""
    holding = {
        "distill": config.distill is not None,
        "pseudo_labels": config.pseudo_labels is not None,
        "label_names": config.label_names,
        "contrastive.hard": config.contrastive is not None and config.contrastive.hard > 0,
    }
    for key, is_set in holding.items():
        if is_set:
            rows = data.count("train")
            raise ConfigError(
                f"{key} needs all training sentences in memory, and {data.path} has {rows:,}, more"
                f" than stream_above ({config.stream_above:,})",
                f"Remove {key}, or set stream_above: {rows} if the memory is large enough",
            )


def _require_no_validation(config: TrainConfig, data: Dataset) -> None:
    """Raise ConfigError for settings that cross-validation does not go with."""
    needing = {
        "few_shot": config.few_shot is not None,
        "distill": config.distill is not None,
        "early_stopping": config.early_stopping is not None,
    }
    for key, is_set in needing.items():
        if is_set:
            raise ConfigError(
                f"{key} needs held-out rows, and {data.path} has none: it is judged by"
                " cross-validation",
                f"Remove {key}, or run ETL with --set split=stable",
            )


def draw(config: TrainConfig, train: SplitData) -> SplitData:
    """The labelled rows that a run trains on: all, or `few_shot` of each intent."""
    if config.few_shot is None:
        return train
    return train.few_shot(config.few_shot, config.seed)


def rows_without_labels(
    config: TrainConfig, data: Dataset, train: SplitData, drawn: SplitData
) -> SplitData:
    """The rows that `pseudo_labels` adds to the `drawn` ones, with unknown labels.

    They are ETL's sentences without labels, and the rows of `train` that were not drawn. Raises
    ConfigError if there are none.
    """
    if config.pseudo_labels is None:
        return SplitData.empty()

    drawn_ids = set(drawn.ids)
    left_out = [row for row, row_id in enumerate(train.ids) if row_id not in drawn_ids]
    # `few_shot` plays that nobody has labelled the rows that it leaves out.
    rows = data.read_unlabelled() + train.take(left_out).without_labels()

    if not len(rows):
        raise ConfigError(
            f"pseudo_labels: {data.path} holds no sentences without labels",
            "Name some with unlabelled: in data.yaml and run ETL again,"
            " train on fewer of each intent (few_shot), or remove the section",
        )
    return rows


def label_name_rows(labels: LabelSchema) -> SplitData:
    """One row for each intent: its name, as words, is a sentence of it."""
    ids = [f"name/{name}" for name in labels.names]
    return SplitData(ids, list(labels.phrases), list(range(len(labels))))


def require_words(labels: LabelSchema) -> None:
    """Raise ConfigError if the intents' names do not work as sentences.

    They do not if one has no letter, as a code, or if two read the same.
    """
    names_by_text: dict[str, str] = {}

    for name, phrase in zip(labels.names, labels.phrases, strict=True):
        other = names_by_text.setdefault(normalise(phrase), name)
        if other != name:
            fault = f'reads like "{other}"'
        elif not any(character.isalpha() for character in phrase):
            fault = "has no letter"
        else:
            continue

        raise ConfigError(
            f'label_names: the intent "{name}" {fault}',
            "Rename it in the data, or set label_names: false",
        )
