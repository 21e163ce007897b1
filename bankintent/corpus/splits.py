"""Clean examples into train, val and test: stratified by intent, seeded, every intent in each."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Cleaned, Example, normalise, normalised_texts
from bankintent.errors import DataError
from bankintent.labels import LabelSchema

Splits = dict[str, list[Example]]
"""Examples by the name of their split."""

EXTRA_PREFIX = "extra/"
"""Begins the ids of rows that come from extra_train."""


@dataclass(frozen=True)
class Corpus:
    """The rows of a dataset by their use."""

    splits: Splits
    """train, val and test."""
    out_of_scope: Splits
    """Sentences that have none of the intents, by the source's splits."""
    unlabelled: list[Example] | None
    """Sentences without labels, for pseudo-labels; None where the config names none."""

    def label_schema(self, order: tuple[str, ...] | None) -> LabelSchema:
        """The labels in the source's own order where it has one, otherwise in that of names."""
        if order:
            return LabelSchema(order)
        return LabelSchema.from_names(intents(pool(self.splits)))


def divide(rows: Cleaned, config: DataConfig) -> Corpus:
    """Divide a cleaned dataset by the configured policy and extend train by extra_train.

    Raises DataError where there are fewer than two intents, where one has too few rows, or where
    there is no official test split.
    """
    if len(intents(pool(rows.dataset))) < 2:
        raise DataError(
            f"{config.dataset_name} has fewer than two intents with usable rows",
            "Check its label column",
        )

    splits = split(rows.dataset, config)
    # After the split: val and test are the same with and without extra rows.
    splits = extend_train(splits, rows.extra_train)
    return Corpus(splits, rows.out_of_scope, rows.unlabelled)


def pool(parts: Splits) -> list[Example]:
    """The examples of all parts, one part after the other."""
    examples: list[Example] = []
    for part in parts.values():
        examples += part
    return examples


def intents(rows: Iterable[Example]) -> set[str]:
    """The label names of some rows."""
    return {row.label_text for row in rows}


def split(parts: Splits, config: DataConfig) -> Splits:
    """Divide the source's parts (`all`, or `train`, `val`, `test`) into train, val and test.

    Raises DataError that names the intents with too few rows, or where the split is official and
    the source has no test split.
    """
    rng = np.random.default_rng(config.seed)
    if config.split == "official":
        splits = _keep_official(parts, config, rng)
    else:
        splits = _stratify(parts, config, rng)

    # Last, because the draw must not change the rows of val and test.
    if config.few_shot is not None:
        splits["train"] = _draw_few_shot(splits["train"], config.few_shot, rng)
    return splits


def _keep_official(parts: Splits, config: DataConfig, rng: np.random.Generator) -> Splits:
    """The source's own test split; val is its own too, or a share of train."""
    if not parts.get("test"):
        raise DataError("the source has no test split of its own", "Set split: stratified")

    train = parts["train"]
    val = parts.get("val", [])
    # Out of train, so that the source's test split stays as published.
    if not val:
        train, val = _take(train, config.val_split, rng)
    return {"train": train, "val": val, "test": parts["test"]}


def _stratify(parts: Splits, config: DataConfig, rng: np.random.Generator) -> Splits:
    """All rows pooled and split anew."""
    # Of each intent, test leaves one row for val and one for train.
    rest, test = _take(pool(parts), config.test_split, rng, leave=2)

    # val_split is a share of all rows; here it is taken out of those that test leaves.
    share = config.val_split / (1 - config.test_split)
    train, val = _take(rest, share, rng)
    return {"train": train, "val": val, "test": test}


def extend_train(splits: Splits, extra: list[Example]) -> Splits:
    """Add `extra` to train, without the texts that are in a split already.

    Raises DataError where an extra row has an intent that the dataset does not have.
    """
    unknown = sorted(intents(extra) - intents(pool(splits)))
    if unknown:
        raise DataError(
            f"extra_train has {len(unknown)} intent(s) that the dataset does not have, "
            f'first "{unknown[0]}"',
            "Rename or remove their rows",
        )

    train = list(splits["train"])
    for row in only_new(splits.values(), extra):
        train.append(Example(f"{EXTRA_PREFIX}{row.id}", row.text, row.label_text))
    return splits | {"train": train}


def only_new(parts: Iterable[list[Example]], rows: list[Example]) -> list[Example]:
    """The rows whose text is in none of the parts, each text once."""
    texts: set[str] = set()
    for part in parts:
        texts.update(normalised_texts(part))

    new_rows = []
    for row in rows:
        text = normalise(row.text)
        if text not in texts:
            texts.add(text)
            new_rows.append(row)
    return new_rows


def require_usable(splits: Splits) -> None:
    """Raise DataError where a split is empty, or an intent is evaluated on but never trained."""
    # Dropping leaking rows may leave a split without any.
    for name, rows in splits.items():
        if not rows:
            raise DataError(f"the {name} split is empty", "Add rows, or change split and leakage")

    trained = intents(splits["train"])
    for name in ("val", "test"):
        untrained = sorted(intents(splits[name]) - trained)
        if untrained:
            raise DataError(
                f'intent "{untrained[0]}" stands in {name} but not in train',
                "Add training rows of it",
            )


def _group_by_intent(examples: list[Example]) -> dict[str, list[int]]:
    """Indices of the examples of each intent, intents in alphabetical order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[example.label_text].append(index)
    # The order of the draws, and so every split, follows from this order.
    return dict(sorted(groups.items()))


def _take(
    examples: list[Example], share: float, rng: np.random.Generator, leave: int = 1
) -> tuple[list[Example], list[Example]]:
    """(the rest, about `share` of every intent), both in the order of `examples`.

    At least one row of each intent is taken and at least `leave` rows are left.
    """
    groups = _group_by_intent(examples)
    _require_rows(groups, leave + 1)

    taken: set[int] = set()
    for indices in groups.values():
        # At least one row, however small the share, but never one that must be left.
        count = max(1, round(share * len(indices)))
        count = min(count, len(indices) - leave)
        taken.update(rng.permutation(indices)[:count].tolist())

    rest: list[Example] = []
    share_rows: list[Example] = []
    for index, example in enumerate(examples):
        target = share_rows if index in taken else rest
        target.append(example)
    return rest, share_rows


def _require_rows(groups: dict[str, list[int]], least: int) -> None:
    """Raise DataError that lists the intents with fewer rows than `least`."""
    rare = []
    for name, indices in groups.items():
        if len(indices) < least:
            rare.append(f'"{name}" ({len(indices)})')
    if not rare:
        return

    listed = ", ".join(rare[:5])
    raise DataError(
        f"{len(rare)} intent(s) have too few rows to stand in every split, which takes {least}: "
        f"{listed}",
        "Add sentences, or remove these intents",
    )


def _draw_few_shot(train: list[Example], k: int, rng: np.random.Generator) -> list[Example]:
    """Exactly `k` rows of each intent, in the order of `train`."""
    drawn: list[int] = []
    for name, indices in _group_by_intent(train).items():
        if len(indices) < k:
            raise DataError(
                f'intent "{name}" has {len(indices)} training rows, fewer than few_shot: {k}',
                "Lower few_shot",
            )

        drawn += rng.permutation(indices)[:k].tolist()

    return [train[index] for index in sorted(drawn)]
