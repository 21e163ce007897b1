"""Quality of predictions, from logits and true labels. Arrays in, plain numbers out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

ECE_BINS = 15
SHOWN = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "top3_accuracy": "top-3 accuracy",
    "ece": "expected calibration error",
    "nll": "negative log-likelihood",
}
"""What tables show of a summary, and how they name it."""


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def confusion(true: Ints, predicted: Ints, labels: int) -> Ints:
    """(labels, labels) counts, row = true label, column = predicted."""
    return np.bincount(true * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def macro_f1(counts: Ints) -> Floats:
    """Mean F1 over the labels that occur in truth or prediction, as scikit-learn's macro average.

    `counts` is (..., labels, labels); the result drops the last two axes.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support = counts.sum(axis=-1) + counts.sum(axis=-2)  # 2 TP + FP + FN
    f1 = np.divide(2 * hits, support, out=np.zeros(support.shape), where=support > 0)
    return np.asarray(f1.sum(axis=-1) / np.maximum((support > 0).sum(axis=-1), 1))


def expected_calibration_error(probabilities: Floats, true: Ints, bins: int = ECE_BINS) -> float:
    """Mean distance of confidence and accuracy over equal-width bins of confidence (Guo et al., 2017)."""
    found = reliability(probabilities, true, bins)
    return float(sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in found) / len(true))


def reliability(probabilities: Floats, true: Ints, bins: int = ECE_BINS) -> list[dict[str, float]]:
    """For each non-empty bin of confidence: its rows, mean confidence and accuracy."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == true
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "rows": int((index == b).sum()),
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(correct[index == b].mean()),
        }
        for b in np.unique(index)
    ]


def bootstrap_intervals(
    true: Ints, predicted: Ints, labels: int, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals of accuracy and macro-F1 over resampled rows (Efron and Tibshirani, 1993)."""
    rng = np.random.default_rng(seed)
    # Sorting the rows first makes the interval independent of the order in which they were given.
    cells = np.sort(true * labels + predicted)
    accuracies, f1s = np.empty(resamples), np.empty(resamples)
    for i in range(resamples):
        sample = rng.choice(cells, size=len(cells))
        counts = np.bincount(sample, minlength=labels * labels).reshape(labels, labels)
        accuracies[i] = np.trace(counts) / len(cells)
        f1s[i] = macro_f1(counts)
    return {
        "accuracy": [float(q) for q in np.quantile(accuracies, (0.025, 0.975))],
        "macro_f1": [float(q) for q in np.quantile(f1s, (0.025, 0.975))],
    }


def summary(logits: Floats, true: Ints) -> dict[str, float]:
    """The few numbers that every epoch and every report shows."""
    labels = logits.shape[1]
    predicted = logits.argmax(axis=1)
    probabilities = softmax(logits)
    top3 = np.argpartition(-logits, min(3, labels) - 1, axis=1)[:, :3]
    return {
        "accuracy": float((predicted == true).mean()),
        "macro_f1": float(macro_f1(confusion(true, predicted, labels))),
        "top3_accuracy": float((top3 == true[:, None]).any(axis=1).mean()),
        "ece": expected_calibration_error(probabilities, true),
        "nll": float(-np.log(np.maximum(probabilities[np.arange(len(true)), true], 1e-12)).mean()),
    }


def overview(
    values: dict[str, float], intervals: dict[str, list[float]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of a summary, for the terminal and for Markdown alike."""
    body = []
    for key, name in SHOWN.items():
        interval = intervals.get(key)
        value = f"{values[key]:.4f}" if key in ("ece", "nll") else f"{100 * values[key]:.2f} %"
        body.append(
            [
                name,
                value,
                f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %" if interval else "",
            ]
        )
    return ["metric", "value", "95 % interval"], body


def per_intent(counts: Ints, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support for each label, in id order."""
    hits, support, guessed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [
        {
            "intent": name,
            "precision": float(hits[i] / guessed[i]) if guessed[i] else 0.0,
            "recall": float(hits[i] / support[i]) if support[i] else 0.0,
            "f1": float(2 * hits[i] / (support[i] + guessed[i]))
            if support[i] + guessed[i]
            else 0.0,
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    ]


def confused_pairs(
    true: Ints,
    predicted: Ints,
    texts: list[str],
    names: tuple[str, ...],
    most: int = 10,
    examples: int = 2,
) -> list[dict[str, Any]]:
    """The most frequent (true, predicted) mistakes with some of their sentences."""
    counts = confusion(true, predicted, len(names))
    np.fill_diagonal(counts, 0)
    pairs = []
    for flat in np.argsort(-counts, axis=None, kind="stable")[:most]:
        i, j = divmod(int(flat), len(names))
        if counts[i, j] == 0:
            break
        rows = np.flatnonzero((true == i) & (predicted == j))
        sentences = sorted(texts[row] for row in rows)[:examples]
        pairs.append(
            {
                "true": names[i],
                "predicted": names[j],
                "count": int(counts[i, j]),
                "examples": sentences,
            }
        )
    return pairs
