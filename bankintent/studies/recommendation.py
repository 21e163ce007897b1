"""Which recipe to take: the quickest of those that were not shown to be below the best one."""

from dataclasses import dataclass

from bankintent.measures.shares import in_percent, in_points
from bankintent.studies.figures import CellFigures, ComparisonFigures, PairFigures
from bankintent.studies.plan import SizeName, size_name


@dataclass(frozen=True)
class Recommendation:
    """The choice among the cells of one size."""

    size: SizeName
    chosen: CellFigures
    best: CellFigures
    """The highest mean accuracy; may be the chosen one."""
    against_best: PairFigures | None
    """The pair of the two, None where they are the same."""
    quicker: list[CellFigures]
    """The cells that train more quickly than the chosen one."""


def recommend(figures: ComparisonFigures, size: SizeName) -> Recommendation:
    """The choice among the recipes of a size; of equals the one that the config names first."""
    cells = [cell for cell in figures.cells if cell.size == size]
    best = max(cells, key=lambda cell: cell.accuracy.mean)

    candidates = {best.recipe: best}
    pairs = {}
    for cell in cells:
        pair = _find_pair(figures, cell, best)
        # An end at zero is inside, as in the verdicts.
        if pair is not None and pair.interval[0] <= 0 <= pair.interval[1]:
            candidates[cell.recipe] = cell
            pairs[cell.recipe] = pair

    costs = _costs(cells)
    chosen = min(candidates.values(), key=lambda cell: costs[cell.recipe])
    # As quick as the best is no reason to take another.
    if costs[chosen.recipe] == costs[best.recipe]:
        chosen = best

    quicker = [cell for cell in cells if costs[cell.recipe] < costs[chosen.recipe]]
    return Recommendation(size, chosen, best, pairs.get(chosen.recipe), quicker)


def _find_pair(figures: ComparisonFigures, a: CellFigures, b: CellFigures) -> PairFigures | None:
    """The pair of two cells of one size, in either order; None where they were not compared."""
    for pair in figures.pairs:
        if pair.size == a.size and {pair.a, pair.b} == {a.recipe, b.recipe}:
            return pair
    return None


def _costs(cells: list[CellFigures]) -> dict[str, float]:
    """Recipe -> its training time, or where one is not known, its trainable parameters."""
    seconds: dict[str, float] = {}
    for cell in cells:
        if cell.train_seconds is not None:
            seconds[cell.recipe] = cell.train_seconds

    if len(seconds) == len(cells):
        return seconds
    return {cell.recipe: float(cell.trainable_parameters) for cell in cells}


def write_recommendation(figures: ComparisonFigures) -> list[str]:
    """The recommendation of the largest size in a sentence or two, then those of the others.

    The first text begins with the name of the recipe in bold, as in Markdown.
    """
    first = recommend(figures, figures.largest_size)
    rows = f"{figures.rows:,} {figures.split} rows of {figures.data.name}"
    texts = [f"**Recommendation: {first.chosen.recipe}.** {_explain(figures, first, rows)}"]

    others = []
    for size in dict.fromkeys(cell.size for cell in figures.cells):
        if size != figures.largest_size:
            others.append(recommend(figures, size))
    if others:
        texts.append(_write_others(first, others))
    return texts


def _explain(figures: ComparisonFigures, choice: Recommendation, rows: str) -> str:
    chosen = choice.chosen
    accuracy = in_percent(chosen.accuracy.mean)
    data = "all training data" if choice.size == "all" else size_name(choice.size)
    if len({cell.recipe for cell in figures.cells}) == 1:
        return f"With {data} it has {accuracy} accuracy on {rows}; there is no other to compare."

    if choice.against_best is None:
        text = f"With {data} it has the highest mean accuracy, {accuracy} on {rows}"
        return f"{text}{_describe_quicker(figures, choice)}."

    best = choice.best
    pair = choice.against_best
    # The pair may stand in the other order.
    sign = 1 if pair.a == chosen.recipe else -1
    low, high = sorted(sign * end for end in pair.interval)
    seeds = "one seed" if len(pair.seeds) == 1 else f"{len(pair.seeds)} seeds"
    return (
        f"With {data} it has {accuracy} accuracy on {rows}. The highest mean is that of"
        f" {best.recipe}, {in_percent(best.accuracy.mean)}, but no difference was shown"
        f" ({in_points(sign * pair.difference)} points, 95 % interval {in_points(low)} to"
        f" {in_points(high)}, {seeds}), and {chosen.recipe} {_describe_cost(chosen, best)}."
    )


def _describe_quicker(figures: ComparisonFigures, choice: Recommendation) -> str:
    """What is to be said of the recipes that train more quickly than the most accurate one."""
    if not choice.quicker:
        return ", and no other trains more quickly"

    less_accurate = []
    not_compared = []
    for cell in choice.quicker:
        if _find_pair(figures, cell, choice.chosen) is None:
            not_compared.append(cell.recipe)
        else:
            less_accurate.append(cell.recipe)

    text = ""
    if less_accurate:
        text += f"; quicker, but shown to be below it: {', '.join(less_accurate)}"
    if not_compared:
        text += f"; quicker, but not tested against it: {', '.join(not_compared)}"
    return text


def _describe_cost(chosen: CellFigures, best: CellFigures) -> str:
    if chosen.train_seconds is None or best.train_seconds is None:
        return (
            f"trains {chosen.trainable_parameters:,} parameters in place of"
            f" {best.trainable_parameters:,}"
        )
    return f"trains in {chosen.train_seconds:,.0f} s in place of {best.train_seconds:,.0f} s"


def _write_others(first: Recommendation, others: list[Recommendation]) -> str:
    """The choices of the smaller sizes, named one by one only where they differ."""
    sizes = [size_name(choice.size) for choice in others]
    if all(choice.chosen.recipe == first.chosen.recipe for choice in others):
        return f"The same with {', '.join(sizes)}."

    parts = []
    for choice, size in zip(others, sizes, strict=True):
        accuracy = in_percent(choice.chosen.accuracy.mean)
        parts.append(f"{choice.chosen.recipe} with {size} ({accuracy})")
    return f"With fewer sentences: {', '.join(parts)}."
