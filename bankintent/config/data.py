"""data.yaml."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from bankintent.config.base import Fraction, LabelledTableKeys, Name, no_repeats
from bankintent.config.places import OutputPath

MERGE = "merge:"
"""Begins the policy for rare intents that names another intent."""

OWN_COLUMNS = ("id", "text", "label", "label_text")
"""Columns of every Parquet file of labelled rows, whose names no kept column can have."""


def _rare_policy(value: str) -> str:
    is_merge = value.startswith(MERGE) and value.removeprefix(MERGE).strip()
    if value not in ("refuse", "train_only", "drop") and not is_merge:
        raise ValueError(f"expected refuse, train_only, drop or merge:NAME, found '{value}'")
    return value


RarePolicy = Annotated[
    str,
    AfterValidator(_rare_policy),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["refuse", "train_only", "drop"]},
                {"type": ["string"], "pattern": rf"^{MERGE}\s*\S"},
            ]
        }
    ),
]
"""What to do with rare intents. Its JSON Schema names the words, which editors offer."""


def find_own_column(names: Iterable[str]) -> str | None:
    """The first of the names that is one of OWN_COLUMNS, in upper or lower case; else None."""
    for name in names:
        if name.strip().lower() in OWN_COLUMNS:
            return name
    return None


def _kept_columns(names: list[str]) -> list[str]:
    own = find_own_column(names)
    if own is not None:
        listed = ", ".join(OWN_COLUMNS)
        raise ValueError(f"{own} is a name of ETL's own columns ({listed}); rename that column")
    return no_repeats(names)


class DataConfig(LabelledTableKeys):
    """data.yaml: from a source of labelled sentences to Parquet splits."""

    dataset_name: Name
    """A Hub name (`banking77` is pinned), a table (CSV, TSV, JSON lines, JSON, .xlsx or Parquet), a
    folder with train and test files, an export of another tool such as Rasa, LUIS, CLU, Dialogflow,
    Watson or Label Studio (a file, a folder or a zip; docs/reference/formats.md), or `bundled`."""
    revision: str | None = None
    """Hub revision (commit, tag or branch); `banking77` brings its own."""
    subset: str | None = None
    """Hub configuration name, for datasets that have several."""
    retrieval: Literal["whole", "base"] = "whole"
    """Intents of a Rasa export with a slash, such as `faq/ask_price`. whole: each is an intent of
    its own; base: they are all the intent before the slash."""
    language: Name | None = None
    """Which language to read of an export that has several. `en` is also en-us and en-GB where no
    sentence is marked `en`; a form with a region is itself alone; `none`: what names no language.
    """
    split: Literal["official", "stable", "stratified", "cross"] | None = None
    """official: the source's test split is kept whole, and so is its validation split; without one,
    validation is a share of train, drawn at random. stable: all rows are pooled, and a row's place
    follows from its text and `seed`, each intent in the same shares, so that other rows stay where
    they are when some are added, corrected or moved. stratified: all rows are pooled and drawn at
    random, each intent in the same shares. cross: nothing is held out; all rows are trained on, and
    the model is judged by cross-validation, for data that is too small for a test split. Default:
    official where the source has a test split and `test_split` is not given; else cross below 1,000
    sentences, and stable from there on."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts that cross-validation holds out in turn; for split: cross alone."""
    repeats: Annotated[int, Field(ge=1, le=20)] = 1
    """How often the rows are divided into folds anew; every one costs `folds` trainings."""
    test_split: Fraction = 0.10
    """Share of each intent's rows for test (not for official)."""
    val_split: Fraction = 0.10
    """Share of each intent's rows for validation: of all rows, or of train when official."""
    rare: RarePolicy = "refuse"
    """Intents with too few rows to stand in every split, or without training rows. refuse: an error
    that lists them; train_only: they are trained on and not evaluated; drop: their rows are left
    out; merge:NAME: they become the intent NAME."""
    out_of_scope_labels: Annotated[list[Name], AfterValidator(no_repeats)] = []
    """Labels of the source that are no intents, such as `oos` or `other`: their rows are examples
    of what is out of scope. They are written to `out_of_scope.parquet`, and nothing is trained on
    them as an intent."""
    keep_columns: Annotated[list[Name], AfterValidator(_kept_columns)] = []
    """More columns of the source, such as channel or language, to keep beside each row as strings.
    They must stand in every split. Rows of extra_train have none of them."""
    few_shot: Annotated[int, Field(ge=1)] | None = None
    """Keep only this many training sentences of each intent, drawn with `seed`."""
    extra_train: Name | None = None
    """A second source of sentences for train, with the same intents; named like `dataset_name`.
    Sentences that are already in the dataset are left out."""
    unlabelled: Path | None = None
    """A table of sentences without labels, for `pseudo_labels` in train.yaml. Sentences that are
    already in the dataset, or nearly word for word in val or test, are left out. The column of
    sentences is the only one, or found like `text_column`."""
    seed: int = 6
    """Seed of the split and of the few-shot draw."""
    leakage: Literal["report", "drop", "fail"] = "report"
    """Rows that are nearly word for word in two splits. report: they are listed; drop: they are
    left out of the split that is not evaluated on; fail: one is an error."""
    bad_rows: Literal["few", "drop", "fail"] = "few"
    """Rows that are empty, undecodable or over-long. few: they are left out and listed, and more
    than 5 % of them is an error; drop: left out, however many; fail: one is an error."""
    patch: Path | list[Path] | None = None
    """Corrections of labels, as `python -m bankintent audit apply` writes them: a file, or several
    in the order in which they were made. Rows of test are left alone."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest sentence in characters; a row with a longer text is a bad row."""
    engine: Literal["auto", "memory", "duckdb"] = "auto"
    """Where the rows are while they are worked on. memory: in memory, nearly the same sentences
    found exactly; duckdb: on disk, for tables and Hub datasets of millions of rows, nearly the same
    sentences found by MinHash (docs/how-to/large-data.md). auto: duckdb for tables of 8 MiB and
    more where every key allows it, else memory."""
    output_dir: OutputPath = Path("data/processed")
    """Folder to write; an earlier one is replaced as a whole."""

    @model_validator(mode="after")
    def _shares_leave_train(self) -> Self:
        evaluated = self.test_split + self.val_split
        if self.split != "official" and evaluated >= 1:
            raise ValueError(f"test_split + val_split is {evaluated:g}, which leaves no train")
        return self

    @property
    def asks_for_test_split(self) -> bool:
        """Whether test_split is given: then the source's own test split is not the one to keep."""
        return "test_split" in self.model_fields_set

    @property
    def asks_for_shares(self) -> bool:
        """Whether a share of the rows is asked for, of test or of validation."""
        return bool({"test_split", "val_split"} & self.model_fields_set)

    @property
    def merge_into(self) -> str:
        """The NAME of `rare: merge:NAME`; empty with another policy."""
        return self.rare.removeprefix(MERGE).strip() if self.rare.startswith(MERGE) else ""
