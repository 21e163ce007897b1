"""Figures of a corpus: counts, lengths, duplicates, contradictions, refused and leaking rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig
from bankintent.corpus import language
from bankintent.corpus.cleaning import Cleaned, Example, normalised_texts
from bankintent.corpus.kept_columns import ColumnFigures, describe_columns
from bankintent.corpus.label_notes import alike_names
from bankintent.corpus.leaks import Leak, SplitLeaks
from bankintent.corpus.near import NEAR
from bankintent.corpus.out_of_scope import OutOfScopeFigures, describe_out_of_scope
from bankintent.corpus.refusals import RefusedRow, count_reasons
from bankintent.corpus.rows import Reading, SourceIdentity, Sources
from bankintent.corpus.splits import (
    EXTRA_PREFIX,
    AppliedPatch,
    Corpus,
    RareIntents,
    count_intents,
    intents,
    pool,
)
from bankintent.files import JsonObject
from bankintent.labels import in_order
from bankintent.texts import normalise


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
    """Rows of each intent, in the order of labels.json where that has none of its own."""


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
class RareFigures:
    """Intents with too few rows to stand in every split."""

    policy: str
    rows: dict[str, int]
    """Rows of each, by name, as they were found."""
    note: str | None
    """What was done with them, as a sentence; None where all of them stay."""


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
    reading: list[Reading]
    """What was taken of each file of the dataset, then of extra_train and unlabelled."""
    unread: list[str]
    """Files beside them of which nothing was taken."""
    left: dict[str, int]
    """What an export of another tool holds besides sentences, and how many of it."""
    source_notes: list[str]
    """How something of an export was read."""
    languages: dict[str, float]
    """ISO 639 code -> share of a sample of the sentences."""
    split: str
    split_note: str
    """How the rows were divided, and why, as a sentence."""
    rare: RareFigures
    not_judged: dict[str, int]
    """Intents that cross-validation never holds out, with their rows."""
    few_shot: int | None
    extra_train: int
    """Rows of train that come from extra_train."""
    unlabelled: UnlabelledFigures | None
    intents: int
    splits: dict[str, SplitFigures]
    refused: RefusedFigures
    leakage: LeakageFigures
    two_labels: list[TwoLabels]
    alike_labels: list[dict[str, int]]
    """Groups of intents whose names differ by next to nothing, each name with its rows."""
    out_of_scope: OutOfScopeFigures
    columns: dict[str, ColumnFigures]
    """The columns of `keep_columns`, by name, over all splits."""
    patches: list[AppliedPatch]
    """Corrections of labels that were applied, in order."""
    unlisted: dict[str, int] = field(default_factory=dict)
    """Entries that the lists leave out, by the name of the list; none where they are whole."""

    def to_json(self) -> JsonObject:
        """The report as plain JSON values."""
        return asdict(self)


def describe_data(
    corpus: Corpus,
    rows: Cleaned,
    leaks: list[SplitLeaks],
    sources: Sources,
    config: DataConfig,
) -> DataReport:
    """The data report of a corpus; `rows` are those that it was made of, read from `sources`."""
    everything = pool(corpus.splits)
    counts = Counter(row.label_text for row in everything)
    extra = [row for row in corpus.splits["train"] if row.id.startswith(EXTRA_PREFIX)]

    splits = {}
    for name, part in corpus.splits.items():
        splits[name] = _describe_split(part)

    return DataReport(
        source=sources.identity,
        reading=sources.reading,
        unread=sources.dataset.unread,
        left=sources.dataset.left,
        source_notes=sources.dataset.notes,
        languages=language.detect([row.text for row in everything]).shares,
        split=corpus.division.name,
        split_note=corpus.division.note,
        rare=_describe_rare(corpus.rare),
        not_judged=corpus.not_judged,
        few_shot=config.few_shot,
        extra_train=len(extra),
        unlabelled=_describe_unlabelled(corpus, rows),
        intents=len(counts),
        splits=splits,
        refused=_describe_refused(rows.refusals, config.bad_rows),
        leakage=_describe_leakage(leaks, config.leakage),
        two_labels=_find_two_labels(everything),
        alike_labels=alike_names(counts),
        out_of_scope=describe_out_of_scope(corpus),
        columns=describe_columns(config.keep_columns, [row.kept for row in everything]),
        patches=corpus.patches,
    )


def _describe_unlabelled(corpus: Corpus, rows: Cleaned) -> UnlabelledFigures | None:
    if rows.unlabelled is None or corpus.unlabelled is None:
        return None
    return UnlabelledFigures(read=len(rows.unlabelled), kept=len(corpus.unlabelled))


def _describe_split(rows: list[Example]) -> SplitFigures:
    counts = count_intents(rows)
    per_intent = {}
    for label in in_order(counts):
        per_intent[label] = counts[label]

    # Words are what blanks separate: an estimate of length that needs no tokenizer.
    words = [len(row.text.split()) for row in rows]
    characters = [len(row.text) for row in rows]
    different = set(normalised_texts(rows))

    return SplitFigures(
        rows=len(rows),
        intents=len(counts),
        rows_per_intent=spread(list(counts.values())),
        words=spread(words),
        characters=spread(characters),
        duplicates=len(rows) - len(different),
        two_labels=len(_find_two_labels(rows)),
        per_intent=per_intent,
    )


def spread(values: Sequence[int] | NDArray[np.int32]) -> Spread:
    """The distribution of some whole numbers."""
    return Spread(
        min=int(np.min(values)),
        median=float(np.median(values)),
        p95=float(np.quantile(values, 0.95)),
        max=int(np.max(values)),
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


def _describe_rare(rare: RareIntents) -> RareFigures:
    return RareFigures(rare.policy, rare.rows, rare.note)


def _describe_leakage(leaks: list[SplitLeaks], policy: str) -> LeakageFigures:
    pairs = {}
    for pair in leaks:
        similarities = [leak.similarity for leak in pair.rows]
        same = similarities.count(1.0)
        near = len(similarities) - same

        name = f"{pair.kept}/{pair.other}"
        pairs[name] = LeakFigures(same, near, pair.rows)
    return LeakageFigures(policy, NEAR, pairs)
