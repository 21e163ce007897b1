"""data.yaml."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bankintent.config.base import Fraction, Name, Section


class DataConfig(Section):
    """data.yaml: from a source of labelled sentences to Parquet splits."""

    dataset_name: Name
    """A Hub name (`banking77` is pinned), a CSV, TSV, JSONL, JSON or Parquet file, a folder with
    train and test files, or `bundled`."""
    revision: str | None = None
    """Hub revision (commit, tag or branch); `banking77` brings its own."""
    subset: str | None = None
    """Hub configuration name, for datasets that have several."""
    text_column: str | None = None
    """Column that holds the sentence; found by name (text, sentence, utterance, query, message)
    when not given."""
    label_column: str | None = None
    """Column that holds the intent; found by name (label_text, label, category, intent, class)
    when not given."""
    split: Literal["stratified", "official"] = "stratified"
    """stratified: all rows are pooled and split at random, each intent in the same shares.
    official: the source's test split is kept whole, and so is its validation split; without one,
    validation is a stratified share of train."""
    test_split: Fraction = 0.10
    """Share of each intent's rows for test (stratified only)."""
    val_split: Fraction = 0.10
    """Share of each intent's rows for validation: of all rows when stratified, of train when
    official."""
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
    """Rows that are nearly word for word in two splits: report them, drop them from the split that
    is not evaluated on, or fail."""
    bad_rows: Literal["drop", "fail"] = "drop"
    """Rows that are empty, undecodable or over-long: drop and list them, or fail."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest sentence in characters; a row with a longer text is a bad row."""
    output_dir: Path = Path("data/processed")
    """Folder to write; an earlier one is replaced as a whole."""

    @model_validator(mode="after")
    def _shares_leave_train(self) -> Self:
        evaluated = self.test_split + self.val_split
        if self.split == "stratified" and evaluated >= 1:
            raise ValueError(f"test_split + val_split is {evaluated:g}, which leaves no train")
        return self
