"""A split in which the place of a row follows from its text, its intent and the seed.

The rows of an intent stand in the order of a hash of their texts: the first share of them is test,
the next val, the rest train. Another row therefore moves no more than the rows at the two borders,
and the order of the source moves none. Rows with the same or nearly the same text stand together.

A hash knows nothing of what a text says, so that test is as fair a sample as a random draw.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.near import families
from bankintent.corpus.random_split import require_few_shot
from bankintent.corpus.splits import Splits, group_by_intent, pool

HASH_BYTES = 8
"""Length of a hash: equal hashes of two texts do not occur."""

NAMES = ("train", "val", "test")
"""The splits by their numbers."""

TRAIN, VAL, TEST = range(3)

Ints = NDArray[np.int64]
Numbers = NDArray[np.int8]
"""Numbers of splits."""


@dataclass(frozen=True)
class Shares:
    """Shares of each intent's rows."""

    test: float
    val: float


@dataclass(frozen=True)
class Rows:
    """The rows to divide, and what is known of each of them; the arrays are aligned."""

    text: Ints
    """Number of its normalised text."""
    family: Ints
    """Number of the first text, in alphabetical order, that near pairs connect with its own."""
    positions: Callable[[Ints], NDArray[np.float64]]
    """Numbers of texts -> their places in the order, from 0 to 1."""
    names: Callable[[Ints], list[str]]
    """Numbers of texts -> the normalised texts."""
    texts: int
    """How many texts there are."""


@dataclass(frozen=True)
class _Groups:
    """Rows that stand together, in the order of the hashes of what they have in common."""

    sizes: Ints
    """Rows of each group."""
    group: Ints
    """Of each row the number of its group."""


def place(parts: Splits, config: DataConfig, train_only: set[str]) -> Splits:
    """Divide the pooled rows of all parts into train, val and test, in their order.

    Every intent stands in each split, but those of `train_only` in train alone.
    """
    examples = pool(parts)
    divided = []
    for name, indices in group_by_intent(examples).items():
        if name not in train_only:
            divided.append(np.array(indices))

    shares = Shares(config.test_split, config.val_split)
    split_of_row = place_rows(_find_families(examples, config.seed), divided, shares, config.seed)

    splits: Splits = {"train": [], "val": [], "test": []}
    for example, split in zip(examples, split_of_row.tolist(), strict=True):
        splits[NAMES[split]].append(example)

    if config.few_shot is not None:
        splits["train"] = _keep_few(splits["train"], config.few_shot, config.seed, train_only)
    return splits


def _find_families(examples: list[Example], seed: int) -> Rows:
    texts = normalised_texts(examples)
    # Sorted, so that the first text of a family does not follow from the order of the source.
    different = sorted(set(texts))
    number_of_text = {text: number for number, text in enumerate(different)}
    text = np.array([number_of_text[one] for one in texts], dtype=np.int64)
    family_of_text = np.array(families(different), dtype=np.int64)

    def names(numbers: Ints) -> list[str]:
        return [different[number] for number in numbers.tolist()]

    def find_positions(numbers: Ints) -> NDArray[np.float64]:
        return positions(names(numbers), seed)

    return Rows(text, family_of_text[text], find_positions, names, len(different))


def place_rows(rows: Rows, intents: Sequence[Ints], shares: Shares, seed: int) -> Numbers:
    """The number of the split of each row; `intents` has the rows of each that is divided."""
    split_of_row = np.full(len(rows.text), TRAIN, dtype=np.int8)
    shared = _find_shared(rows, intents, shares)
    for indices in intents:
        split_of_row[indices] = _place_intent(rows, indices, shared, shares, seed)
    return split_of_row


def _find_shared(rows: Rows, intents: Sequence[Ints], shares: Shares) -> NDArray[np.bool_]:
    """For each text, whether its family has rows of several intents, each of which can spare them.

    They stand in one split. A large family would leave an intent with too little elsewhere.
    """
    homes = np.zeros(rows.texts, dtype=np.int32)
    large = np.zeros(rows.texts, dtype=np.bool_)
    for indices in intents:
        families_of_intent, sizes = np.unique(rows.family[indices], return_counts=True)
        homes[families_of_intent] += 1
        is_large = _are_large(sizes, len(indices), shares)
        large[families_of_intent[is_large]] = True

    return (homes > 1) & ~large


def _place_intent(
    rows: Rows, indices: Ints, shared: NDArray[np.bool_], shares: Shares, seed: int
) -> Numbers:
    """The split of each row of one intent."""
    family = rows.family[indices]
    is_shared = shared[family]
    own = family[~is_shared]

    families_of_intent = _group(own, rows.positions)
    if _can_be_ranked(families_of_intent, shares):
        split_of_row = np.full(len(indices), TRAIN, dtype=np.int8)
        # By its hash alone: the other intents of this family come to the same place.
        split_of_row[is_shared] = _split_at(rows.positions(family[is_shared]), shares)
        split_of_row[~is_shared] = _rank(families_of_intent, shares)
        return split_of_row

    # Too few families, or too large ones: only rows with the same text stand together.
    texts_of_intent = _group(rows.text[indices], rows.positions)
    if _can_be_ranked(texts_of_intent, shares):
        return _rank(texts_of_intent, shares)

    # Too few texts as well: every row stands by itself.
    single = _number_repeats(rows, indices)
    each = _group(np.arange(len(indices)), lambda _: positions(single, seed))
    return _rank(each, shares)


def _number_repeats(rows: Rows, indices: Ints) -> list[str]:
    """The text of each row with a number, which tells the rows with the same text apart."""
    texts, text_of_row = np.unique(rows.text[indices], return_inverse=True)
    names = rows.names(texts)
    counts = [0] * len(names)

    numbered = []
    for text in text_of_row.tolist():
        numbered.append(f"{names[text]} {counts[text]}")
        counts[text] += 1
    return numbered


def _group(keys: Ints, find_positions: Callable[[Ints], NDArray[np.float64]]) -> _Groups:
    """The rows that have the same key, in the order of the hashes of the keys."""
    different, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(find_positions(different), kind="stable")
    place_of_group = np.empty(len(order), dtype=np.int64)
    place_of_group[order] = np.arange(len(order))
    return _Groups(sizes[order], place_of_group[group])


def positions(texts: Iterable[str], seed: int) -> NDArray[np.float64]:
    """The place of each text in the order of a split, as `_position` has it."""
    return np.array([_position(text, seed) for text in texts], dtype=np.float64)


def _position(text: str, seed: int, purpose: str = "split") -> float:
    """A number from 0 to 1 that follows from the text and the seed, evenly spread over texts."""
    content = f"{purpose} {seed} {text}".encode()
    digest = hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest) / 256**HASH_BYTES


def _split_at(place_in_order: NDArray[np.float64], shares: Shares) -> Numbers:
    """The split that holds each place in the order from 0 to 1."""
    splits = np.full(len(place_in_order), TRAIN, dtype=np.int8)
    splits[place_in_order < shares.test + shares.val] = VAL
    splits[place_in_order < shares.test] = TEST
    return splits


def _are_large(sizes: Ints, rows: int, shares: Shares) -> NDArray[np.bool_]:
    """Which groups are large for an intent of `rows` rows: from twice a small split on."""
    limit = 2 * min(shares.test, shares.val) * rows
    return np.asarray((sizes > 1) & (sizes >= limit))


def _can_be_ranked(groups: _Groups, shares: Shares) -> bool:
    """Whether the groups that are not large can fill test and val, and train besides."""
    rows = len(groups.group)
    sizes = groups.sizes[~_are_large(groups.sizes, rows, shares)]
    if len(sizes) < 3:
        return False
    if len(sizes) == len(groups.sizes):
        return True
    return bool(sizes.sum() >= 2 * (shares.test + shares.val) * rows)


def _rank(groups: _Groups, shares: Shares) -> Numbers:
    """The split of each row: the first groups are test, the next val; large ones are train."""
    rows = len(groups.group)
    ranked = np.flatnonzero(~_are_large(groups.sizes, rows, shares))
    sizes = groups.sizes[ranked]

    # A group stands where its middle is, which rounds the shares.
    middle = np.cumsum(sizes) - sizes / 2
    splits = _split_at(middle / rows, shares)

    # At least one group in each split, however small the share.
    tested = min(max(1, int((splits == TEST).sum())), len(ranked) - 2)
    validated = min(max(1, int((splits == VAL).sum())), len(ranked) - tested - 1)

    split_of_group = np.full(len(groups.sizes), TRAIN, dtype=np.int8)
    split_of_group[ranked[:tested]] = TEST
    split_of_group[ranked[tested : tested + validated]] = VAL
    return split_of_group[groups.group]


def _keep_few(train: list[Example], k: int, seed: int, train_only: set[str]) -> list[Example]:
    """The `k` rows of each intent that come first by another hash, in the order of train."""
    require_few_shot(train, k, train_only)

    # Not by the hash of the split, whose first rows change places with val.
    positions = [_position(text, seed, "few-shot") for text in normalised_texts(train)]
    kept: list[int] = []
    for indices in group_by_intent(train).values():
        kept += sorted(indices, key=positions.__getitem__)[:k]
    return [train[row] for row in sorted(kept)]
