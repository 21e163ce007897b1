"""What a policy is fitted on: the model's logits and features of several kinds of texts."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Texts as the model sees them."""

    logits: NDArray[np.float32]
    """(texts, labels)"""
    features: NDArray[np.float32] | None
    """(texts, width); None where they are not at hand."""

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True)
class LabelledRows(Rows):
    """The same with their intents."""

    labels: NDArray[np.int64]
    """(texts,) ids"""

    @property
    def answers(self) -> NDArray[np.intp]:
        """(texts,) ids of the intents with the highest logits."""
        return self.logits.argmax(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(texts,) whether the answer is the label."""
        return self.answers == self.labels

    def take(self, chosen: NDArray[np.bool_]) -> "LabelledRows":
        """Some of the rows."""
        features = None if self.features is None else self.features[chosen]
        return LabelledRows(self.logits[chosen], features, self.labels[chosen])


@dataclass(frozen=True)
class Vectors:
    """The features of training rows, with their intents."""

    features: NDArray[np.float32]
    """(rows, width)"""
    labels: NDArray[np.int64]
    """(rows,) ids"""


@dataclass(frozen=True)
class NearResult:
    """How well a score tells rows of intents that a model was not told of."""

    auroc: float
    """Mean area under the ROC curve."""
    share: float
    """Share of rows in scope to keep: its mean with the share of refused rows is the highest."""


@dataclass(frozen=True)
class Material:
    """Everything that a policy is fitted on. No test row is among it."""

    validation: LabelledRows
    """Rows that the model was not trained on."""
    outside: dict[str, Rows] = field(default_factory=dict)
    """Kind of out-of-scope sentences (`named`, `general`) -> their rows."""
    train: Vectors | None = None
    """None where there are no features."""
    near: dict[str, NearResult] | None = None
    """Score -> its result on held-out intents, where it was found with an encoder that had not
    learned them; None to find it with the model's own features."""
    about: dict[str, str | int] = field(default_factory=dict)
    """Where the rows are from, for the record."""
