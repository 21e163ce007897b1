"""Pictures of what a model's scores are worth, as PNG files, without a display."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from bankintent.measures.arrays import Floats
from bankintent.measures.calibration import ConfidenceBin
from bankintent.measures.plots import (
    MARKERS,
    OVERVIEW_INCHES,
    PLAIN_TEXT,
    add_legend,
    lighten,
    make_figure,
    save_picture,
    set_title,
)
from bankintent.measures.selective import OperatingPoint
from bankintent.measures.shares import in_short_percent

HISTOGRAM_BINS = 40


@dataclass(frozen=True)
class Calibration:
    """The calibration of one model, or of one model before or after something was done to it."""

    name: str
    bins: list[ConfidenceBin]
    ece: float


@dataclass(frozen=True)
class SelectiveCurve:
    """The risk-coverage curve of one model."""

    name: str
    points: list[OperatingPoint]
    """In order of coverage."""
    operating: OperatingPoint | None = None
    """Where the model works, if it has a threshold."""


@matplotlib.rc_context(PLAIN_TEXT)
def draw_calibrations(calibrations: list[Calibration], path: Path) -> None:
    """Accuracy against confidence of several models in one picture; the diagonal is perfect."""
    figure, axes = make_figure(5, 5)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfect calibration")

    for index, one in enumerate(calibrations):
        _draw_bins(axes, one, index)

    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    lighten(axes)
    set_title(axes, "Calibration")
    # Models are rarely sure and wrong at once, so this corner is empty.
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    save_picture(figure, path)


def _draw_bins(axes: Any, calibration: Calibration, index: int) -> None:
    """The bins of one model, the area of each by its share of the rows."""
    rows = sum(group.rows for group in calibration.bins)
    confidence = [group.confidence for group in calibration.bins]
    accuracy = [group.accuracy for group in calibration.bins]
    # Not below 8, so that even a bin with a single row shows.
    areas = [8 + 200 * group.rows / rows for group in calibration.bins]

    colour = f"C{index}"
    axes.plot(confidence, accuracy, color=colour, linewidth=1, alpha=0.5)
    axes.scatter(
        confidence,
        accuracy,
        s=areas,
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        label=f"{calibration.name}: expected error {calibration.ece:.3f}",
    )


@matplotlib.rc_context(PLAIN_TEXT)
def draw_risk_coverage(curves: list[SelectiveCurve], path: Path) -> None:
    """Wrong answers among the answered rows against the share of rows that is answered."""
    figure, axes = make_figure(*OVERVIEW_INCHES)
    for index, curve in enumerate(curves):
        coverages = []
        risks = []
        for point in curve.points:
            if point.precision is not None:
                coverages.append(100 * point.coverage)
                risks.append(100 * (1 - point.precision))
        axes.plot(coverages, risks, color=f"C{index}", linewidth=1.5, label=curve.name)
        if curve.operating is not None:
            _mark_operating(axes, curve.operating, index)

    axes.set_xlim(0, 102)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set(xlabel="answered, % of rows", ylabel="wrong among these, %")
    lighten(axes)
    set_title(axes, "Wrong answers, the surest rows first")
    add_legend(figure, axes)
    save_picture(figure, path)


def _mark_operating(axes: Any, point: OperatingPoint, index: int) -> None:
    if point.precision is None or point.threshold is None:
        return
    risk = 100 * (1 - point.precision)
    coverage = 100 * point.coverage
    label = (
        f"threshold {point.threshold:.3f}: {in_short_percent(point.coverage)} answered,"
        f" {in_short_percent(point.precision)} right"
    )
    axes.plot(
        [coverage],
        [risk],
        color=f"C{index}",
        marker=MARKERS[index % len(MARKERS)],
        markersize=8,
        markeredgecolor="black",
        linestyle="none",
        # Above the line of the axis: a point without wrong answers is on it.
        clip_on=False,
        zorder=3,
        label=label,
    )


@matplotlib.rc_context(PLAIN_TEXT)
def draw_scores(
    in_scope: Floats, out_of_scope: Floats, threshold: float | None, path: Path
) -> None:
    """Histograms of (rows,) scores in scope and out of scope, and the threshold between them.

    Each is in per cent of its own rows, since there may be far fewer of one kind.
    """
    figure, axes = make_figure(*OVERVIEW_INCHES)
    every = np.concatenate([in_scope, out_of_scope])
    edges = np.histogram_bin_edges(every, HISTOGRAM_BINS)
    for index, (name, scores) in enumerate((("in", in_scope), ("out of", out_of_scope))):
        axes.hist(
            scores,
            bins=edges,
            weights=np.full(len(scores), 100 / max(len(scores), 1)),
            color=f"C{index}",
            alpha=0.55,
            label=f"{name} scope, {len(scores):,} rows",
        )

    if threshold is not None:
        label = f"threshold {threshold:.3g}: below it out of scope"
        axes.axvline(threshold, color="0.2", linewidth=1.2, linestyle="--", label=label)

    axes.set(xlabel="score, higher is more in scope", ylabel="% of its rows")
    lighten(axes)
    set_title(axes, "Scores in scope and out of scope")
    add_legend(figure, axes)
    save_picture(figure, path)
