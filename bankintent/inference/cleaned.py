"""A second figure beside the official one: without the rows whose label an audit suspects."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bankintent.config import EvalConfig
from bankintent.corpus import suspected_test
from bankintent.errors import DataError
from bankintent.inference.evaluation import CleanedRecord, Evaluation
from bankintent.inference.labelled import EvaluationData
from bankintent.inference.predicted import Predicted
from bankintent.measures import selective
from bankintent.measures.arrays import Bools
from bankintent.measures.metrics import Bootstrap
from bankintent.measures.proportions import clopper_pearson
from bankintent.measures.shares import in_percent

MARK = "Not the official figure"
"""Before the line, so that nobody quotes it as the result."""


def find_suspected(path: Path | None, data: EvaluationData) -> Bools | None:
    """(rows,) whether a row is suspected; None where no file is named.

    Raises DataError where the file is not one, or where it is of other rows.
    """
    if path is None:
        return None

    suspected = suspected_test.read(path)
    found = np.array(suspected.find(data.rows, data.labels.names), dtype=np.bool_)
    if suspected.suspected and not found.any():
        raise DataError(
            f"{path}: none of its {len(suspected.suspected):,} rows is among those of"
            f" {data.source.where}",
            "Name the file of an audit of these data, or leave --without out",
        )
    if found.all():
        raise DataError(f"{path} names every row", "Leave --without out")
    return found


def beside(
    result: Evaluation,
    predicted: Predicted,
    data: EvaluationData,
    suspected: Bools | None,
    config: EvalConfig,
) -> Evaluation:
    """The evaluation with the figures of the other rows; as it is where none are suspected."""
    if suspected is None:
        return result

    kept = ~suspected
    repeats = data.source.repeats
    decisions = predicted.decisions
    right = (decisions.labels == np.asarray(data.rows.labels))[kept]
    bootstrap = Bootstrap(config.bootstrap, config.seed, repeats)
    figures = selective.measure_selective(decisions.scores[kept], right, bootstrap)
    cleaned = CleanedRecord(
        about=f"{MARK}: without the rows whose label an audit suspects",
        left_out=int(suspected.sum()) // repeats,
        rows=int(kept.sum()) // repeats,
        accuracy=float(right.mean()),
        interval=clopper_pearson(int(right.sum()), len(right)).ends(),
        coverage_at=figures.coverage_at,
    )
    return replace(result, cleaned=cleaned)


def describe_cleaned(cleaned: CleanedRecord) -> str:
    """One line for the terminal and the report."""
    low, high = cleaned.interval
    coverages = []
    for point in cleaned.coverage_at:
        coverages.append(f"{in_percent(point.coverage)} at {100 * point.precision:g} % precision")
    return (
        f"{cleaned.about} ({cleaned.left_out:,} of {cleaned.left_out + cleaned.rows:,} rows),"
        f" accuracy is {in_percent(cleaned.accuracy)}"
        f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        f" and coverage {' and '.join(coverages)}."
    )
