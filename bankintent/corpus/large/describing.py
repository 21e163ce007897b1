"""The data report of a spool: the same figures as `figures.describe_data`, with bounded lists."""

import itertools
from collections import Counter
from dataclasses import dataclass

import duckdb
import numpy as np

from bankintent.config import DataConfig
from bankintent.corpus import language
from bankintent.corpus.figures import (
    DataReport,
    LeakageFigures,
    RareFigures,
    RefusedFigures,
    SplitFigures,
    TwoLabels,
    spread,
)
from bankintent.corpus.label_notes import alike_names
from bankintent.corpus.large.dividing import Numbers, Places
from bankintent.corpus.large.leaking import LISTED, Leaks
from bankintent.corpus.large.reading import Stream
from bankintent.corpus.large.spool import Spool, fetch
from bankintent.corpus.near import NEAR
from bankintent.corpus.out_of_scope import OutOfScopeFigures, find_likely
from bankintent.corpus.refusals import count_reasons
from bankintent.corpus.splits import Division, RareIntents
from bankintent.labels import in_order

IDS_OF_TEXT = 1000
"""Rows of one text with two labels that are listed."""


@dataclass(frozen=True)
class Divided:
    """The rows of a spool by split, and how they came there."""

    spool: Spool
    places: Places
    division: Division
    rare: RareIntents
    leaks: Leaks


def describe(
    divided: Divided, stream: Stream, config: DataConfig, database: duckdb.DuckDBPyConnection
) -> DataReport:
    """The data report of the divided rows."""
    spool = divided.spool
    everything = np.concatenate(list(divided.places.values()))
    counts = Counter(spool.count_labels(everything))
    rare = divided.rare
    two_labels, unlisted = _find_two_labels(spool, everything, database)

    splits = {}
    for name, rows in divided.places.items():
        splits[name] = _describe_split(spool, rows)

    left_out = {"two_labels": unlisted, "leakage": divided.leaks.unlisted}
    return DataReport(
        source=stream.identity(),
        reading=spool.reading,
        unread=stream.unread,
        left={},
        source_notes=[],
        languages=_find_languages(spool, everything, database),
        split=divided.division.name,
        split_note=divided.division.note,
        rare=RareFigures(rare.policy, rare.rows, rare.note),
        not_judged={},
        few_shot=None,
        extra_train=0,
        unlabelled=None,
        intents=len(counts),
        splits=splits,
        refused=RefusedFigures(
            config.bad_rows, len(spool.refused), count_reasons(spool.refused), spool.refused
        ),
        leakage=LeakageFigures(config.leakage, NEAR, divided.leaks.pairs),
        two_labels=two_labels,
        alike_labels=alike_names(counts),
        out_of_scope=_describe_out_of_scope(counts, rare),
        columns={},
        patches=[],
        unlisted={name: count for name, count in left_out.items() if count},
    )


def _describe_out_of_scope(counts: Counter[str], rare: RareIntents) -> OutOfScopeFigures:
    likely = find_likely(counts)
    likely.pop(rare.merged_into or "", None)
    return OutOfScopeFigures(labels=[], rows={}, also_intents=0, likely_labels=likely)


def _describe_split(spool: Spool, rows: Numbers) -> SplitFigures:
    counts = spool.count_labels(rows)
    per_intent = {}
    for label in in_order(counts):
        per_intent[label] = counts[label]

    texts = np.zeros(spool.texts, dtype=np.bool_)
    texts[spool.text[rows]] = True
    return SplitFigures(
        rows=len(rows),
        intents=len(counts),
        rows_per_intent=spread(list(counts.values())),
        words=spread(spool.words[rows]),
        characters=spread(spool.characters[rows]),
        duplicates=len(rows) - int(texts.sum()),
        two_labels=len(_texts_with_two(spool, rows)),
        per_intent=per_intent,
    )


def _texts_with_two(spool: Spool, rows: Numbers) -> Numbers:
    """The texts that carry more than one label in these rows."""
    width = len(spool.names)
    different = np.unique(spool.text[rows].astype(np.int64) * width + spool.label[rows])
    texts, labels = np.unique(different // width, return_counts=True)
    return np.asarray(texts[labels > 1])


def _find_two_labels(
    spool: Spool, rows: Numbers, database: duckdb.DuckDBPyConnection
) -> tuple[list[TwoLabels], int]:
    """(the first LISTED texts with two labels, how many more there are)."""
    carrying = np.zeros(spool.texts, dtype=np.bool_)
    carrying[_texts_with_two(spool, rows)] = True
    chosen = rows[carrying[spool.text[rows]]]

    texts, first = np.unique(spool.text[chosen], return_index=True)
    listed = texts[np.argsort(first)][:LISTED]
    carrying[:] = False
    carrying[listed] = True
    chosen = chosen[carrying[spool.text[chosen]]]

    rows_of_text: dict[int, list[int]] = {}
    for row, text in zip(chosen.tolist(), spool.text[chosen].tolist(), strict=True):
        rows_of_text.setdefault(text, []).append(row)

    shown = [group[:IDS_OF_TEXT] for group in rows_of_text.values()]
    flat = np.array(list(itertools.chain.from_iterable(shown)), dtype=np.int64)
    ids = iter(fetch(database, "id", flat))
    entries = []
    for group, some in zip(rows_of_text.values(), shown, strict=True):
        labels = sorted({spool.names[spool.label[row]] for row in group})
        entries.append(TwoLabels([next(ids) for _ in some], labels))
    return entries, len(texts) - len(listed)


def _find_languages(
    spool: Spool, rows: Numbers, database: duckdb.DuckDBPyConnection
) -> dict[str, float]:
    chosen = language.sample(rows)
    return language.detect(fetch(database, "text", chosen)).shares
