"""Rows drawn from each intent by a seeded generator: another row, or another order, draws anew."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example
from bankintent.corpus.splits import (
    Splits,
    count_intents,
    group_by_intent,
    name_counts,
    pool,
)
from bankintent.errors import DataError


def keep_official(parts: Splits, config: DataConfig, train_only: set[str]) -> Splits:
    """The source's own test split; val is its own too, or a share of train.

    Intents of `train_only` give no rows to val. `few_shot` is drawn by the same generator.
    """
    rng = np.random.default_rng(config.seed)
    train = parts["train"]
    val = parts.get("val", [])
    # Out of train, so that the source's test split stays as published.
    if not val:
        train, val = _take(train, config.val_split, rng, train_only)

    splits = {"train": train, "val": val, "test": parts["test"]}
    return _draw_few(splits, config, rng, train_only)


def stratify(parts: Splits, config: DataConfig, train_only: set[str]) -> Splits:
    """All rows pooled and drawn anew, each intent in the same shares.

    Intents of `train_only` stay in train. `few_shot` is drawn by the same generator.
    """
    rng = np.random.default_rng(config.seed)
    # Of each intent, test leaves one row for val and one for train.
    rest, test = _take(pool(parts), config.test_split, rng, train_only, leave=2)

    # val_split is a share of all rows; here it is taken out of those that test leaves.
    share = config.val_split / (1 - config.test_split)
    train, val = _take(rest, share, rng, train_only)

    splits = {"train": train, "val": val, "test": test}
    return _draw_few(splits, config, rng, train_only)


def _take(
    examples: list[Example],
    share: float,
    rng: np.random.Generator,
    train_only: set[str],
    leave: int = 1,
) -> tuple[list[Example], list[Example]]:
    """(the rest, about `share` of every intent), both in the order of `examples`.

    At least one row of each intent is taken and at least `leave` rows are left; of the intents of
    `train_only` none is taken.
    """
    groups = []
    for name, indices in group_by_intent(examples).items():
        if name not in train_only:
            groups.append(np.array(indices))
    taken = set(draw_share(groups, share, rng, leave).tolist())

    rest: list[Example] = []
    share_rows: list[Example] = []
    for index, example in enumerate(examples):
        target = share_rows if index in taken else rest
        target.append(example)
    return rest, share_rows


def draw_share(
    groups: Iterable[NDArray[np.int64]], share: float, rng: np.random.Generator, leave: int = 1
) -> NDArray[np.int64]:
    """About `share` of each group of indices, drawn group after group.

    At least one of each is taken, and at least `leave` are left.
    """
    drawn = [np.empty(0, dtype=np.int64)]
    for indices in groups:
        # At least one row, however small the share, but never one that must be left.
        count = max(1, round(share * len(indices)))
        count = min(count, len(indices) - leave)
        drawn.append(rng.permutation(indices)[:count])
    return np.concatenate(drawn)


def _draw_few(
    splits: Splits, config: DataConfig, rng: np.random.Generator, train_only: set[str]
) -> Splits:
    """`few_shot` training rows of each intent, in the order of train; all where it is not set."""
    k = config.few_shot
    if k is None:
        return splits

    train = splits["train"]
    require_few_shot(train, k, train_only)

    drawn: list[int] = []
    for indices in group_by_intent(train).values():
        drawn += rng.permutation(indices)[:k].tolist()
    return splits | {"train": [train[index] for index in sorted(drawn)]}


def require_few_shot(train: list[Example], k: int, train_only: set[str]) -> None:
    """Raise DataError that names the intents with fewer than `k` training rows.

    Those of `train_only` give what they have.
    """
    short = {}
    for name, count in count_intents(train).items():
        if count < k and name not in train_only:
            short[name] = count
    if short:
        raise DataError(
            f"{len(short)} intent(s) have fewer training rows than few_shot ({k}): "
            f"{name_counts(short)}",
            "Lower few_shot, or add sentences",
        )
