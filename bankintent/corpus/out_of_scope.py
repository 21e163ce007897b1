"""Sentences that have none of the intents: labels that say so, and how these rows are divided."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bankintent.config import DataConfig
from bankintent.corpus import random_split, rare, stable_split
from bankintent.corpus.cleaning import Cleaned, Example, normalised_texts
from bankintent.corpus.label_notes import show_name
from bankintent.corpus.no_intent import means_no_intent, override_of, similar_names
from bankintent.corpus.splits import (
    EXTRA_PREFIX,
    Corpus,
    Splits,
    count_intents,
    intents,
    only_new,
    pool,
)
from bankintent.errors import DataError
from bankintent.labels import in_order
from bankintent.texts import fold, list_some

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class OutOfScopeFigures:
    """Rows that are out of scope."""

    labels: list[str]
    """Labels of the source that are no intents by `out_of_scope_labels`."""
    rows: dict[str, int]
    """Rows by split."""
    also_intents: int
    """Rows whose text, after normalisation, also stands among the rows of intents."""
    likely_labels: dict[str, int]
    """Intents whose names say that no intent fits, with their rows; none where the key is set."""


def set_apart(rows: Cleaned, config: DataConfig) -> Cleaned:
    """Move the rows of `out_of_scope_labels` from the dataset to those that are out of scope.

    Rows of extra_train that have such a label are moved too, where their texts are new. Raises
    DataError where the source has no such label, or where fewer than two intents are left.
    """
    names = tuple(map(fold, config.out_of_scope_labels))
    if not names:
        return rows

    _require_known(names, rows, config)
    dataset: Splits = {}
    out_of_scope = dict(rows.out_of_scope)
    for split, part in rows.dataset.items():
        dataset[split] = [row for row in part if row.label_text not in names]
        moved = [row for row in part if row.label_text in names]
        out_of_scope[split] = out_of_scope.get(split, []) + moved

    if len(intents(pool(dataset))) < 2:
        raise DataError(
            f"out_of_scope_labels leaves {config.dataset_name} fewer than two intents",
            "Name only labels that are no intents",
        )
    extra = _move_extra(rows, dataset, out_of_scope, names)
    return replace(
        rows,
        dataset=dataset,
        out_of_scope=_without_empty(out_of_scope),
        extra_train=extra,
        out_of_scope_labels=names,
    )


def _move_extra(
    rows: Cleaned, dataset: Splits, out_of_scope: Splits, names: tuple[str, ...]
) -> list[Example]:
    """The rows of extra_train that are of intents; the others go to `out_of_scope`."""
    moved = [row for row in rows.extra_train if row.label_text in names]
    known = [*dataset.values(), *out_of_scope.values()]

    # Where the source has parts, these are for its train.
    target = "train" if "train" in dataset else next(iter(dataset))
    for row in only_new(known, moved):
        extra = replace(row, id=f"{EXTRA_PREFIX}{row.id}")
        out_of_scope[target] = [*out_of_scope.get(target, []), extra]
    return [row for row in rows.extra_train if row.label_text not in names]


def _without_empty(parts: Splits) -> Splits:
    return {split: part for split, part in parts.items() if part}


def _require_known(names: Iterable[str], rows: Cleaned, config: DataConfig) -> None:
    """Raise DataError where one of the names is no label of the source."""
    labels = in_order(intents(pool(rows.dataset)) | intents(rows.extra_train))
    faults = []
    for name in names:
        if name not in labels:
            faults.append(_describe_unknown(name, labels))
    if faults:
        raise DataError(
            f"{config.dataset_name} lacks labels of out_of_scope_labels: {list_some(faults)}",
            "Correct out_of_scope_labels",
        )


def _describe_unknown(name: str, labels: list[str]) -> str:
    """A name in quotes with the most similar labels, or else with some of them."""
    similar = similar_names(name, labels)
    if similar:
        near = ", ".join([show_name(label) for label in similar])
        return f"{show_name(name)} (similar: {near})"
    return f"{show_name(name)} (its labels: {list_some(labels)})"


def divide_out_of_scope(rows: Cleaned, division: str, config: DataConfig) -> Splits:
    """The rows out of scope in the splits of the corpus, divided as its intents are.

    official keeps the splits of the source, and draws val out of train where the source has no
    validation split; stable and stratified pool them and draw each label's rows in the same shares;
    with cross all are in train. Labels with too few rows for that stay in train as a whole.
    """
    parts = rows.out_of_scope
    if division == "cross":
        return _without_empty({"train": pool(parts)})

    # few_shot is of each intent, and these are none.
    plain = config.model_copy(update={"few_shot": None})
    if division == "official":
        return _without_empty(_keep_official(rows, plain))
    return _without_empty(_draw(parts, division, plain))


def _keep_official(rows: Cleaned, config: DataConfig) -> Splits:
    parts = rows.out_of_scope
    own = {split: parts.get(split, []) for split in SPLITS}
    if own["train"] and not rows.dataset.get("val") and not own["val"]:
        few = _too_few(own["train"], rare.OFFICIAL_ROWS)
        own = random_split.keep_official(own, config, few)

    # Some exports divide their intents alone.
    rest = {split: part for split, part in parts.items() if split not in SPLITS}
    drawn = _draw(rest, "stable", config)
    return {split: own[split] + drawn[split] for split in SPLITS}


def _draw(parts: Splits, division: str, config: DataConfig) -> Splits:
    pooled = pool(parts)
    if not pooled:
        return {split: [] for split in SPLITS}

    few = _too_few(pooled, rare.POOLED_ROWS)
    if division == "stable":
        return stable_split.place({"all": pooled}, config, few)
    return random_split.stratify({"all": pooled}, config, few)


def _too_few(rows: list[Example], least: int) -> set[str]:
    counts = count_intents(rows)
    return {name for name, count in counts.items() if count < least}


def describe_out_of_scope(corpus: Corpus) -> OutOfScopeFigures:
    """The figures of the rows that are out of scope, and of intents that may be."""
    inside = set(normalised_texts(pool(corpus.splits)))
    texts = normalised_texts(pool(corpus.out_of_scope))
    counts = {split: len(part) for split, part in corpus.out_of_scope.items()}

    likely: dict[str, int] = {}
    if not corpus.out_of_scope_labels:
        likely = find_likely(count_intents(pool(corpus.splits)))
        # The source need not have this one: it was made of rare intents.
        likely.pop(corpus.rare.merged_into or "", None)
    return OutOfScopeFigures(
        labels=list(corpus.out_of_scope_labels),
        rows=counts,
        also_intents=sum(text in inside for text in texts),
        likely_labels=likely,
    )


def find_likely(counts: Mapping[str, int]) -> dict[str, int]:
    """Intents whose names say that no intent fits, with their rows."""
    return {name: counts[name] for name in in_order(counts) if means_no_intent(name)}


def notes(figures: OutOfScopeFigures) -> list[str]:
    """What a reader should know of them, one sentence each."""
    lines = []
    total = sum(figures.rows.values())
    if total:
        by_split = ", ".join([f"{split} {count:,}" for split, count in figures.rows.items()])
        verb = "row is" if total == 1 else "rows are"
        lines.append(f"{total:,} {verb} out of scope ({by_split}){_name_labels(figures)}.")
    if figures.also_intents:
        verb = "text also stands" if figures.also_intents == 1 else "texts also stand"
        lines.append(f"{figures.also_intents:,} out-of-scope {verb} among the rows of intents.")
    return lines + likely_notes(figures)


def likely_notes(figures: OutOfScopeFigures) -> list[str]:
    """One sentence for each intent whose name says that none fits, and the option for all."""
    lines = []
    for name, count in figures.likely_labels.items():
        lines.append(
            f"{show_name(name)} ({count:,} rows) is trained as an intent. If it means that no"
            " intent fits, name it in out_of_scope_labels: its rows are then out-of-scope"
            " examples."
        )
    if lines:
        lines.append(f"To do so: {override_of([*figures.likely_labels])}")
    return lines


def _name_labels(figures: OutOfScopeFigures) -> str:
    if not figures.labels:
        return ""
    listed = list_some([show_name(name) for name in figures.labels])
    return f", those of {listed} by out_of_scope_labels"
