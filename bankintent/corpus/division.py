"""Clean rows into train, val and test: which division a config asks for, and that division."""

from collections.abc import Mapping
from dataclasses import replace

from bankintent.config import DataConfig
from bankintent.corpus import random_split, rare, stable_split
from bankintent.corpus.cleaning import Cleaned
from bankintent.corpus.cross_split import JUDGED_ROWS, draw_folds
from bankintent.corpus.leaks import unlike_evaluation
from bankintent.corpus.out_of_scope import divide_out_of_scope
from bankintent.corpus.splits import (
    Corpus,
    Division,
    RareIntents,
    Splits,
    extend_train,
    intents,
    pool,
)
from bankintent.errors import DataError

Sizes = Mapping[str, int]
"""Rows of each part of the source."""

CROSS_BELOW = 1000
"""Sentences below which a test split says too little, and the data is judged by cross-validation:
a tenth of them is at most 100, and the interval of an accuracy from 100 is 10 points and wider."""


def divide(rows: Cleaned, config: DataConfig) -> Corpus:
    """Divide a cleaned dataset by the configured policy and extend train by extra_train.

    Raises DataError where `rare` leaves fewer than two intents, where some have too few rows, or
    where there is no official test split.
    """
    sizes = {split: len(part) for split, part in rows.dataset.items()}
    division = choose_division(sizes, config)
    # Before the rare intents are looked at, which may change the parts of the dataset.
    out_of_scope = divide_out_of_scope(rows, division.name, config)

    rows, rare_intents = rare.resolve_rare(rows, division.name, config)
    if len(intents(pool(rows.dataset))) < 2:
        raise DataError(
            f"rare: {config.rare} leaves {config.dataset_name} fewer than two intents",
            "Add sentences of the rare ones",
        )
    corpus = _divide_intents(rows, division, rare_intents, config)
    labels = rows.out_of_scope_labels
    return replace(corpus, out_of_scope=out_of_scope, out_of_scope_labels=labels)


def _divide_intents(
    rows: Cleaned, division: Division, rare_intents: RareIntents, config: DataConfig
) -> Corpus:
    """The corpus with the rows of intents; those that are out of scope are not divided yet."""
    if division.name == "cross":
        return _cross(rows, division, rare_intents, config)
    splits = _split(rows.dataset, division.name, config, rare_intents.train_only)

    # After the split: val and test are the same with and without extra rows.
    splits = extend_train(splits, rows.extra_train)
    return Corpus(splits, rows.out_of_scope, rows.unlabelled, division, rare_intents)


def _cross(
    rows: Cleaned, division: Division, rare_intents: RareIntents, config: DataConfig
) -> Corpus:
    """All rows to train on, and the folds to judge them by.

    Raises DataError where no intent has enough rows to be judged.
    """
    examples = pool(rows.dataset)
    folds = draw_folds(examples, config)
    if not folds.judged.any():
        raise DataError(
            f"no intent of {config.dataset_name} has {JUDGED_ROWS} different sentences,"
            " which cross-validation needs",
            "Add sentences",
        )

    if folds.count < config.folds:
        note = f"{division.note} No intent has {config.folds} sentences: {folds.count} folds."
        division = replace(division, note=note)

    # What is nearly a row of the dataset would be trained on while that row is held out.
    unlike = unlike_evaluation(rows.extra_train, {"test": examples})
    splits = extend_train({"train": examples}, unlike)
    folds = folds.extended(len(splits["train"]) - len(examples))
    return Corpus(splits, rows.out_of_scope, rows.unlabelled, division, rare_intents, folds)


def choose_division(parts: Sizes, config: DataConfig) -> Division:
    """The configured division, or the one that suits the rows of the parts of the source.

    Raises DataError where it is official and the source has no test split.
    """
    name: str = config.split or _choose_name(parts, config)

    if name == "official":
        if not parts.get("test"):
            raise DataError("the source has no test split of its own", "Set split: stable")
        return Division(name, f"Split: official, {_describe_official(parts, config)}.")
    if name == "cross":
        _require_whole(config)
        return Division(name, f"Split: cross, {_describe_cross(parts, config)}.")
    return Division(name, f"Split: {name}, {_describe_drawn(name, parts, config)}.")


def _choose_name(parts: Sizes, config: DataConfig) -> str:
    """The division that suits the data where the config names none."""
    if parts.get("test") and not config.asks_for_test_split:
        return "official"
    if config.asks_for_shares or config.few_shot is not None:
        return "stable"
    return "cross" if sum(parts.values()) < CROSS_BELOW else "stable"


def _require_whole(config: DataConfig) -> None:
    if config.few_shot is not None:
        raise DataError(
            "few_shot plays with less data, which split: cross trains on as a whole",
            "Set split: stable, or remove few_shot",
        )


def _describe_cross(parts: Sizes, config: DataConfig) -> str:
    """What is trained on and how it is judged, and why where the config did not ask for it."""
    rows = sum(parts.values())
    times = "" if config.repeats == 1 else f", {config.repeats} times"
    text = (
        f"nothing is held out: a model is trained on all {rows:,} sentences and judged by"
        f" {config.folds}-fold cross-validation{times}"
    )
    if config.split is None:
        text += f", because a test split of fewer than {CROSS_BELOW:,} sentences says little"
        text += "; --set split=stable draws one"
    return text


def _describe_official(parts: Sizes, config: DataConfig) -> str:
    if parts.get("val"):
        kept = "the source's own test and validation splits are kept"
    else:
        kept = (
            "the source's own test split is kept, and validation is "
            f"{_percent(config.val_split)} of each intent's training rows"
        )
    if config.split is None:
        kept += "; --set split=stable draws anew"
    return kept


def _describe_drawn(name: str, parts: Sizes, config: DataConfig) -> str:
    """How rows are drawn and, where the source has splits of its own, that they are pooled."""
    train_split = 1 - config.test_split - config.val_split
    shares = [
        f"{_percent(train_split)} train",
        f"{_percent(config.val_split)} val",
        f"{_percent(config.test_split)} test",
    ]
    drawn = f"{', '.join(shares)} of each intent"
    if name == "stable":
        drawn += "; a row's place follows from its text and the seed"
    if len(parts) == 1:
        return drawn

    own = [split for split in ("train", "val", "test") if split in parts]
    pooled = f"the source's own {' and '.join(own)} rows are pooled"
    if config.split is None and "test" in parts:
        pooled += " because test_split is given (--set split=official keeps them)"
    return f"{drawn}; {pooled}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def _split(parts: Splits, name: str, config: DataConfig, train_only: set[str]) -> Splits:
    """Divide the source's parts (`all`, or `train`, `val`, `test`) into train, val and test."""
    match name:
        case "official":
            return random_split.keep_official(parts, config, train_only)
        case "stable":
            return stable_split.place(parts, config, train_only)
        case _:
            return random_split.stratify(parts, config, train_only)
