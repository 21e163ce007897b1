"""Clean rows into train, val and test: which division a config asks for, and that division."""

from bankintent.config import DataConfig
from bankintent.corpus import random_split, rare, stable_split
from bankintent.corpus.cleaning import Cleaned
from bankintent.corpus.splits import Corpus, Division, Splits, extend_train, intents, pool
from bankintent.errors import DataError


def divide(rows: Cleaned, config: DataConfig) -> Corpus:
    """Divide a cleaned dataset by the configured policy and extend train by extra_train.

    Raises DataError where `rare` leaves fewer than two intents, where some have too few rows, or
    where there is no official test split.
    """
    division = choose_division(rows.dataset, config)

    rows, rare_intents = rare.resolve_rare(rows, division.name, config)
    if len(intents(pool(rows.dataset))) < 2:
        raise DataError(
            f"rare: {config.rare} leaves {config.dataset_name} fewer than two intents",
            "Add sentences of the rare ones",
        )
    splits = _split(rows.dataset, division.name, config, rare_intents.train_only)

    # After the split: val and test are the same with and without extra rows.
    splits = extend_train(splits, rows.extra_train)
    return Corpus(splits, rows.out_of_scope, rows.unlabelled, division, rare_intents)


def choose_division(parts: Splits, config: DataConfig) -> Division:
    """The configured division, or the one that suits the parts of the source.

    Raises DataError where it is official and the source has no test split.
    """
    has_test = bool(parts.get("test"))
    name = config.split
    if name is None:
        keeps_own = has_test and not config.asks_for_test_split
        name = "official" if keeps_own else "stable"

    if name == "official":
        if not has_test:
            raise DataError("the source has no test split of its own", "Set split: stable")
        return Division(name, f"Split: official, {_describe_official(parts, config)}.")
    return Division(name, f"Split: {name}, {_describe_drawn(name, parts, config)}.")


def _describe_official(parts: Splits, config: DataConfig) -> str:
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


def _describe_drawn(name: str, parts: Splits, config: DataConfig) -> str:
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
