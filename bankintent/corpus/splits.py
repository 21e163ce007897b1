"""Clean examples into train, val and test: stratified by intent, seeded, no intent missing anywhere."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example, normalise
from bankintent.errors import DataError

Splits = dict[str, list[Example]]


def split(parts: Splits, config: DataConfig) -> Splits:
    """Divide the source's parts (`all`, or `train`, `val`, `test`) by the configured policy.

    Raises DataError that names the intents with too few rows, or an official test split that is not there.
    """
    rng = np.random.default_rng(config.seed)
    if config.split == "official":
        if not parts.get("test"):
            raise DataError("the source has no test split of its own", "Set split: stratified")
        train, val, test = parts["train"], parts.get("val", []), parts["test"]
        if not val:
            train, val = _take(train, config.val_split, rng)
    else:
        pooled = [example for part in parts.values() for example in part]
        rest, test = _take(pooled, config.test_split, rng, leave=2)
        train, val = _take(rest, config.val_split / (1 - config.test_split), rng)
    if config.few_shot is not None:
        train = _few_shot(train, config.few_shot, rng)
    return {"train": train, "val": val, "test": test}


def extend_train(splits: Splits, extra: list[Example]) -> Splits:
    """Add `extra` to train, without the texts that stand in a split already; ids say where the rows come from.

    Raises DataError where an extra row has an intent that the dataset does not have.
    """
    known = {row.label_text for part in splits.values() for row in part}
    strange = sorted({row.label_text for row in extra} - known)
    if strange:
        raise DataError(
            f'extra_train has {len(strange)} intent(s) that the dataset does not have, first "{strange[0]}"',
            "Rename or remove their rows",
        )
    added = [
        Example(f"extra/{row.id}", row.text, row.label_text)
        for row in only_new(splits.values(), extra)
    ]
    return splits | {"train": splits["train"] + added}


def only_new(parts: Iterable[list[Example]], rows: list[Example]) -> list[Example]:
    """The rows whose text stands in none of the parts, each text once."""
    seen = {normalise(row.text) for part in parts for row in part}
    found = []
    for row in rows:
        if (text := normalise(row.text)) not in seen:
            seen.add(text)
            found.append(row)
    return found


def require_usable(splits: Splits) -> None:
    """Raise DataError where a split is empty, or an intent is evaluated on but never trained."""
    for name, rows in splits.items():
        if not rows:
            raise DataError(f"the {name} split is empty", "Add rows, or change split and leakage")
    known = {row.label_text for row in splits["train"]}
    for name in ("val", "test"):
        strange = sorted({row.label_text for row in splits[name]} - known)
        if strange:
            raise DataError(
                f'intent "{strange[0]}" stands in {name} but not in train',
                "Add training rows of it",
            )


def _by_intent(examples: list[Example]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[example.label_text].append(index)
    return dict(sorted(groups.items()))


def _take(
    examples: list[Example], share: float, rng: np.random.Generator, leave: int = 1
) -> tuple[list[Example], list[Example]]:
    """(the rest, about `share` of every intent): at least one row of each, at least `leave` left."""
    groups = _by_intent(examples)
    rare = {name: len(rows) for name, rows in groups.items() if len(rows) < leave + 1}
    if rare:
        listed = ", ".join(f'"{name}" ({count})' for name, count in list(rare.items())[:5])
        raise DataError(
            f"{len(rare)} intent(s) have too few rows to stand in every split, which takes {leave + 1}: {listed}",
            "Add sentences, or remove these intents",
        )
    taken: set[int] = set()
    for rows in groups.values():
        count = min(max(1, round(share * len(rows))), len(rows) - leave)
        taken.update(rng.permutation(rows)[:count].tolist())
    rest = [example for index, example in enumerate(examples) if index not in taken]
    return rest, [examples[index] for index in sorted(taken)]


def _few_shot(train: list[Example], k: int, rng: np.random.Generator) -> list[Example]:
    kept: list[int] = []
    for name, rows in _by_intent(train).items():
        if len(rows) < k:
            raise DataError(
                f'intent "{name}" has {len(rows)} training rows, fewer than few_shot: {k}',
                "Lower few_shot",
            )
        kept += rng.permutation(rows)[:k].tolist()
    return [train[index] for index in sorted(kept)]
