"""The verdict on a pair of cells: a sentence that the interval of their difference supports."""

from bankintent.measures.shares import in_points, in_short_percent
from bankintent.studies.cells import SENTENCE_NAMES, Cell, common_seeds


def write_verdict(a: Cell, b: Cell, difference: float, interval: list[float]) -> str:
    """The accuracy of A minus that of B in words; `interval` is the difference's, of 95 %."""
    low, high = interval
    num_seeds = len(common_seeds(a, b))
    seeds = "one seed" if num_seeds == 1 else f"{num_seeds} seeds"
    basis = f"95 % interval {in_points(low)} to {in_points(high)}, {seeds}"

    distance = _describe_distance(difference, b)
    text = f"{a.sentence_name} is {distance} ({basis}){_describe_shares(a, b)}."
    # An end at zero is inside: equal answers have the interval 0.00 to 0.00.
    if low <= 0 <= high:
        names = f"{a.sentence_name} and {b.sentence_name}"
        text = f"No difference was shown between {names}: {text}"
    # A capital for our own names alone: others are the user's, which stay as they are.
    elif a.sentence_name in SENTENCE_NAMES.values():
        text = text[0].upper() + text[1:]

    if num_seeds == 1:
        text += " Only the rows were resampled, as there is one seed."
    return text


def _describe_distance(difference: float, b: Cell) -> str:
    if difference == 0:
        return f"level with {b.sentence_name}"

    direction = "above" if difference > 0 else "below"
    return f"{in_points(abs(difference))} points of accuracy {direction} {b.sentence_name}"


def _describe_shares(a: Cell, b: Cell) -> str:
    """The shares of trained parameters; nothing where they are the same."""
    if a.trained_share == b.trained_share:
        return ""

    a_share = in_short_percent(a.trained_share)
    b_share = in_short_percent(b.trained_share)
    return f", with {a_share} of the parameters trained against {b_share}"
