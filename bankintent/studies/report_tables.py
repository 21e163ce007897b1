"""The tables of a comparison's report, as a header and rows of text."""

from bankintent import tracking
from bankintent.measures.shares import in_points, in_short_percent
from bankintent.studies.analysis import ALPHA
from bankintent.studies.figures import (
    CellFigures,
    ComparisonFigures,
    PairFigures,
    RecipeFigures,
    SeedMean,
)
from bankintent.studies.plan import size_name

HeaderAndRows = tuple[list[str], list[list[str]]]
"""The names of the columns, and the cells of each row."""


def accuracy_table(figures: ComparisonFigures, macro_f1: bool = True) -> HeaderAndRows:
    """Accuracy of each cell, and its macro-F1 if that is asked for."""
    header = ["recipe", "training data", "accuracy, % (95 %)"]
    if macro_f1:
        header.append("macro-F1, % (95 %)")
    header.append("seeds")

    rows = []
    for cell in figures.cells:
        row = [cell.recipe, _describe_training_data(cell), _mean_with_interval(cell.accuracy)]
        if macro_f1:
            row.append(_mean_with_interval(cell.macro_f1))
        row.append(str(len(cell.seeds)))
        rows.append(row)
    return header, rows


def cost_table(figures: ComparisonFigures) -> HeaderAndRows:
    """The cost of each cell: to train, to ship and to run."""
    header = [
        "recipe",
        "training data",
        "trainable",
        "share",
        "training s",
        "run s",
        "peak GB",
        "ships MB",
        "one sentence ms",
        "sentences/s",
    ]
    return header, [_cost_row(cell) for cell in figures.cells]


def _cost_row(cell: CellFigures) -> list[str]:
    sizes = [f"{part} {size / 1e6:.1f}" for part, size in sorted(cell.bytes.items())]
    return [
        cell.recipe,
        _describe_training_data(cell),
        f"{cell.trainable_parameters:,}",
        in_short_percent(cell.share),
        _number(cell.train_seconds),
        _number(cell.run_seconds),
        f"{cell.peak_memory_bytes / 1e9:.2f}",
        ", ".join(sizes),
        _number(cell.single_ms),
        _number(cell.batched_per_second),
    ]


def difference_matrix(figures: ComparisonFigures) -> HeaderAndRows:
    """Recipes against recipes: the difference of each pair, its interval and p.

    With several sizes of training data, each size has its rows.
    """
    recipes = list(dict.fromkeys(cell.recipe for cell in figures.cells))
    sizes = list(dict.fromkeys(pair.size for pair in figures.pairs))
    pairs = {}
    for pair in figures.pairs:
        # In both orders: the pair has the recipe that trains less first, the table the config's.
        pairs[pair.size, pair.a, pair.b] = _describe_difference(pair, 1)
        pairs[pair.size, pair.b, pair.a] = _describe_difference(pair, -1)

    rows = []
    for size in sizes:
        for index, recipe in enumerate(recipes[:-1]):
            # Above the diagonal: below it, each would stand a second time.
            later = [pairs.get((size, recipe, other), "") for other in recipes[index + 1 :]]
            row = [recipe, size_name(size), *[""] * index, *later]
            if any(later):
                rows.append(row)
    return ["row minus column", "training data", *recipes[1:]], rows


def _describe_difference(pair: PairFigures, sign: int) -> str:
    """For example `**-0.89** (-1.37 to -0.41), p < 0.001`; `sign` is -1 for B minus A."""
    low, high = sorted(sign * end for end in pair.interval)
    difference = in_points(sign * pair.difference)
    if not difference.startswith("-"):
        difference = f"+{difference}"
    if not low <= 0 <= high:
        difference = f"**{difference}**"

    p = _p_value(pair.mcnemar.plurality.p)
    relation = p if p.startswith("<") else f"= {p}"
    return f"{difference} ({in_points(low)} to {in_points(high)}), p {relation}"


def paired_tests_table(figures: ComparisonFigures) -> HeaderAndRows:
    """The difference of each pair and its tests."""
    header = [
        "pair",
        "training data",
        "difference, points (95 %)",
        f"seeds with p < {ALPHA}",
        "rows that one alone has right, by vote",
        "p, by vote",
    ]
    return header, [_paired_tests_row(pair) for pair in figures.pairs]


def _paired_tests_row(pair: PairFigures) -> list[str]:
    low, high = pair.interval
    vote = pair.mcnemar.plurality

    return [
        f"{pair.a} - {pair.b}",
        size_name(pair.size),
        f"{in_points(pair.difference)} ({in_points(low)} to {in_points(high)})",
        f"{pair.mcnemar.significant} of {len(pair.seeds)}",
        f"{vote.only_a} : {vote.only_b}",
        _p_value(vote.p),
    ]


def settings_table(recipes: list[RecipeFigures]) -> HeaderAndRows:
    """Every setting of every recipe, one column for each recipe."""
    columns = []
    for recipe in recipes:
        # The analysis takes the regime out of the settings, see `CELL_SETTINGS`.
        settings = {"regime": recipe.regime} | recipe.settings
        columns.append(tracking.flatten(settings))

    # A dict as a set that keeps the order.
    keys: dict[str, None] = {}
    for settings in columns:
        keys |= dict.fromkeys(settings)

    rows = []
    for key in keys:
        row = [key]
        for settings in columns:
            value = settings.get(key)
            row.append("" if value is None else str(value))
        rows.append(row)
    return ["setting", *(recipe.recipe for recipe in recipes)], rows


def _describe_training_data(cell: CellFigures) -> str:
    size = "all" if cell.size == "all" else size_name(cell.size)
    return f"{size} ({cell.train_rows:,})"


def _mean_with_interval(share: SeedMean) -> str:
    mean = f"{100 * share.mean:.2f}"
    if share.interval is None:
        return f"{mean} (one seed)"

    low, high = share.interval
    return f"{mean} ({100 * low:.2f} to {100 * high:.2f})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}"


def _p_value(p: float) -> str:
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}"
