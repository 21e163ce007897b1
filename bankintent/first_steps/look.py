"""What a source is: all that ETL would make of it, with nothing written."""

from dataclasses import dataclass
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus import cleaning, division, figures, language, leaks, sources
from bankintent.corpus.cleaning import Cleaned
from bankintent.corpus.figures import DataReport
from bankintent.corpus.rows import Reading
from bankintent.corpus.splits import Corpus, Division, count_intents, pool
from bankintent.errors import DataError
from bankintent.labels import LabelSchema

CROSS = "cross"
"""The division that holds nothing out: its model is judged by cross-validation."""

TRAIN_ONLY = "train_only"
"""The policy for rare intents that loses no row."""

USUAL_DELIMITERS = (",", "\t")
"""Delimiters that need not be written down."""

FOUND_KEYS = {
    "text_column": "text",
    "label_column": "label",
    "delimiter": "delimiter",
    "sheet": "sheet",
}
"""Keys of data.yaml, each with the attribute of a `Reading` that it comes from."""


@dataclass(frozen=True)
class Look:
    """A source as ETL would read and divide it."""

    config: DataConfig
    """The given keys, what was found in the source, and the split and the policy for rare intents
    that suit it."""
    division: Division
    report: DataReport
    labels: LabelSchema
    texts: list[str]
    """The usable sentences, all splits together."""
    per_intent: dict[str, int]
    """Usable sentences of each intent."""
    train_rows: int
    """Rows that a model is trained on; all usable ones where nothing is held out."""
    val_rows: int

    @property
    def is_cross(self) -> bool:
        """Whether the model is judged by cross-validation."""
        return self.division.name == CROSS

    @property
    def encoder_note(self) -> str | None:
        """What to say where the embedded encoder does not read the language of the sentences."""
        return language.encoder_note(language.Languages(self.report.languages))


def look(config: DataConfig) -> Look:
    """Read, clean and divide what `dataset_name` names.

    Raises what ETL would raise: DataError for something unusable in it, SourceUnavailable where it
    does not exist or cannot be reached.
    """
    source = sources.read_all(config)
    rows = cleaning.clean_all(source, config)
    sizes = {split: len(part) for split, part in rows.dataset.items()}
    chosen = division.choose_division(sizes, config)

    config = _settle_rare(rows, config)
    divided = division.divide(rows, config)
    corpus, leaking = leaks.resolve_leaks(divided, config.leakage)
    report = figures.describe_data(corpus, rows, leaking, source, config)

    found = _found_keys(source.dataset.reading)
    settled = config.model_copy(update={"split": chosen.name, **found})
    everything = pool(corpus.splits)

    return Look(
        config=settled,
        division=chosen,
        report=report,
        labels=corpus.label_schema(source.dataset.label_order),
        texts=[row.text for row in everything],
        per_intent=count_intents(everything),
        train_rows=_train_rows(corpus, chosen),
        val_rows=len(corpus.splits.get("val", [])),
    )


def _found_keys(reading: list[Reading]) -> dict[str, Any]:
    """Keys of data.yaml that say what was taken, where all files of a source have the same."""
    found: dict[str, Any] = {}
    for key, attribute in FOUND_KEYS.items():
        value = _common(reading, attribute)
        if value is not None:
            found[key] = value

    if found.get("delimiter") in USUAL_DELIMITERS:
        del found["delimiter"]
    return found


def _common(reading: list[Reading], attribute: str) -> Any:
    """The one value that all files have; None where they differ."""
    different = {getattr(part, attribute) for part in reading}
    if len(different) != 1:
        return None
    return different.pop()


def _settle_rare(rows: Cleaned, config: DataConfig) -> DataConfig:
    """The config with a policy that divides the rows; a policy that was given stays."""
    if "rare" in config.model_fields_set:
        return config

    try:
        division.divide(rows, config)
    except DataError as error:
        settled = config.model_copy(update={"rare": TRAIN_ONLY})
        try:
            division.divide(rows, settled)
        except DataError:
            # The first message says more: it names every choice.
            raise error from None
        return settled
    return config


def _train_rows(corpus: Corpus, chosen: Division) -> int:
    if chosen.name == CROSS:
        everything = pool(corpus.splits)
        return len(everything)

    return len(corpus.splits["train"])
