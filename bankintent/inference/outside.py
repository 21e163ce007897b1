"""How a model tells the rows of its intents from sentences that have none, and what it refuses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.deciding import Reason, count_reasons
from bankintent.decision.scope_scores import gather, weighted_sum
from bankintent.inference.labelled import LabelledRows
from bankintent.inference.predicted import Predicted
from bankintent.measures.metrics import Bootstrap
from bankintent.measures.out_of_scope import OutOfScopeFigures, measure_out_of_scope
from bankintent.measures.shares import in_percent

PLAIN_SCORE = {"max_softmax": 1.0}
"""What texts are told by where a model has no rule for it (Hendrycks and Gimpel, 2017)."""


@dataclass(frozen=True)
class ScopeOnRows:
    """Out-of-scope sentences of the data's split beside its labelled rows."""

    score: str
    """By which they are told apart: that of the policy, or the largest softmax probability."""
    figures: OutOfScopeFigures
    refused_out_of_scope: float
    """Share of the out-of-scope sentences that are refused as such."""
    not_answered: float
    """Share of them that are not answered, for any reason."""


def find_texts(source: LabelledRows) -> list[str]:
    """The out-of-scope sentences of the evaluated split; none of a table, or of held-out rows."""
    if source.dataset is None or source.folds is not None:
        return []
    return source.dataset.read_out_of_scope().get(source.split, [])


def measure_scope(
    inside: Predicted, outside: Predicted | None, bootstrap: Bootstrap
) -> ScopeOnRows | None:
    """The figures of the answers to both kinds of texts; None where nothing is out of scope."""
    if outside is None:
        return None

    weights = PLAIN_SCORE
    rule = None if inside.policy is None else inside.policy.record.out_of_scope
    if rule is not None:
        weights = rule.weights

    decisions = outside.decisions
    refused = count_reasons(decisions)[Reason.OUT_OF_SCOPE]
    return ScopeOnRows(
        score="+".join(weights),
        figures=measure_out_of_scope(
            _scores(inside, weights), _scores(outside, weights), bootstrap
        ),
        refused_out_of_scope=refused / len(decisions),
        not_answered=float(np.mean(~decisions.answered)),
    )


def _scores(predicted: Predicted, weights: dict[str, float]) -> NDArray[np.float64]:
    geometry = None if predicted.policy is None else predicted.policy.geometry
    evidence = gather(predicted.logits, predicted.features, geometry)
    return weighted_sum(evidence, weights)


def describe_scope_on_rows(scope: ScopeOnRows) -> str:
    """A line for the terminal and the report."""
    figures = scope.figures
    low, high = figures.auroc.interval
    return (
        f"- of {figures.out_of_scope:,} out-of-scope sentences"
        f" {in_percent(scope.not_answered)} are not answered,"
        f" {in_percent(scope.refused_out_of_scope)} as out of scope; AUROC of {scope.score}"
        f" {figures.auroc.value:.4f} (95 % interval {low:.4f} to {high:.4f}),"
        f" FPR at 95 % TPR {in_percent(figures.fpr_at_95_tpr.value)}"
    )
