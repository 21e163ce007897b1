"""Pictures of an evaluation, as PNG files, without a display."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bankintent.measures.metrics import ConfidenceBin, Floats, IntentFigures, Ints

PLAIN: dict[str, Any] = {"Software": None}
"""PNG metadata without the version of matplotlib: the same figures give the same bytes."""

PLAIN_TEXT = {"text.parse_math": False}
"""Settings under which a dollar sign in a label is text, not the start of a formula."""

DPI = 150
"""Dots per inch: in a matrix of 77 intents, figures of 5.5 points are readable."""

MARKERS = "osD^vPX"
"""One for each series, so that they also differ without colours."""

STEP = 0.05
"""Distance between the points of two series at one place, so that no interval hides another."""


@dataclass(frozen=True)
class Point:
    """A mean share (0 to 1) with its interval, at a place on the x axis, of a named series."""

    series: str
    x: float
    mean: float
    interval: list[float] | None


@matplotlib.rc_context(PLAIN_TEXT)
def confusion_matrix(counts: Ints, names: tuple[str, ...], path: Path, title: str) -> None:
    """Row-normalised confusion matrix in per cent, readable at 77 labels."""
    # An intent without rows has only zeros to divide.
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = 100 * counts / totals
    # A label takes 0.31 inches at 7 points; 77 of them fill the largest side.
    side = max(6.0, min(24.0, 0.31 * len(names)))
    font = 7 if len(names) > 30 else 9

    figure, axes = _figure(side, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.tick_params(length=0)
    _write_cells(axes, counts, shares, font - 1.5)

    axes.set_xlabel("predicted intent", fontsize=font + 4)
    axes.set_ylabel("true intent", fontsize=font + 4)
    axes.set_title(f"{title}: per cent of each true intent", fontsize=font + 6)

    # Minor ticks lie between the cells, where the grid is drawn; major ones carry the names.
    edges = np.arange(len(names) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, label="per cent")
    _save(figure, path)


def _write_cells(axes: Any, counts: Ints, shares: Floats, font: float) -> None:
    """Write the share into every cell that is not empty."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        # The cells of large shares are dark.
        colour = "white" if share > 55 else "black"
        text = f"{share:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=font, color=colour)


@matplotlib.rc_context(PLAIN_TEXT)
def reliability_diagram(bins: list[ConfidenceBin], ece: float, path: Path) -> None:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    rows = sum(one.rows for one in bins)
    confidence = [one.confidence for one in bins]
    accuracy = [one.accuracy for one in bins]
    # Not below 8, so that even a bin with a single row shows as a dot.
    areas = [8 + 200 * one.rows / rows for one in bins]

    figure, axes = _figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfect calibration")
    axes.plot(confidence, accuracy, color="C0", linewidth=1)
    axes.scatter(confidence, accuracy, s=areas, color="C0", label="model (area: share of rows)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Calibration: expected error {ece:.3f}")
    axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def accuracy_by_parameters(points: list[Point], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the number of trainable parameters."""
    figure, axes = _figure(7, 4.5)
    for index, point in enumerate(points):
        _draw_series(axes, [point], index, label=point.series, line="none")

    # The parameters that regimes train differ by orders of magnitude.
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set(xlabel="trainable parameters", ylabel="accuracy, %", title=title)
    _lighten(axes)
    _add_legend(figure)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def learning_curves(points: list[Point], sizes: list[str], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the size of training data, one line for each series.

    The named sizes are evenly spaced: `x` of a point is its size's place in the list.
    """
    figure, axes = _figure(7, 4.5)
    names = list(dict.fromkeys(point.series for point in points))
    for index, name in enumerate(names):
        shift = STEP * (index - (len(names) - 1) / 2)
        series = [replace(point, x=point.x + shift) for point in points if point.series == name]
        _draw_series(axes, series, index, label=name, line="-")

    axes.set_xticks(range(len(sizes)), sizes)
    axes.margins(x=0.08)
    axes.set(xlabel="training sentences for each intent", ylabel="accuracy, %", title=title)
    _lighten(axes)
    _add_legend(figure)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def intent_differences(
    intents: list[IntentFigures], a: str, b: str, path: Path, most: int = 12
) -> None:
    """Bars of the intents in which A and B differ most, at most `most` in favour of each.

    `intents` are in order of their difference, the largest gain of A first.
    """
    gains = [intent for intent in intents if intent.difference > 0]
    losses = [intent for intent in intents if intent.difference < 0]
    shown = gains[:most] + losses[-most:]
    names = [intent.intent for intent in shown]
    differences = [intent.difference for intent in shown]
    colours = ["C0" if difference > 0 else "C1" for difference in differences]
    places = range(len(shown))

    figure, axes = _figure(8, 1.6 + 0.26 * max(len(shown), 3))
    axes.barh(places, differences, color=colours, height=0.7)
    for place, intent in enumerate(shown):
        _write_counts(axes, place, intent)

    axes.set_yticks(places, names, fontsize=8)
    # The largest gain at the top: bars are numbered from below.
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    # Symmetric, so that zero is in the middle and the counts have room on either side.
    reach = 1.05 * max(map(abs, differences), default=1.0)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"rows answered rightly, {a} minus {b} (means over seeds)")
    title = f"{a} against {b}: {len(shown)} of {len(intents)} intents, those that differ most"
    axes.set_title(title, fontsize=11)
    _lighten(axes, "x")
    _save(figure, path)


def _write_counts(axes: Any, place: int, intent: IntentFigures) -> None:
    """Write the counts of an intent on the empty side of zero, where they always have room."""
    text = f"{intent.a_right:.1f} against {intent.b_right:.1f} of {intent.rows}"
    bar_is_right = intent.difference > 0
    axes.annotate(
        text,
        (0, place),
        xytext=(-5 if bar_is_right else 5, 0),
        textcoords="offset points",
        ha="right" if bar_is_right else "left",
        va="center",
        fontsize=7,
    )


def _draw_series(axes: Any, points: list[Point], index: int, label: str, line: str) -> None:
    """Points of one series in per cent, with their intervals where they have one."""
    x = [point.x for point in points]
    means = [100 * point.mean for point in points]
    below = []
    above = []
    for point in points:
        # One seed has no interval: its bar has no length.
        interval = point.interval or [point.mean]
        below.append(100 * (point.mean - interval[0]))
        above.append(100 * (interval[-1] - point.mean))

    axes.errorbar(
        x,
        means,
        yerr=[below, above],
        color=f"C{index}",
        marker=MARKERS[index % len(MARKERS)],
        linestyle=line,
        capsize=3,
        label=label,
    )


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes."""
    # Not from pyplot, which keeps every figure and looks for a display.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots()


def _lighten(axes: Any, grid: str = "both") -> None:
    axes.grid(axis=grid, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata=PLAIN)
