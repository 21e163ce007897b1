"""audit.yaml: which labels of a dataset are likely to be wrong."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bankintent.config.base import Name, Regime, Section, Slug
from bankintent.config.places import OutputPath

AUDITS = Path("artifacts/audits")
"""Where the folders of audits stand by default."""

CONFIDENCE = 0.9
"""Least probability, out of fold, of a suggestion that is taken without a person."""

AGREEMENT = 0.8
"""Least share of the nearest sentences that have the suggested intent, likewise."""

Filter = Literal[
    "either",
    "both",
    "prune_by_noise_rate",
    "prune_by_class",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
]
"""Rules of cleanlab by which a label is suspected."""

OF_TRAIN_CONFIG = ("model_name", "revision", "pooling", "prefix", "max_length", "cache_dir")
"""Keys that a train.yaml has too."""


class AuditConfig(Section):
    """audit.yaml: one audit of the labels of train and val. Test rows are never changed, and never
    looked at without `test: true`."""

    name: Slug = "audit"
    """Name of the audit, and of its folder."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    output_dir: OutputPath | None = None
    """Folder to write; by default `artifacts/audits/<name>`."""
    train_config: Path | None = None
    """A train.yaml: each fold is trained with it. Without one, a logistic regression and a vote of
    the nearest sentences answer from the vectors of the frozen encoder, which takes seconds."""
    regime: Regime | None = None
    """The regime of `train_config`, where the file has none."""
    model_name: Name = "bundled/all-MiniLM-L6-v2"
    """Encoder of the vectors: a Hub name, a folder, or `bundled/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Hub revision of the encoder."""
    pooling: Literal["first", "mean"] = "mean"
    """The vector of a sentence. first: that of its first token; mean: the mean over its tokens."""
    prefix: str | None = None
    """Text before every sentence, such as `"query: "` for E5 encoders."""
    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest input in tokens; longer texts are truncated."""
    cache_dir: Path = Path("artifacts/cache")
    """Folder for vectors, which later audits and trainings read; it can be removed."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Sentences in one forward pass; does not change the result."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts that are held out in turn: each row is judged by a model that has not seen it."""
    seed: int = 6
    """Seed of the folds."""
    filter: Filter = "either"
    """Which labels are suspected: a rule of cleanlab. either: what `prune_by_noise_rate`
    or `prune_by_class` suspects; both: what the two agree on, which is fewer rows and surer."""
    neighbours: Annotated[int, Field(ge=1, le=20)] = 5
    """Nearest sentences that are shown beside a suspected row."""
    pairs: Annotated[int, Field(ge=0)] = 10
    """Pairs of intents that are listed as the most confusable."""
    test: bool = False
    """true also writes `suspected_test.json`: the test rows whose label is suspected by a model
    that was trained on train alone. They stay as they are, and `eval --without` gives a second
    figure without them."""
    reviewed: list[Path] = []
    """Patches of earlier audits: rows that a person decided to keep are not listed again."""

    @model_validator(mode="after")
    def _one_source_of_answers(self) -> Self:
        if self.train_config is None:
            if self.regime not in (None, "head-only"):
                raise ValueError(
                    f"regime: {self.regime} trains an encoder; name a train_config to train with"
                )
            return self

        for key in OF_TRAIN_CONFIG:
            if key in self.model_fields_set:
                raise ValueError(f"{key} is that of train_config here; remove it")
        return self

    @property
    def folder(self) -> Path:
        """The folder to write."""
        return self.output_dir or AUDITS / self.name
