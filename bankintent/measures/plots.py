"""Pictures of an evaluation, as PNG files, without a display."""

import re
import textwrap
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import EngFormatter

from bankintent.measures.calibration import ConfidenceBin
from bankintent.measures.metrics import IntentFigures

PLAIN: dict[str, Any] = {"Software": None}
"""PNG metadata without the version of matplotlib: the same figures give the same bytes."""

OWN_FONT = "DejaVu Sans"
"""The font that comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more."""

OTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "Nirmala UI",
    "PingFang SC",
    "Arial Unicode MS",
)
"""Fonts of other scripts, of which those are used that the machine has."""

PLAIN_TEXT: dict[str, Any] = {
    # A dollar sign in a label is text, not the start of a formula.
    "text.parse_math": False,
    # Each character is taken from the first font that has it.
    "font.family": [OWN_FONT, *(name for name in OTHER_FONTS if name in get_font_names())],
}
"""Settings under which any label can be drawn."""

DPI = 150
"""Dots per inch: in a matrix of 77 intents, figures of 5.5 points are readable."""

MARKERS = "osD^vPX"
"""One for each series, so that they also differ without colours."""

OVERVIEW_INCHES = (5.4, 3.7)
"""Small, so that its words can still be read where a page is as narrow as a phone."""

LETTERS_PER_INCH = 11.5
"""Of a title, and of the names below a picture."""

NAME_WIDTH = 36
"""Characters of a name in one line; a longer one is broken at its separators."""

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
def reliability_diagram(bins: list[ConfidenceBin], ece: float, path: Path) -> None:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    rows = sum(one.rows for one in bins)
    confidence = []
    accuracy = []
    areas = []
    for one in bins:
        confidence.append(one.confidence)
        accuracy.append(one.accuracy)
        # Not below 8, so that even a bin with a single row shows as a dot.
        areas.append(8 + 200 * one.rows / rows)

    figure, axes = make_figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfect calibration")
    axes.plot(confidence, accuracy, color="C0", linewidth=1)
    axes.scatter(confidence, accuracy, s=areas, color="C0", label="model (area: share of rows)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Calibration: expected error {ece:.3f}")
    axes.legend(loc="upper left", frameon=False)
    save_picture(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def accuracy_by_parameters(points: list[Point], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the number of trainable parameters."""
    figure, axes = make_figure(*OVERVIEW_INCHES)
    for index, point in enumerate(points):
        _draw_series(axes, [point], index, label=point.series, line="none")

    # The parameters that regimes train differ by orders of magnitude.
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set(xlabel="trainable parameters", ylabel="accuracy, %")
    set_title(axes, title)
    lighten(axes)
    add_legend(figure, axes)
    save_picture(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def learning_curves(points: list[Point], sizes: list[str], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the size of training data, one line for each series.

    The named sizes are evenly spaced: `x` of a point is its size's place in the list.
    """
    figure, axes = make_figure(*OVERVIEW_INCHES)
    names = list(dict.fromkeys(point.series for point in points))
    for index, name in enumerate(names):
        shift = STEP * (index - (len(names) - 1) / 2)
        series = [replace(point, x=point.x + shift) for point in points if point.series == name]
        _draw_series(axes, series, index, label=name, line="-")

    axes.set_xticks(range(len(sizes)), sizes)
    axes.margins(x=0.08)
    axes.set(xlabel="training sentences for each intent", ylabel="accuracy, %")
    set_title(axes, title)
    lighten(axes)
    add_legend(figure, axes)
    save_picture(figure, path)


@dataclass(frozen=True)
class Share:
    """A share (0 to 1) at a place on the x axis."""

    x: float
    share: float


@matplotlib.rc_context(PLAIN_TEXT)
def accuracy_by_sentences(points: list[Share], expected: Share | None, path: Path) -> None:
    """Accuracy against the number of sentences, and what a doubling is expected to give."""
    figure, axes = make_figure(*OVERVIEW_INCHES)
    x = [point.x for point in points]
    shares = [100 * point.share for point in points]
    axes.plot(x, shares, color="C0", marker="o", label="measured")
    if expected is not None:
        ends = [points[-1], expected]
        axes.plot(
            [point.x for point in ends],
            [100 * point.share for point in ends],
            color="C0",
            marker="o",
            # The other end is a measured point, and has its marker.
            markevery=[1],
            markerfacecolor="white",
            linestyle="--",
            label="expected",
        )

    # Each point has twice the sentences of the one before.
    axes.set_xscale("log", base=2)
    places = [point.x for point in [*points, *([expected] if expected else [])]]
    axes.set_xticks(places, [f"{place:,.0f}" for place in places])
    axes.minorticks_off()
    axes.set(xlabel="training sentences", ylabel="accuracy out of fold, %")
    set_title(axes, "A linear probe of the frozen encoder with less of the data")
    lighten(axes)
    add_legend(figure, axes)
    save_picture(figure, path)


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
    differences = [intent.difference for intent in shown]

    figure, axes = make_figure(7.5, 1.6 + 0.26 * max(len(shown), 3))
    names = []
    for place, intent in enumerate(shown):
        colour = "C0" if intent.difference > 0 else "C1"
        axes.barh(place, intent.difference, color=colour, height=0.7)
        _annotate_counts(axes, place, intent)
        names.append(break_name(intent.intent))

    axes.set_yticks(range(len(shown)), names, fontsize=8)
    # The largest gain at the top: bars are numbered from below.
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    # Symmetric, so that zero is in the middle and the counts have room on either side.
    reach = 1.05 * max(map(abs, differences), default=1.0)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"rows answered rightly, {a} minus {b} (means over seeds)")
    title = f"{a} against {b}: {len(shown)} of {len(intents)} intents, those that differ most"
    set_title(axes, title)
    lighten(axes, "x")
    save_picture(figure, path)


def break_name(name: str) -> str:
    """A long name in several lines, broken after a space or a separator."""
    if len(name) <= NAME_WIDTH:
        return name
    # After a separator a space, where the line may end, and which is taken out again.
    mark = "\0"
    with_places = re.sub(r"(?<=[_/.-])(?=\w)", f"{mark} ", name)
    lines = textwrap.wrap(with_places, NAME_WIDTH, break_on_hyphens=False)
    return "\n".join(line.replace(f"{mark} ", "").replace(mark, "") for line in lines)


def _annotate_counts(axes: Any, place: int, intent: IntentFigures) -> None:
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
    x = []
    means = []
    below = []
    above = []
    for point in points:
        x.append(point.x)
        means.append(100 * point.mean)
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


def make_figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes."""
    # Not from pyplot, which keeps every figure and looks for a display.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots()


def lighten(axes: Any, grid: str = "both") -> None:
    """Draw a grid in light grey behind the data, and no frame above and to the right."""
    axes.grid(axis=grid, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def set_title(axes: Any, title: str) -> None:
    """A title in as many lines as the picture needs."""
    width = axes.get_figure().get_figwidth()
    axes.set_title(textwrap.fill(title, int(LETTERS_PER_INCH * width)), fontsize=11)


def add_legend(figure: Figure, axes: Any) -> None:
    """The names of the series below the picture, as many in a row as fit."""
    _, names = axes.get_legend_handles_labels()
    # A marker takes the room of some letters.
    longest = max(map(len, names)) + 8
    columns = max(1, int(LETTERS_PER_INCH * figure.get_figwidth()) // longest)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # A character that no font has is drawn as a box; the tables beside the picture have it.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        figure.savefig(path, metadata=PLAIN)
