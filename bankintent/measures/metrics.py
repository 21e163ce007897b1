"""Quality of predictions, from logits and true labels. Arrays in, plain numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bankintent.measures.arrays import Bools, Floats, Ints
from bankintent.measures.calibration import expected_calibration_error, negative_log_likelihood
from bankintent.measures.proportions import clopper_pearson
from bankintent.measures.shares import in_percent

ROWS_AT_ONCE = 1024
"""Rows whose intermediate values are in memory, each with a number for every label."""

QUANTILES = (0.025, 0.975)
"""Ends of a 95 % percentile interval."""

SHOWN = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "top3_accuracy": "top-3 accuracy",
    "ece": "expected calibration error",
    "nll": "negative log-likelihood",
}
"""Metric -> its name in the table of a summary, in the order of the rows."""

NO_SHARES = ("ece", "nll")
"""Metrics that are shown as plain numbers, not in per cent."""


@dataclass(frozen=True)
class IntentScores:
    """The quality of one intent's predictions."""

    intent: str
    precision: float
    recall: float
    f1: float
    support: int
    """Rows that have this intent."""


@dataclass(frozen=True)
class ConfusedPair:
    """A kind of mistake: one intent predicted where another is true."""

    true: str
    predicted: str
    count: int
    examples: list[str]
    """Some of the sentences."""


@dataclass(frozen=True)
class IntentFigures:
    """Correct answers of A and of B among the rows of one intent, means over seeds."""

    intent: str
    rows: int
    """Rows that have this intent."""
    a_right: float
    b_right: float
    difference: float
    """Of A minus B."""


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, in float64."""
    # In place: of many rows and labels each copy is large.
    values = logits.astype(np.float64)
    # Without the shift exp() would overflow for large logits; it does not change the result.
    values -= values.max(axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def confusion(true: Ints, predicted: Ints, num_labels: int) -> Ints:
    """(labels, labels) counts, row = true label, column = predicted."""
    return _confusion_of_cells(_cells(true, predicted, num_labels), num_labels)


def _cells(true: Ints, predicted: Ints, num_labels: int) -> Ints:
    """(rows,) the index of each row's cell in the flattened confusion matrix."""
    return true * num_labels + predicted


def _confusion_of_cells(cells: Ints, num_labels: int) -> Ints:
    counts = np.bincount(cells, minlength=num_labels * num_labels)
    return counts.reshape(num_labels, num_labels)


def macro_f1(counts: Ints, counted: Bools | None = None) -> Floats:
    """Mean F1 over the labels that occur in truth or prediction, as scikit-learn's macro average.

    `counts` is (..., labels, labels); the result drops the last two axes. `counted` is (labels,):
    where it is given, the mean is over its labels alone, as far as they occur.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    denominators = counts.sum(axis=-1) + counts.sum(axis=-2)  # 2 TP + FP + FN
    return _mean_f1(hits, denominators, counted)


def _mean_f1(hits: Ints, denominators: Ints, counted: Bools | None) -> Floats:
    """The mean over the last axis, of labels; denominators are those of F1."""
    occurs = denominators > 0
    if counted is not None:
        occurs = occurs & counted

    f1 = np.divide(2 * hits, denominators, out=np.zeros(denominators.shape), where=occurs)
    # In a matrix of zeros no label occurs.
    num_occurring = np.maximum(occurs.sum(axis=-1), 1)
    return np.asarray(f1.sum(axis=-1) / num_occurring)


def occurring(true: Ints, num_labels: int) -> Bools:
    """(labels,) whether a label has rows.

    A table of one month lacks some intents. A model that predicts one of them is wrong in that row,
    which the F1 of the true intent shows; an F1 of 0 for an intent without rows would say nothing
    more, and pull the mean down for one wrong row as far as for a hundred.
    """
    return np.bincount(true, minlength=num_labels) > 0


@dataclass(frozen=True)
class Bootstrap:
    """How rows are resampled."""

    resamples: int
    seed: int
    repeats: int = 1
    """Copies of the same sentences among the rows, one after the other, each with other answers: a
    sentence is drawn with all of its answers, because they are no independent rows."""


def bootstrap_intervals(
    true: Ints, predicted: Ints, num_labels: int, bootstrap: Bootstrap
) -> dict[str, list[float]]:
    """95 % percentile intervals of accuracy and macro-F1 over resampled rows.

    Macro-F1 is that of `summary`. After Efron and Tibshirani (1993). Where all answers are right,
    or all are wrong, every resample has the same figures: then accuracy has the exact interval of a
    share, in which a sentence counts once, and macro-F1, which is no share, has none.
    """
    right = true == predicted
    if right.all() or not right.any():
        sentences = len(true) // bootstrap.repeats
        right_sentences = sentences if right.all() else 0
        return {"accuracy": clopper_pearson(right_sentences, sentences).ends()}

    resamples = bootstrap.resamples
    rng = np.random.default_rng(bootstrap.seed)
    cells = _sorted_cells(true, predicted, num_labels, bootstrap.repeats)

    # Accuracy and macro-F1 follow from the counts alone, so that cells are drawn in place of rows.
    accuracies = np.empty(resamples)
    f1s = np.empty(resamples)
    counted = occurring(true, num_labels)
    for index in range(resamples):
        sample = rng.choice(cells, size=len(cells)).ravel()
        # Counts of each label, not of each pair: with 2,000 labels there are 4 million pairs.
        sample_true, sample_predicted = np.divmod(sample, num_labels)
        hits = np.bincount(sample_true[sample_true == sample_predicted], minlength=num_labels)
        denominators = np.bincount(sample_true, minlength=num_labels)
        denominators += np.bincount(sample_predicted, minlength=num_labels)

        accuracies[index] = hits.sum() / len(sample)
        f1s[index] = _mean_f1(hits, denominators, counted)
    return {"accuracy": percentile_interval(accuracies), "macro_f1": percentile_interval(f1s)}


def _sorted_cells(true: Ints, predicted: Ints, num_labels: int, repeats: int) -> Ints:
    """(rows,) or (sentences, repeats) cells of the confusion matrix, in an order of their own.

    Sorting makes the intervals independent of the order of the rows.
    """
    cells = _cells(true, predicted, num_labels)
    if repeats == 1:
        return np.sort(cells)
    of_sentences = cells.reshape(repeats, -1).T
    return of_sentences[np.lexsort(of_sentences.T)]


def percentile_interval(values: Floats) -> list[float]:
    """Lower and upper end of the 95 % interval of a figure that was computed on resamples."""
    return [float(quantile) for quantile in np.quantile(values, QUANTILES)]


def summary(logits: Floats, true: Ints, probabilities: Floats | None = None) -> dict[str, float]:
    """The metrics that every epoch and every report shows; `logits` are (rows, labels).

    Macro-F1 is the mean over the labels that have rows. The probabilities are the softmax of the
    logits where none are given; given ones have the same order.
    """
    num_labels = logits.shape[1]
    predicted = logits.argmax(axis=1)
    counts = confusion(true, predicted, num_labels)

    if probabilities is None:
        probabilities = softmax(logits)
    scores = probabilities.max(axis=1)
    return {
        "accuracy": float((predicted == true).mean()),
        "macro_f1": float(macro_f1(counts, occurring(true, num_labels))),
        "top3_accuracy": float(_in_best(logits, true, 3).mean()),
        "ece": expected_calibration_error(scores, predicted == true),
        "nll": negative_log_likelihood(probabilities, true),
    }


def _in_best(logits: Floats, true: Ints, count: int) -> Bools:
    """(rows,) whether the true label is among the `count` with the highest logits."""
    place = min(count, logits.shape[1])
    found = np.empty(len(logits), dtype=bool)
    for start in range(0, len(logits), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        # A partition, because the order within the best does not matter.
        best = np.argpartition(-logits[rows], place - 1, axis=1)[:, :place]
        found[rows] = (best == true[rows, None]).any(axis=1)
    return found


def overview(
    values: dict[str, float], intervals: dict[str, list[float]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of a summary, for the terminal and for Markdown alike."""
    header = ["metric", "value", "95 % interval"]
    rows = []
    for key, name in SHOWN.items():
        value = values[key]
        text = f"{value:.4f}" if key in NO_SHARES else in_percent(value)
        rows.append([name, text, _show_interval(intervals.get(key))])
    return header, rows


def _show_interval(interval: list[float] | None) -> str:
    if not interval:
        return ""
    low, high = interval
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def per_intent(counts: Ints, names: tuple[str, ...]) -> list[IntentScores]:
    """The scores of each label, in id order; `counts` is (labels, labels)."""
    hits = np.diag(counts)
    support = counts.sum(axis=1)
    predictions = counts.sum(axis=0)

    rows = []
    for index, name in enumerate(names):
        rows.append(
            IntentScores(
                intent=name,
                precision=_ratio(hits[index], predictions[index]),
                recall=_ratio(hits[index], support[index]),
                f1=_ratio(2 * hits[index], support[index] + predictions[index]),
                support=int(support[index]),
            )
        )
    return rows


def _ratio(part: int, whole: int) -> float:
    """A share; 0 where the whole is empty, as for an intent that is never predicted."""
    if whole == 0:
        return 0.0
    return float(part / whole)


def confused_pairs(
    true: Ints,
    predicted: Ints,
    texts: Sequence[str],
    names: tuple[str, ...],
    most: int = 10,
    examples: int = 2,
) -> list[ConfusedPair]:
    """The most frequent mistakes, each with some of its sentences."""
    counts = confusion(true, predicted, len(names))
    np.fill_diagonal(counts, 0)
    # Stable: of equally frequent mistakes the one with the lower ids comes first, on any machine.
    most_frequent = np.argsort(-counts, axis=None, kind="stable")[:most]

    pairs = []
    for cell in most_frequent:
        true_id, predicted_id = divmod(int(cell), len(names))
        count = int(counts[true_id, predicted_id])
        if count == 0:
            break

        rows = np.flatnonzero((true == true_id) & (predicted == predicted_id))
        # Sorted, so that the examples do not depend on the order of the rows.
        sentences = sorted(texts[row] for row in rows.tolist())
        pairs.append(
            ConfusedPair(
                true=names[true_id],
                predicted=names[predicted_id],
                count=count,
                examples=sentences[:examples],
            )
        )
    return pairs
