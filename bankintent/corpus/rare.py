"""Intents with too few rows to stand in every split: refused, only trained on, dropped, merged."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Cleaned, Example
from bankintent.corpus.splits import RareIntents, Splits, count_intents, name_counts
from bankintent.errors import DataError
from bankintent.texts import fold

POOLED_ROWS = 3
"""Rows that an intent needs where all rows are divided anew: one in each split."""

OFFICIAL_ROWS = 2
"""Training rows that it needs where val is taken out of train."""


Counts = Mapping[str, Mapping[str, int]]
"""Rows of each intent, by the part of the source."""


@dataclass(frozen=True)
class _Found:
    """Rare intents by what they lack, with the rows that they have."""

    too_few: dict[str, int]
    """In the rows that are divided."""
    untrained: dict[str, int]
    """Rows in val and test of intents that train does not have."""
    least: int
    """Rows that an intent needs to stand in every split."""

    @property
    def rows(self) -> dict[str, int]:
        return dict(sorted((self.too_few | self.untrained).items()))


def resolve_rare(rows: Cleaned, division: str, config: DataConfig) -> tuple[Cleaned, RareIntents]:
    """Find the rare intents and apply the policy `rare`; (the rows to divide, what was done).

    Raises like `decide`.
    """
    counts = {split: count_intents(part) for split, part in rows.dataset.items()}
    rare = decide(counts, count_intents(rows.extra_train), division, config)
    if rare.policy == "drop":
        rows = _change(rows, lambda row: None if row.label_text in rare.rows else row)
    if rare.merged_into is not None:
        rows = _merge(rows, set(rare.rows), rare.merged_into)
    return rows, rare


def decide(counts: Counts, extra: Iterable[str], division: str, config: DataConfig) -> RareIntents:
    """Which intents are rare, by the rows of each intent in each part, and what is done with them.

    `extra` are intents that extra_train has rows of. Raises DataError that names all of them where
    the policy is `refuse`, or does not help.
    """
    known = set(extra)
    found = _find(counts, known, division)
    policy = config.rare
    if division == "cross" and policy in ("refuse", "train_only"):
        # They are in the way of nothing: every fold trains on them.
        return RareIntents("train_only", found.rows)
    if not found.rows:
        return RareIntents(policy)

    if policy == "refuse":
        _refuse(found)
    if policy == "train_only":
        _require_trained(found)
    if policy in ("train_only", "drop"):
        return RareIntents(policy, found.rows)

    target = fold(config.merge_into)
    merged = {}
    for split, part in counts.items():
        merged[split] = _merge_counts(part, found.rows, target)
    known = {target if name in found.rows else name for name in known}
    _require_helped(_find(merged, known, division), target)
    return RareIntents(policy, found.rows, merged_into=target)


def _merge_counts(counts: Mapping[str, int], names: Collection[str], target: str) -> dict[str, int]:
    merged: Counter[str] = Counter()
    for name, count in counts.items():
        merged[target if name in names else name] += count
    return dict(sorted(merged.items()))


def _find(counts: Counts, extra: set[str], division: str) -> _Found:
    if division != "official":
        too_few = _fewer_than(POOLED_ROWS, _pool(counts.values()))
        return _Found(too_few, {}, POOLED_ROWS)

    trained = counts["train"]
    # Where the source has a validation split, nothing is taken out of train.
    too_few = {} if counts.get("val") else _fewer_than(OFFICIAL_ROWS, trained)

    known = trained.keys() | extra
    evaluated = _pool([counts.get("val", {}), counts["test"]])
    untrained = {name: count for name, count in evaluated.items() if name not in known}
    return _Found(too_few, untrained, OFFICIAL_ROWS)


def _pool(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The rows of each intent in all parts, in alphabetical order."""
    pooled: Counter[str] = Counter()
    for part in parts:
        pooled.update(part)
    return dict(sorted(pooled.items()))


def _fewer_than(least: int, counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count < least}


def _refuse(found: _Found) -> None:
    faults = []
    choices = "drop (their rows are left out) or merge:NAME (they become the intent NAME)"
    if found.too_few:
        faults.append(
            f"{len(found.too_few)} intent(s) have too few rows to stand in every split, which "
            f"takes {found.least}: {name_counts(found.too_few)}"
        )
    if found.untrained:
        faults.append(_describe_untrained(found))
    else:
        choices = f"train_only (trained on, not evaluated), {choices}"
    raise DataError("; ".join(faults), f"Add sentences, or set rare: {choices}")


def _require_trained(found: _Found) -> None:
    if found.untrained:
        raise DataError(
            f"{_describe_untrained(found)}; rare: train_only cannot train on them",
            "Add training rows, or set rare: drop or merge:NAME",
        )


def _describe_untrained(found: _Found) -> str:
    listed = name_counts(found.untrained)
    return f"{len(found.untrained)} intent(s) stand in val or test but not in train: {listed}"


def _require_helped(found: _Found, target: str) -> None:
    if found.rows:
        raise DataError(
            f"after rare: merge:{target} there are still rare intents: {name_counts(found.rows)}",
            "Merge into an intent with more rows, or set rare: drop",
        )


def _merge(rows: Cleaned, names: set[str], target: str) -> Cleaned:
    def rename(row: Example) -> Example:
        return replace(row, label_text=target) if row.label_text in names else row

    return _change(rows, rename)


def _change(rows: Cleaned, change: Callable[[Example], Example | None]) -> Cleaned:
    """Every labelled row changed, or left out where `change` gives None."""
    dataset: Splits = {}
    for split, part in rows.dataset.items():
        dataset[split] = _change_part(part, change)
    return replace(rows, dataset=dataset, extra_train=_change_part(rows.extra_train, change))


def _change_part(part: list[Example], change: Callable[[Example], Example | None]) -> list[Example]:
    changed = [change(row) for row in part]
    return [row for row in changed if row is not None]
