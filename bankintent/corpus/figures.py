"""Figures of a corpus: counts, lengths, duplicates, contradictions, refused and leaking rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import (
    Cleaned,
    Example,
    RefusedRow,
    count_reasons,
    normalise,
    normalised_texts,
)
from bankintent.corpus.leaks import NEAR, Leak, SplitLeaks
from bankintent.corpus.rows import SourceIdentity
from bankintent.corpus.splits import EXTRA_PREFIX, Corpus, intents, pool
from bankintent.files import JsonObject


@dataclass(frozen=True)
class Spread:
    """The distribution of some whole numbers."""

    min: int
    median: float
    p95: float
    max: int


@dataclass(frozen=True)
class SplitFigures:
    """One split."""

    rows: int
    intents: int
    rows_per_intent: Spread
    words: Spread
    characters: Spread
    duplicates: int
    """Rows whose text, after normalisation, another row of the split has before them."""
    two_labels: int
    """Texts that carry two labels in this split."""
    per_intent: dict[str, int]
    """Rows of each intent, in alphabetical order."""


@dataclass(frozen=True)
class UnlabelledFigures:
    """Sentences without labels."""

    read: int
    """That are usable at all."""
    kept: int
    """That are new, and not nearly the same as one of val or test."""


@dataclass(frozen=True)
class RefusedFigures:
    """Rows that cleaning left out."""

    policy: str
    count: int
    reasons: dict[str, int]
    """The most frequent first."""
    rows: list[RefusedRow]


@dataclass(frozen=True)
class LeakFigures:
    """Leaks between two splits."""

    same: int
    near: int
    rows: list[Leak]


@dataclass(frozen=True)
class LeakageFigures:
    """Leaks between all splits, as they were found, and the policy that was applied to them."""

    policy: str
    near_threshold: float
    pairs: dict[str, LeakFigures]
    """By `<split that keeps the text>/<other split>`."""


@dataclass(frozen=True)
class TwoLabels:
    """The rows of one text, after normalisation, that carry more than one label."""

    ids: list[str]
    labels: list[str]


@dataclass(frozen=True)
class DataReport:
    """report.json: its keys are these fields, in this order."""

    source: SourceIdentity
    """What identifies the source, as in the manifest."""
    split: str
    few_shot: int | None
    extra_train: int
    """Rows of train that come from extra_train."""
    unlabelled: UnlabelledFigures | None
    intents: int
    splits: dict[str, SplitFigures]
    refused: RefusedFigures
    leakage: LeakageFigures
    two_labels: list[TwoLabels]

    def to_json(self) -> JsonObject:
        """The report as plain JSON values."""
        return asdict(self)


def describe_data(
    corpus: Corpus,
    rows: Cleaned,
    leaks: list[SplitLeaks],
    source: SourceIdentity,
    config: DataConfig,
) -> DataReport:
    """The data report of a corpus; `rows` are those that it was made of, `source` its identity."""
    everything = pool(corpus.splits)
    extra = [row for row in corpus.splits["train"] if row.id.startswith(EXTRA_PREFIX)]

    splits = {}
    for name, part in corpus.splits.items():
        splits[name] = _describe_split(part)

    return DataReport(
        source=source,
        split=config.split,
        few_shot=config.few_shot,
        extra_train=len(extra),
        unlabelled=_describe_unlabelled(corpus, rows),
        intents=len(intents(everything)),
        splits=splits,
        refused=_describe_refused(rows.refusals, config.bad_rows),
        leakage=_describe_leakage(leaks, config.leakage),
        two_labels=_find_two_labels(everything),
    )


def _describe_unlabelled(corpus: Corpus, rows: Cleaned) -> UnlabelledFigures | None:
    if rows.unlabelled is None or corpus.unlabelled is None:
        return None
    return UnlabelledFigures(read=len(rows.unlabelled), kept=len(corpus.unlabelled))


def _describe_split(rows: list[Example]) -> SplitFigures:
    counts = Counter(row.label_text for row in rows)
    per_intent = {}
    for label in sorted(counts, key=str.lower):
        per_intent[label] = counts[label]

    # Words are what blanks separate: an estimate of length that needs no tokenizer.
    words = [len(row.text.split()) for row in rows]
    characters = [len(row.text) for row in rows]
    different = set(normalised_texts(rows))

    return SplitFigures(
        rows=len(rows),
        intents=len(counts),
        rows_per_intent=_spread(list(counts.values())),
        words=_spread(words),
        characters=_spread(characters),
        duplicates=len(rows) - len(different),
        two_labels=len(_find_two_labels(rows)),
        per_intent=per_intent,
    )


def _spread(values: Sequence[int]) -> Spread:
    return Spread(
        min=min(values),
        median=float(np.median(values)),
        p95=float(np.quantile(values, 0.95)),
        max=max(values),
    )


def _find_two_labels(rows: list[Example]) -> list[TwoLabels]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        groups[normalise(row.text)].append(row)

    # Groups come in the order of their first rows, so the report is the same every time.
    entries = []
    for group in groups.values():
        labels = sorted(intents(group))
        if len(labels) > 1:
            ids = [row.id for row in group]
            entries.append(TwoLabels(ids, labels))
    return entries


def _describe_refused(refusals: list[RefusedRow], policy: str) -> RefusedFigures:
    return RefusedFigures(policy, len(refusals), count_reasons(refusals), refusals)


def _describe_leakage(leaks: list[SplitLeaks], policy: str) -> LeakageFigures:
    pairs = {}
    for pair in leaks:
        similarities = [leak.similarity for leak in pair.rows]
        same = similarities.count(1.0)
        near = len(similarities) - same

        name = f"{pair.kept}/{pair.other}"
        pairs[name] = LeakFigures(same, near, pair.rows)
    return LeakageFigures(policy, NEAR, pairs)
