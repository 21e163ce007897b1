"""What is said of a model beside a classifier without an encoder."""

from bankintent.inference.evaluation import Evaluation, TrivialRecord
from bankintent.measures.shares import in_percent, in_points

FEW_ROWS = 300
"""Rows below which an interval of accuracy is some points wide on either side."""

ADVICE = (
    "- another recipe of configs/recommended/, or more epochs",
    "- more sentences of the intents with a low F1, which report.md lists first",
    "- another encoder: the embedded one reads English",
)
"""What to try where an encoder gains nothing."""


def compare_with_trivial(result: Evaluation) -> list[str]:
    """Lines that set a model beside a classifier without an encoder; none for such a classifier.

    Where the model does not beat it, the lines say what to try.
    """
    trivial = result.trivial
    if trivial is None:
        if result.no_trivial is None:
            return []
        return [f"Not compared with TF-IDF: {result.no_trivial}."]

    lines = [_trivial_line(trivial)]
    # An end at zero is inside: equal answers have the interval 0.00 to 0.00.
    if trivial.interval[0] > 0:
        return lines

    if trivial.difference > 0 and result.rows < FEW_ROWS:
        return [*lines, _too_few_rows(trivial, result), *ADVICE]

    lines.append(_verdict_on_trivial(trivial))
    lines += ADVICE
    if trivial.difference == 0 and result.rows < FEW_ROWS:
        lines.append(f"- more {_kind_of_rows(result)}: with {result.rows} the interval is wide")
    return lines


def _too_few_rows(trivial: TrivialRecord, result: Evaluation) -> str:
    """That the rows cannot show the gain they have: first in the advice, because it may be real."""
    kind = _kind_of_rows(result)
    model = _count_mistakes(trivial.accuracy + trivial.difference, result.rows)
    reference = _count_mistakes(trivial.accuracy, result.rows)
    return (
        f"{result.rows} {kind} are too few to show that it is better than a count of letters:"
        f" this model makes {model} on them, TF-IDF makes {reference}. More {kind} would tell."
        " If they show no gain, try:"
    )


def _kind_of_rows(result: Evaluation) -> str:
    return "test sentences" if result.cross is None else "sentences"


def _count_mistakes(accuracy: float, rows: int) -> str:
    count = round((1 - accuracy) * rows)
    return "1 mistake" if count == 1 else f"{count} mistakes"


def _trivial_line(trivial: TrivialRecord) -> str:
    distance = in_points(abs(trivial.difference))
    if distance == "0.00":
        place = "level with it"
    elif trivial.difference > 0:
        place = f"{distance} points better"
    else:
        place = f"{distance} points worse"

    low = in_points(trivial.interval[0])
    high = in_points(trivial.interval[1])
    return (
        f"{trivial.about}: {in_percent(trivial.accuracy)}; this model is {place}"
        f" (95 % interval {low} to {high})."
    )


def _verdict_on_trivial(trivial: TrivialRecord) -> str:
    if trivial.interval[1] < 0:
        return "It does worse than a count of letters. To try:"
    return "It is not shown to be better than a count of letters. To try:"
