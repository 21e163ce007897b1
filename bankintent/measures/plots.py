"""Pictures of an evaluation, as PNG files, without a display."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bankintent.measures.metrics import Ints

PLAIN = {"Software": None}
"""PNG metadata that would change with the version of matplotlib."""

PLAIN_TEXT = {"text.parse_math": False}
"""A dollar sign in a label is text, not the start of a formula."""


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
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(6.0, min(24.0, 0.31 * len(names)))
    figure = Figure(figsize=(size, size), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    font = 7 if len(names) > 30 else 9
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.tick_params(length=0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[i, j] > 55 else "black"
        axes.text(
            j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=font - 1.5, color=colour
        )
    axes.set_xlabel("predicted intent", fontsize=font + 4)
    axes.set_ylabel("true intent", fontsize=font + 4)
    axes.set_title(f"{title}: per cent of each true intent", fontsize=font + 6)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, label="per cent")
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def reliability_diagram(bins: list[dict[str, float]], ece: float, path: Path) -> None:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    figure = Figure(figsize=(5, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfect calibration")
    confidence, accuracy = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
    sizes = [8 + 200 * b["rows"] / sum(b["rows"] for b in bins) for b in bins]
    axes.plot(confidence, accuracy, color="C0", linewidth=1)
    axes.scatter(confidence, accuracy, s=sizes, color="C0", label="model (area: share of rows)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Calibration: expected error {ece:.3f}")
    axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def accuracy_by_parameters(points: list[Point], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the number of trainable parameters, which spans orders of magnitude."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for index, point in enumerate(points):
        _with_bar(axes, [point], index, label=point.series, line="none")
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set(xlabel="trainable parameters", ylabel="accuracy, %", title=title)
    _quiet(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def learning_curves(points: list[Point], sizes: list[str], path: Path, title: str) -> None:
    """Mean accuracy with its interval against the size of training data, one line for each series.

    The sizes, given by name, stand evenly spaced: `x` of a point is its size's place in the list.
    """
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(point.series for point in points))
    for index, name in enumerate(names):
        aside = 0.05 * (index - (len(names) - 1) / 2)  # so that no interval hides another
        _with_bar(
            axes,
            [replace(p, x=p.x + aside) for p in points if p.series == name],
            index,
            label=name,
            line="-",
        )
    axes.set_xticks(range(len(sizes)), sizes)
    axes.margins(x=0.08)
    axes.set(xlabel="training sentences for each intent", ylabel="accuracy, %", title=title)
    _quiet(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def intent_differences(
    rows: list[dict[str, Any]], a: str, b: str, path: Path, most: int = 12
) -> None:
    """Bars of the intents in which A answers most more, or most fewer, rows rightly than B, means over seeds.

    `rows` hold intent, rows, a_right, b_right and difference, largest difference first.
    """
    gains = [row for row in rows if row["difference"] > 0][:most]
    losses = [row for row in rows if row["difference"] < 0][-most:]
    shown = gains + losses
    figure = Figure(figsize=(8, 1.6 + 0.26 * max(len(shown), 3)), dpi=150, layout="constrained")
    axes = figure.subplots()
    values = [row["difference"] for row in shown]
    axes.barh(
        range(len(shown)),
        values,
        color=["C0" if value > 0 else "C1" for value in values],
        height=0.7,
    )
    for place, row in enumerate(
        shown
    ):  # the words stand on the empty side of zero, where they always have room
        text = f"{row['a_right']:.1f} against {row['b_right']:.1f} of {row['rows']}"
        side = -1 if row["difference"] > 0 else 1
        place_of_text: dict[str, Any] = {
            "xytext": (5 * side, 0),
            "textcoords": "offset points",
            "va": "center",
        }
        axes.annotate(
            text, (0, place), ha="right" if side < 0 else "left", fontsize=7, **place_of_text
        )
    axes.set_yticks(range(len(shown)), [row["intent"] for row in shown], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    reach = 1.05 * max(map(abs, values), default=1.0)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"rows answered rightly, {a} minus {b} (means over seeds)")
    axes.set_title(
        f"{a} against {b}: {len(shown)} of {len(rows)} intents, those that differ most", fontsize=11
    )
    _quiet(axes, "x")
    _save(figure, path)


def _with_bar(axes: Any, points: list[Point], index: int, label: str, line: str) -> None:
    """Points of one series with their intervals, where they have one."""
    below = [100 * (p.mean - (p.interval or [p.mean])[0]) for p in points]
    above = [100 * ((p.interval or [p.mean])[-1] - p.mean) for p in points]
    x, y = [p.x for p in points], [100 * p.mean for p in points]
    marker = "osD^vPX"[index % 7]
    axes.errorbar(
        x,
        y,
        yerr=[below, above],
        color=f"C{index}",
        marker=marker,
        linestyle=line,
        capsize=3,
        label=label,
    )


def _quiet(axes: Any, grid: str = "both") -> None:
    axes.grid(axis=grid, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = PLAIN
    figure.savefig(path, metadata=metadata)
