"""A split in which the place of a row follows from its text, its intent and the seed.

The rows of an intent stand in the order of a hash of their texts: the first share of them is test,
the next val, the rest train. Another row therefore moves no more than the rows at the two borders,
and the order of the source moves none. Rows with the same or nearly the same text stand together.

A hash knows nothing of what a text says, so that test is as fair a sample as a random draw.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.near import families
from bankintent.corpus.random_split import require_few_shot
from bankintent.corpus.splits import Splits, group_by_intent, pool

HASH_BYTES = 8
"""Length of a hash: equal hashes of two texts do not occur."""

Key = Callable[[int], str]
"""A row -> what the rows that stand together have in common."""


@dataclass(frozen=True)
class _Shares:
    test: float
    val: float


@dataclass(frozen=True)
class _Rows:
    """The rows to divide, and what is known of each of them; the lists are aligned."""

    texts: list[str]
    """Normalised."""
    family: list[str]
    """The first text, in alphabetical order, of those that near pairs connect with its own."""


@dataclass(frozen=True)
class _Group:
    """Rows that stand together."""

    position: float
    """From 0 to 1, by the hash of a text: its place in the order."""
    rows: list[int]


def place(parts: Splits, config: DataConfig, train_only: set[str]) -> Splits:
    """Divide the pooled rows of all parts into train, val and test, in their order.

    Every intent stands in each split, but those of `train_only` in train alone.
    """
    examples = pool(parts)
    shares = _Shares(config.test_split, config.val_split)
    split_of_row = _place_all(examples, shares, config.seed, train_only)

    splits: Splits = {"train": [], "val": [], "test": []}
    for example, split in zip(examples, split_of_row, strict=True):
        splits[split].append(example)

    if config.few_shot is not None:
        splits["train"] = _keep_few(splits["train"], config.few_shot, config.seed, train_only)
    return splits


def _place_all(
    examples: list[Example], shares: _Shares, seed: int, train_only: set[str]
) -> list[str]:
    """The split of each row."""
    rows = _find_families(examples)
    split_of_row = ["train"] * len(examples)

    divided = {}
    for name, indices in group_by_intent(examples).items():
        if name not in train_only:
            divided[name] = indices

    shared = _find_shared(rows, divided, shares)
    for indices in divided.values():
        for row, split in _place_intent(rows, indices, shared, shares, seed).items():
            split_of_row[row] = split
    return split_of_row


def _find_families(examples: list[Example]) -> _Rows:
    texts = normalised_texts(examples)
    # Sorted, so that the first text of a family does not follow from the order of the source.
    different = sorted(set(texts))

    family_of_text = {}
    for text, family in zip(different, families(different), strict=True):
        family_of_text[text] = different[family]
    return _Rows(texts, [family_of_text[text] for text in texts])


def _find_shared(rows: _Rows, intents: dict[str, list[int]], shares: _Shares) -> set[str]:
    """The families with rows of several intents, each of which can spare them.

    They stand in one split. A large family would leave an intent with too little elsewhere.
    """
    homes: dict[str, int] = {}
    large = set()
    for indices in intents.values():
        limit = _largest(len(indices), shares)
        for family, members in _gather(indices, rows.family.__getitem__).items():
            homes[family] = homes.get(family, 0) + 1
            if _is_large(members, limit):
                large.add(family)

    return {family for family, count in homes.items() if count > 1 and family not in large}


def _place_intent(
    rows: _Rows, indices: list[int], shared: set[str], shares: _Shares, seed: int
) -> dict[int, str]:
    """The split of each row of one intent."""
    split_of_row: dict[int, str] = {}
    own = []
    for row in indices:
        if rows.family[row] in shared:
            # By its hash alone: the other intents of this family come to the same place.
            position = _position(rows.family[row], seed)
            split_of_row[row] = _split_at(position, shares)
        else:
            own.append(row)

    families_of_intent = _group(own, rows.family.__getitem__, seed)
    if _can_be_ranked(families_of_intent, len(own), shares):
        return split_of_row | _rank(families_of_intent, len(own), shares)

    # Too few families, or too large ones: only rows with the same text stand together.
    texts_of_intent = _group(indices, rows.texts.__getitem__, seed)
    if _can_be_ranked(texts_of_intent, len(indices), shares):
        return _rank(texts_of_intent, len(indices), shares)

    # Too few texts as well: every row stands by itself.
    single = _number_repeats(rows, indices)
    return _rank(_group(indices, single.__getitem__, seed), len(indices), shares)


def _number_repeats(rows: _Rows, indices: list[int]) -> dict[int, str]:
    """The text of each row with a number, which tells the rows with the same text apart."""
    names = {}
    for text, members in _gather(indices, rows.texts.__getitem__).items():
        for number, row in enumerate(members):
            names[row] = f"{text} {number}"
    return names


def _gather(indices: Iterable[int], key: Key) -> dict[str, list[int]]:
    """The rows that have the same key."""
    members: dict[str, list[int]] = {}
    for row in indices:
        members.setdefault(key(row), []).append(row)
    return members


def _group(indices: Iterable[int], key: Key, seed: int) -> list[_Group]:
    """The rows that have the same key, in the order of the hashes of the keys."""
    groups = []
    for value, members in _gather(indices, key).items():
        groups.append(_Group(_position(value, seed), members))
    return sorted(groups, key=lambda group: group.position)


def _position(text: str, seed: int, purpose: str = "split") -> float:
    """A number from 0 to 1 that follows from the text and the seed, evenly spread over texts."""
    content = f"{purpose} {seed} {text}".encode()
    digest = hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest) / 256**HASH_BYTES


def _split_at(position: float, shares: _Shares) -> str:
    """The split that holds a place in the order from 0 to 1."""
    if position < shares.test:
        return "test"
    if position < shares.test + shares.val:
        return "val"
    return "train"


def _largest(rows: int, shares: _Shares) -> float:
    """Rows from which a group is large for an intent of `rows` rows: twice a small split."""
    return 2 * min(shares.test, shares.val) * rows


def _is_large(members: list[int], limit: float) -> bool:
    return len(members) > 1 and len(members) >= limit


def _without_large(groups: list[_Group], rows: int, shares: _Shares) -> list[_Group]:
    limit = _largest(rows, shares)
    return [group for group in groups if not _is_large(group.rows, limit)]


def _can_be_ranked(groups: list[_Group], rows: int, shares: _Shares) -> bool:
    """Whether the groups that are not large can fill test and val, and train besides."""
    ranked = _without_large(groups, rows, shares)
    if len(ranked) < 3:
        return False
    if len(ranked) == len(groups):
        return True

    ranked_rows = sum(len(group.rows) for group in ranked)
    return ranked_rows >= 2 * (shares.test + shares.val) * rows


def _rank(groups: list[_Group], rows: int, shares: _Shares) -> dict[int, str]:
    """The split of each row: the first groups are test, the next val; large ones are train."""
    ranked = _without_large(groups, rows, shares)
    ends = accumulate(len(group.rows) for group in ranked)

    # A group stands where its middle is, which rounds the shares.
    splits = []
    for group, end in zip(ranked, ends, strict=True):
        middle = end - len(group.rows) / 2
        splits.append(_split_at(middle / rows, shares))

    # At least one group in each split, however small the share.
    tested = min(max(1, splits.count("test")), len(ranked) - 2)
    validated = min(max(1, splits.count("val")), len(ranked) - tested - 1)

    split_of_row: dict[int, str] = {}
    for group in groups:
        split_of_row |= dict.fromkeys(group.rows, "train")
    for group in ranked[:tested]:
        split_of_row |= dict.fromkeys(group.rows, "test")
    for group in ranked[tested : tested + validated]:
        split_of_row |= dict.fromkeys(group.rows, "val")
    return split_of_row


def _keep_few(train: list[Example], k: int, seed: int, train_only: set[str]) -> list[Example]:
    """The `k` rows of each intent that come first by another hash, in the order of train."""
    require_few_shot(train, k, train_only)

    # Not by the hash of the split, whose first rows change places with val.
    positions = [_position(text, seed, "few-shot") for text in normalised_texts(train)]
    kept: list[int] = []
    for indices in group_by_intent(train).values():
        kept += sorted(indices, key=positions.__getitem__)[:k]
    return [train[row] for row in sorted(kept)]
