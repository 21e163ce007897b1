"""Pictures of an evaluation, as PNG files, without a display."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bankintent.measures.metrics import Ints

PLAIN = {"Software": None}
"""PNG metadata that would change with the version of matplotlib."""

PLAIN_TEXT = {"text.parse_math": False}
"""A dollar sign in a label is text, not the start of a formula."""


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
        axes.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=font - 1.5, color=colour)
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


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = PLAIN
    figure.savefig(path, metadata=metadata)
