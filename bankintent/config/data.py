"""data.yaml."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bankintent.config.base import Fraction, Name, Section


class DataConfig(Section):
    """data.yaml: from a source of labelled sentences to Parquet splits."""

    dataset_name: Name
    """A Hub name (`banking77` is pinned), a CSV, TSV, JSONL, JSON or Parquet file, a folder with train and test
    files, or `bundled`."""
    revision: str | None = None
    """Hub revision (commit, tag or branch); `banking77` brings its own."""
    subset: str | None = None
    """Hub configuration name, for datasets that have several."""
    text_column: str | None = None
    """Column that holds the sentence; found by name (text, sentence, utterance, query) when not given."""
    label_column: str | None = None
    """Column that holds the intent; found by name (label_text, label, category, intent) when not given."""
    split: Literal["stratified", "official"] = "stratified"
    """stratified: all rows pooled and split anew. official: the source's own test split kept whole, validation
    taken from the source's own or, where it has none, stratified out of train."""
    test_split: Fraction = 0.10
    """Share of each intent that goes to test (stratified only)."""
    val_split: Fraction = 0.10
    """Share of each intent that goes to validation (of all rows when stratified, of train when official)."""
    few_shot: Annotated[int, Field(ge=1)] | None = None
    """Keep only this many training sentences for each intent, drawn with `seed`."""
    extra_train: Name | None = None
    """A second source of the same intents whose sentences go to train alone, for example sentences written for the
    purpose; those that stand in the dataset already are left out. Named like `dataset_name`."""
    unlabelled: Path | None = None
    """A table of sentences without labels, for `pseudo_labels` in train.yaml. Those that stand in the dataset already, or
    nearly word for word in val or test, are left out. Its column of sentences is its only one, or found like `text_column`."""
    seed: int = 6
    """Seed of the split and of the few-shot draw."""
    leakage: Literal["report", "drop", "fail"] = "report"
    """Rows that stand, near enough word for word, in two splits: report them, drop them from the split that is not
    evaluated on, or fail."""
    bad_rows: Literal["drop", "fail"] = "drop"
    """Rows that are empty, undecodable or over-long: drop and list them, or fail."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest text, in characters, that counts as a sentence rather than a broken row."""
    output_dir: Path = Path("data/processed")
    """Folder to write; replaced as a whole."""

    @model_validator(mode="after")
    def _shares_leave_train(self) -> Self:
        if self.split == "stratified" and self.test_split + self.val_split >= 1:
            raise ValueError(
                f"test_split + val_split is {self.test_split + self.val_split:g}, which leaves no train"
            )
        return self
