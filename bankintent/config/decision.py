"""`decision:` when a model answers, and when it says that it does not know."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bankintent.config.base import Fraction, Section

ScopeScore = Literal[
    "auto",
    "max_softmax",
    "max_logit",
    "energy",
    "nearest",
    "max_logit+nearest",
    "mahalanobis",
    "relative_mahalanobis",
    "mahalanobis_normalised",
    "relative_mahalanobis_normalised",
]
"""A score of how much a text looks like the model's intents."""


class TargetSection(Section):
    """`target:` what to promise: a precision, a coverage, or the costs to keep low."""

    precision: Fraction | None = None
    """Least share of right ones among the answers, such as 0.98; as many texts as possible are
    answered."""
    coverage: Fraction | None = None
    """Least share of texts in scope that are answered, such as 0.9."""
    wrong: Annotated[float, Field(gt=0)] | None = None
    """Cost of a wrong answer; with `handover`."""
    handover: Annotated[float, Field(gt=0)] | None = None
    """Cost of a text that is not answered, in the same unit as `wrong`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        costs = (self.wrong, self.handover)
        if (self.wrong is None) != (self.handover is None):
            raise ValueError("costs need both wrong and handover")

        kinds = [self.precision, self.coverage, costs if self.wrong is not None else None]
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError(
                "name one of precision: 0.98, coverage: 0.9, or both wrong: 10 and handover: 1"
            )
        return self


class DecisionSection(Section):
    """`decision:` how the policy of a model is fitted, from validation rows."""

    target: TargetSection = TargetSection(precision=0.9)
    """Such as `{precision: 0.98}`, `{coverage: 0.9}` or `{wrong: 10, handover: 1}`."""
    confidence: Fraction = 0.95
    """Confidence of the promise: a threshold is taken only where the lower bound of what it
    promises, at this confidence, is at least the target."""
    out_of_scope: ScopeScore | None = "auto"
    """The score that tells texts of no intent; each is in docs/explanation/decisions.md. auto: the
    best on validation rows against sentences that are out of scope; null: nothing is refused as out
    of scope."""
    keep_in_scope: Annotated[float, Field(gt=0.5, lt=1)] | Literal["balanced"] = 0.97
    """Share of validation rows that must not be refused as out of scope. balanced: the threshold
    with the best mean of that share and the share of out-of-scope sentences that are refused."""
    general: bool = True
    """Whether the general sentences shipped with this project count as out of scope. false where
    small talk and everyday requests are intents of yours."""
    prototypes: Annotated[int, Field(ge=1, le=64)] = 16
    """Typical vectors of each intent, to which a text is compared; less where it has few rows."""


class TrainDecisionSection(DecisionSection):
    """`decision:` how the policy is fitted: on validation rows, or on rows that are made for it."""

    cross_fit: Literal["auto", "never"] = "auto"
    """Where validation rows are too few to fit a policy. auto: five further trainings on parts of
    the training rows answer the rest of them, and the policy is fitted on these answers and those
    to the validation rows. With so few rows that takes seconds for head-only, and five times the
    training for lora and full-ft. never: the model has no policy then."""


class PolicyConfig(DecisionSection):
    """policy.yaml: a new policy for a bundle that is there; nothing is trained."""

    model_dir: Path
    """The bundle."""
    data_dir: Path | None = None
    """ETL's output with the validation rows; by default the data recorded with the model."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass."""
