"""What a policy does, in plain words, for a terminal, a card or a report."""

from bankintent.decision.deciding import Reason
from bankintent.decision.policy import PolicyRecord
from bankintent.measures.shares import in_percent

REASONS = {
    Reason.OUT_OF_SCOPE: "out of scope",
    Reason.BELOW_THRESHOLD: "below the threshold",
    Reason.CLOSE_CALL: "a close call of two intents",
}
"""Reason of a refusal -> its name in a sentence."""

KINDS = {"near": "intents held out", "general": "everyday sentences", "named": "named in the data"}
"""Kind of out-of-scope rows -> its name."""


CROSS_FITTED = "cross_fitted_rows"
"""In what a policy was fitted on: how many of its rows are training rows, answered out of fold."""


def describe_target(record: PolicyRecord) -> str:
    """What was asked for: `precision of at least 98 %, with 90 % confidence`.

    A record that was made elsewhere may lack it.
    """
    target = record.target
    confidence = ""
    if "confidence" in target:
        confidence = f", with {100 * target['confidence']:g} % confidence"

    if "precision" in target:
        return f"precision of at least {100 * target['precision']:g} %{confidence}"
    if "coverage" in target:
        return f"coverage of at least {100 * target['coverage']:g} %{confidence}"
    if "wrong" in target and "handover" in target:
        return (
            f"least cost where a wrong answer costs {target['wrong']:g} and a handover"
            f" {target['handover']:g}{confidence}"
        )
    return "not recorded"


def describe(record: PolicyRecord) -> list[str]:
    """Lines on the target, the promise and the refusals, as far as they are recorded."""
    lines = [f"target: {describe_target(record)}"]
    if record.thresholds is None:
        lines.append("the target cannot be promised on so few rows: no score is too low to answer")

    promise = record.promise
    if "rows" in promise and "coverage" in promise:
        lines.append(_describe_answered(record))
    if "rows" in promise and "refused" in promise:
        refused = []
        for reason, name in REASONS.items():
            share = promise["refused"].get(reason, 0) / promise["rows"]
            refused.append(f"{in_percent(share)} {name}")
        lines.append(f"refuses {', '.join(refused)}")
    if record.thresholds is not None and record.thresholds.per_intent:
        own = len(record.thresholds.per_intent)
        lines.append(f"{own} intents have thresholds of their own; the others share one")
    return [*lines, describe_scope(record)]


def _describe_answered(record: PolicyRecord) -> str:
    promise = record.promise
    line = f"answers {in_percent(promise['coverage'])} of {describe_rows(record)}"
    if promise.get("precision") is None:
        return line

    line += f", {in_percent(promise['precision'])} of them right"
    if "precision_interval" in promise:
        low, high = promise["precision_interval"]
        line += f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
    return line


def describe_rows(record: PolicyRecord) -> str:
    """The rows that a policy was fitted on: `500 validation rows`."""
    rows = record.promise["rows"]
    extra = record.fitted_on.get(CROSS_FITTED)
    if extra is not None:
        return f"{rows:,} rows (cross-fitted: {extra:,} of them are training rows, out of fold)"
    return f"{rows:,} validation rows"


def describe_scope(record: PolicyRecord) -> str:
    """How texts of no intent are told, and how well."""
    if record.out_of_scope is None:
        return "refuses nothing as out of scope"

    name = "+".join(record.out_of_scope.weights)
    aurocs = record.figures.get("out_of_scope", {}).get(name, {})
    figures = [f"{KINDS[kind]} {value:.3f}" for kind, value in aurocs.items() if kind in KINDS]
    listed = f" (AUROC: {', '.join(figures)})" if figures else ""
    return f"out of scope by {name}{listed}"
