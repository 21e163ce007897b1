"""What a policy means on rows that it was not fitted on: the realised beside the promised."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bankintent.decision.deciding import count_reasons, decide
from bankintent.decision.policy import PolicyRecord
from bankintent.decision.wording import REASONS, describe_target
from bankintent.inference.predicted import Predicted
from bankintent.measures import calibration
from bankintent.measures.arrays import Bools
from bankintent.measures.calibration import CalibrationError
from bankintent.measures.metrics import Bootstrap
from bankintent.measures.proportions import clopper_pearson
from bankintent.measures.shares import in_percent


@dataclass(frozen=True)
class PolicyOnRows:
    """A policy on labelled rows."""

    version: str
    target: str
    """What was asked for, in words."""
    promised: dict[str, Any]
    """Coverage and precision on the validation rows that it was fitted on."""
    answered: int
    right: int
    coverage: float
    coverage_interval: list[float]
    precision: float | None
    """Share of right ones among the answers; None where nothing is answered."""
    precision_interval: list[float]
    """95 %, as Clopper and Pearson (1934) have it."""
    refused: dict[str, int]
    """Reason -> rows."""
    refused_right: int
    """Rows that are refused although the best intent is right."""
    kept: bool | None
    """Whether the interval reaches what was asked for; None where the target is a cost, or could
    not be promised."""
    uncalibrated: CalibrationError
    """Of the plain softmax, in bins of equal mass."""


def measure_policy(predicted: Predicted, right: Bools, bootstrap: Bootstrap) -> PolicyOnRows | None:
    """The figures of the policy on rows whose answers are `right`; None without a policy.

    Of rows that have several answers each one counts.
    """
    policy = predicted.policy
    if policy is None:
        return None

    decisions = predicted.decisions
    answered = decisions.answered
    rows = len(decisions)
    count = int(answered.sum())
    hits = int(right[answered].sum())
    coverage_interval = clopper_pearson(count, rows).ends()
    precision_interval = clopper_pearson(hits, count).ends()

    plain = decide(predicted.logits, None, None)
    promise = policy.record.promise
    return PolicyOnRows(
        version=policy.version,
        target=describe_target(policy.record),
        promised={key: promise.get(key) for key in ("coverage", "precision", "precision_at_least")},
        answered=count,
        right=hits,
        coverage=count / rows,
        coverage_interval=coverage_interval,
        precision=hits / count if count else None,
        precision_interval=precision_interval,
        refused={str(reason): n for reason, n in count_reasons(decisions).items()},
        refused_right=int(np.sum(right & ~answered)),
        kept=_is_kept(policy.record, coverage_interval, precision_interval),
        uncalibrated=calibration.calibration_error(
            plain.scores, right, bootstrap.seed, repeats=bootstrap.repeats
        ),
    )


def _is_kept(
    record: PolicyRecord, coverage_interval: list[float], precision_interval: list[float]
) -> bool | None:
    if record.thresholds is None:
        return None
    if "precision" in record.target:
        return bool(precision_interval[1] >= record.target["precision"])
    if "coverage" in record.target:
        return bool(coverage_interval[1] >= record.target["coverage"])
    return None


def describe_policy(measured: PolicyOnRows) -> list[str]:
    """Lines for the terminal and the report."""
    rows = measured.answered + sum(measured.refused.values())
    lines = [f"Policy {measured.version}: {measured.target}{_verdict(measured)}"]

    answered = f"answered: {in_percent(measured.coverage)} of the rows"
    if measured.precision is not None:
        low, high = measured.precision_interval
        answered += (
            f", {in_percent(measured.precision)} of them right"
            f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        )
    lines.append(f"- {answered}")

    promised = measured.promised
    # A record that was made elsewhere may lack some of it.
    if None not in promised.values():
        lines.append(
            "- promised on the rows that it was fitted on:"
            f" {in_percent(promised['coverage'])} answered,"
            f" {in_percent(promised['precision'])} of them right, at least"
            f" {in_percent(promised['precision_at_least'])}"
        )

    parts = []
    for reason, name in REASONS.items():
        parts.append(f"{in_percent(measured.refused[reason] / rows)} {name}")
    lines.append(f"- refused: {', '.join(parts)}")
    before = measured.uncalibrated
    lines.append(
        f"- calibration error without it: {before.ece:.4f} in bins of equal size"
        f" (noise floor {before.noise_floor:.4f})"
    )
    return lines


def _verdict(measured: PolicyOnRows) -> str:
    if measured.kept is None:
        return ""
    return ": kept" if measured.kept else ": MISSED on these rows"


NO_POLICY = "No policy: every row is answered, and scores are not calibrated."
"""Said of a model whose bundle has no policy."""
