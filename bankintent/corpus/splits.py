"""The rows of a corpus by their use: train, val, test, and what stands beside them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.folds import Folds
from bankintent.errors import DataError
from bankintent.labels import LabelSchema
from bankintent.texts import normalise

Splits = dict[str, list[Example]]
"""Examples by the name of their split."""

EXTRA_PREFIX = "extra/"
"""Begins the ids of rows that come from extra_train."""


@dataclass(frozen=True)
class Division:
    """How a dataset was divided."""

    name: str
    """official, stable, stratified or cross."""
    note: str
    """A sentence for people: what was done and why."""


@dataclass(frozen=True)
class RareIntents:
    """Intents with too few rows to stand in every split, and what was done with them."""

    policy: str
    """refuse, train_only, drop or merge:NAME."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of each rare intent, by name; with `refuse` there are none."""
    merged_into: str | None = None

    @property
    def train_only(self) -> set[str]:
        """The intents all of whose rows are trained on."""
        return set(self.rows) if self.policy == "train_only" else set()

    @property
    def replaced(self) -> set[str]:
        """The intents that the corpus lacks because of the policy."""
        return set(self.rows) - {self.merged_into} - self.train_only

    @property
    def note(self) -> str | None:
        """A sentence for people; None where there is nothing to say."""
        if not self.replaced:
            return None

        outcome = "dropped"
        if self.merged_into is not None:
            outcome = f'merged into "{self.merged_into}"'
        listed = name_counts({name: self.rows[name] for name in sorted(self.replaced)})
        intents = "intent was" if len(self.replaced) == 1 else "intents were"
        return f"{len(self.replaced)} rare {intents} {outcome} (rows in brackets): {listed}."


@dataclass(frozen=True)
class AppliedPatch:
    """What one file of corrected labels has done."""

    file: str
    sha256: str
    automatic: bool
    """Whether no person has looked at its rows."""
    relabelled: int
    """Rows of train and val that have another label by it."""
    dropped: int
    """Rows of train and val that are gone by it."""
    in_test: int
    """Rows of test that it names, which are left alone."""
    unmatched: int
    """Its entries that no row has the text and the label of."""


@dataclass(frozen=True)
class Corpus:
    """The rows of a dataset by their use."""

    splits: Splits
    """train, val and test; train alone where the data is judged by cross-validation."""
    out_of_scope: Splits
    """Sentences that have none of the intents, by split."""
    unlabelled: list[Example] | None
    """Sentences without labels, for pseudo-labels; None where the config names none."""
    division: Division
    rare: RareIntents
    folds: Folds | None = None
    """Of the rows of train, where the data is judged by cross-validation."""
    out_of_scope_labels: tuple[str, ...] = ()
    """Labels of the source that are no intents."""
    patches: list[AppliedPatch] = field(default_factory=list)
    """Corrections of labels that were applied, in order."""

    @property
    def not_judged(self) -> dict[str, int]:
        """Intents that no fold holds out, with their rows; none where there are no folds."""
        if self.folds is None:
            return {}

        train = self.splits["train"]
        judged = set()
        for row, is_judged in zip(train, self.folds.judged, strict=True):
            if is_judged:
                judged.add(row.label_text)
        counts = count_intents(train)
        return {name: count for name, count in counts.items() if name not in judged}

    def label_schema(self, order: tuple[str, ...] | None) -> LabelSchema:
        """The labels in the source's own order where it has one, otherwise in that of names."""
        names = intents(pool(self.splits))
        return order_labels(names, order, self.rare, self.out_of_scope_labels)


def order_labels(
    found: set[str], order: tuple[str, ...] | None, rare: RareIntents, gone: Iterable[str] = ()
) -> LabelSchema:
    """The labels of a source in its own order where it has one, otherwise in that of names.

    `gone` are those of its order that are no intents.
    """
    if not order:
        return LabelSchema.from_names(found)

    left_out = rare.replaced.union(gone)
    names = [name for name in order if name not in left_out]
    if rare.merged_into is not None and rare.merged_into not in names:
        names.append(rare.merged_into)
    return LabelSchema(tuple(names))


def pool(parts: Splits) -> list[Example]:
    """The examples of all parts, one part after the other."""
    examples: list[Example] = []
    for part in parts.values():
        examples += part
    return examples


def intents(rows: Iterable[Example]) -> set[str]:
    """The label names of some rows."""
    return {row.label_text for row in rows}


def count_intents(rows: Iterable[Example]) -> dict[str, int]:
    """Rows of each intent, in alphabetical order."""
    counts = Counter(row.label_text for row in rows)
    return dict(sorted(counts.items()))


def name_counts(counts: dict[str, int]) -> str:
    """Intents with their rows as words, for example `"a" (2), "b" (1)`."""
    return ", ".join([f'"{name}" ({count})' for name, count in counts.items()])


def group_by_intent(examples: list[Example]) -> dict[str, list[int]]:
    """Indices of the examples of each intent, intents in alphabetical order."""
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.label_text, []).append(index)
    return dict(sorted(groups.items()))


def extend_train(splits: Splits, extra: list[Example]) -> Splits:
    """Add `extra` to train, without the texts that are in a split already.

    Raises DataError where an extra row has an intent that the dataset does not have.
    """
    known = intents(pool(splits))
    unknown = count_intents([row for row in extra if row.label_text not in known])
    if unknown:
        raise DataError(
            f"extra_train has {len(unknown)} intent(s) that the dataset does not have: "
            f"{name_counts(unknown)}",
            "Rename or remove their rows",
        )

    train = list(splits["train"])
    for row in only_new(splits.values(), extra):
        train.append(replace(row, id=f"{EXTRA_PREFIX}{row.id}"))
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


def require_usable_splits(splits: Splits) -> None:
    """Raise DataError where a split is empty, or intents are evaluated on but never trained."""
    require_usable_counts({name: count_intents(rows) for name, rows in splits.items()})


def require_usable_counts(splits: Mapping[str, Mapping[str, int]]) -> None:
    """The same by the rows of each intent in each split."""
    # Dropping leaking rows may leave a split without any.
    for name, counts in splits.items():
        if not counts:
            raise DataError(f"the {name} split is empty", "Add rows, or change split and leakage")

    evaluated: Counter[str] = Counter()
    for held_out in ("val", "test"):
        evaluated.update(splits.get(held_out, {}))
    trained = splits["train"]
    untrained = {name: count for name, count in sorted(evaluated.items()) if name not in trained}
    if untrained:
        raise DataError(
            f"{len(untrained)} intent(s) stand in val or test but have no rows left in train: "
            f"{name_counts(untrained)}",
            "Add training rows of them, or set leakage: report",
        )
