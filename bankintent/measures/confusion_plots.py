"""Pictures of a confusion matrix: the intents with most errors, and all of them.

A cell on the diagonal is blue by the share of an intent's rows that are answered rightly, any other
is orange by the number of errors. Intents that are confused stand together.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap

from bankintent.measures.arrays import Floats, Ints
from bankintent.measures.plots import PLAIN_TEXT, break_name, make_figure, save_picture
from bankintent.measures.seriation import order_by_confusion

WORST = "confusion.png"
"""The picture of the intents with most errors; of all intents where they are few."""

WHOLE = "confusion-all.png"
"""The picture of all intents, where `WORST` has not all of them."""

MOST_IN_WORST = 20
"""Intents whose counts can be read in a page that is 1,000 pixels wide."""

MOST_NAMED = 160
"""Intents up to which the whole matrix shows their names and counts."""

MOST_CELLS = 700
"""Cells along a side of a picture: those of more intents are added up in blocks."""

MOST_TEXTS = 4000
"""Counts that are written into one picture, the largest ones: each takes time to draw."""

WORST_INCHES = 10.0

LARGEST_INCHES = 24.0
"""Of the whole matrix, so that a picture has at most 3,600 pixels along a side."""

INCHES_PER_INTENT = 0.31
"""In the whole matrix: a name at 7 points with some room."""

OTHERS = "all other intents"

LEGEND = "blue: share of an intent's rows answered rightly; orange: errors; figures: rows"


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix in the order in which it is drawn."""

    counts: Ints
    """(labels, labels), row = true intent, column = predicted."""
    names: list[str]

    def take(self, indices: list[int]) -> "Matrix":
        """The rows and columns of these indices, in their order."""
        counts = self.counts[np.ix_(indices, indices)]
        return Matrix(counts, [self.names[index] for index in indices])

    @property
    def errors(self) -> Ints:
        """The counts with a diagonal of zeros."""
        errors = self.counts.copy()
        np.fill_diagonal(errors, 0)
        return errors

    @property
    def errors_by_intent(self) -> Ints:
        """(labels,) the errors of which an intent is the true or the predicted one."""
        errors = self.errors
        return np.asarray(errors.sum(axis=0) + errors.sum(axis=1))


@matplotlib.rc_context(PLAIN_TEXT)
def draw_confusion(
    counts: Ints, names: tuple[str, ...], folder: Path, title: str
) -> dict[str, str]:
    """Write `WORST`, and `WHOLE` where there are more intents than that shows, into the folder.

    Intents that neither occur nor are predicted are left out. Returns file name -> caption.
    """
    matrix = Matrix(counts, list(names))
    occurs = counts.any(axis=0) | counts.any(axis=1)
    matrix = matrix.take(np.flatnonzero(occurs).tolist())
    matrix = matrix.take(order_by_confusion(matrix.counts))

    num_intents = len(matrix.names)
    if num_intents <= MOST_IN_WORST:
        caption = f"{num_intents} intents"
        _draw(matrix, folder / WORST, f"{title}: {caption}", WORST_INCHES)
        return {WORST: caption}

    worst = _worst_indices(matrix)
    num_errors = int(matrix.errors.sum())
    part = _with_others(matrix, worst)
    shown_errors = int(part.errors.sum())
    worst_caption = f"the {len(worst)} of {num_intents} intents with most errors"
    shown = f"({shown_errors:,} of {num_errors:,} errors; {WHOLE} has all)"
    _draw(part, folder / WORST, f"{title}: {worst_caption}\n{shown}", WORST_INCHES)

    whole_caption = f"all {num_intents} intents"
    side = min(LARGEST_INCHES, INCHES_PER_INTENT * num_intents)
    if num_intents > MOST_NAMED:
        # Nothing is written into it: a larger one shows no more.
        side = WORST_INCHES
    _draw(matrix, folder / WHOLE, f"{title}: {whole_caption}", side)
    return {WORST: worst_caption, WHOLE: whole_caption}


def _worst_indices(matrix: Matrix) -> list[int]:
    """The intents with most errors, in the order of the matrix."""
    errors = matrix.errors_by_intent
    # Stable: of intents with as many errors, the first is taken on any machine.
    by_errors = np.argsort(-errors, kind="stable")[:MOST_IN_WORST]

    # One without errors says nothing, unless the model makes none at all.
    worst = [int(index) for index in by_errors if errors[index] > 0] or by_errors.tolist()
    return sorted(worst)


def _with_others(matrix: Matrix, indices: list[int]) -> Matrix:
    """These rows and columns of a matrix, and one more of all others together."""
    part = matrix.take(indices)
    # Among the neighbours that are left, another order may be better.
    part = part.take(order_by_confusion(part.counts))
    positions = np.array([matrix.names.index(name) for name in part.names])

    others = np.setdiff1d(np.arange(len(matrix.names)), indices)
    size = len(positions)
    counts = np.zeros((size + 1, size + 1), dtype=matrix.counts.dtype)
    counts[:size, :size] = part.counts
    counts[:size, size] = matrix.counts[np.ix_(positions, others)].sum(axis=1)
    # The last cell stays empty: what happens among the others is in the whole matrix.
    counts[size, :size] = matrix.counts[np.ix_(others, positions)].sum(axis=0)
    return Matrix(counts, [*part.names, OTHERS])


def _draw(matrix: Matrix, path: Path, title: str, inches: float) -> None:
    num_intents = len(matrix.names)
    figure, axes = make_figure(inches, inches)
    _draw_colours(axes, matrix)

    is_large = num_intents > MOST_IN_WORST + 1
    heading = max(12.0, inches * 0.8)
    axes.set_title(title, fontsize=heading, loc="left")
    axes.set_xlabel(f"predicted intent\n{LEGEND}", fontsize=heading - 2)
    axes.set_ylabel("true intent", fontsize=heading - 2)

    if num_intents > MOST_NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        font = 7.0 if is_large else 9.0
        _write_names(axes, matrix.names, font)
        _write_counts(axes, matrix.counts, font - 1 if is_large else font)
        _draw_grid(axes, num_intents)
    save_picture(figure, path)


def _draw_colours(axes: Any, matrix: Matrix) -> None:
    rows = matrix.counts.sum(axis=1)
    # An intent that is only predicted has no rows to divide by.
    recalls = np.diag(matrix.counts) / np.maximum(rows, 1)
    right = _add_up_blocks(np.diag(recalls))
    errors = _add_up_blocks(matrix.errors.astype(float))

    _show(axes, right, "Blues", 0.55)
    # Above the diagonal's: where cells are blocks of intents, both may fall into one.
    _show(axes, errors, "Oranges", 0.75)


def _show(axes: Any, values: Floats, colours: str, darkest: float) -> None:
    """Draw the values above zero in colours that differ from white and from black figures."""
    shades = matplotlib.colormaps[colours](np.linspace(0.2, darkest, 256))
    axes.imshow(
        np.ma.masked_equal(values, 0),
        cmap=ListedColormap(shades),
        vmin=0,
        vmax=max(values.max(), 1),
        interpolation="nearest",
    )


def _add_up_blocks(values: Floats) -> Floats:
    """The sums of square blocks, as large as `MOST_CELLS` along a side demands."""
    size = len(values)
    block = -(-size // MOST_CELLS)
    starts = np.arange(0, size, block)
    by_row = np.add.reduceat(values, starts, axis=0)
    return np.asarray(np.add.reduceat(by_row, starts, axis=1))


def _write_names(axes: Any, names: list[str], font: float) -> None:
    shown = [break_name(name) for name in names]
    places = range(len(names))
    axes.set_xticks(places, shown, rotation=90, fontsize=font)
    axes.set_yticks(places, shown, fontsize=font)
    axes.tick_params(length=0)


def _write_counts(axes: Any, counts: Ints, font: float) -> None:
    """Write the counts into their cells, the largest `MOST_TEXTS` of them."""
    cells = np.flatnonzero(counts)
    largest = np.argsort(-counts.ravel()[cells], kind="stable")[:MOST_TEXTS]
    for cell in cells[largest]:
        row, column = divmod(int(cell), len(counts))
        count = f"{counts[row, column]:,}"
        axes.text(column, row, count, ha="center", va="center", fontsize=font, color="black")


def _draw_grid(axes: Any, num_intents: int) -> None:
    # As two collections of lines: minor ticks with a grid take ten times as long.
    edges = np.arange(1, num_intents) - 0.5
    end = num_intents - 0.5
    axes.hlines(edges, -0.5, end, color="0.9", linewidth=0.4, zorder=0)
    axes.vlines(edges, -0.5, end, color="0.9", linewidth=0.4, zorder=0)
