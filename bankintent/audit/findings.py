"""What an audit has found: the rows to review, pairs of intents, names that are alike."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bankintent.audit import alike, pairs, suspects
from bankintent.audit.alike import Contradiction
from bankintent.audit.answers import Answers
from bankintent.audit.pairs import ConfusablePair
from bankintent.audit.quick import nearest_rows
from bankintent.audit.review import Neighbour, ReviewRow
from bankintent.audit.rows import AuditRows
from bankintent.config import AuditConfig
from bankintent.corpus.patches import text_key
from bankintent.files import JsonObject

LABEL_ERROR = "label_error"
NEAR_DUPLICATE = "near_duplicate"
"""Kinds of rows: the models answer otherwise; another row says nearly the same with another intent.
"""

Reviewed = set[tuple[str, str]]
"""Hash of the text, and label, of each row that a person has found to be right."""


@dataclass(frozen=True)
class Share:
    """Some of a number of rows, with the interval of their share."""

    count: int
    of: int
    interval: list[float]
    """95 % interval of count / of (Wilson, 1927)."""


@dataclass(frozen=True)
class Findings:
    """The content of an audit's folder."""

    method: str
    accuracy: float
    """Share of the judged rows whose label is the answer out of fold."""
    rows: int
    judged: int
    suspected: Share
    """Rows whose label is suspected by the models."""
    contradicting: Share
    """Rows that another row contradicts, nearly word for word."""
    reviewed: int
    """Rows that were found but are not listed: a person has decided to keep them."""
    alike_names: list[dict[str, int]]
    pairs: list[ConfusablePair]
    review: list[ReviewRow]
    """The surest first."""

    def to_json(self) -> JsonObject:
        """report.json: everything but the rows, which have files of their own."""
        content: dict[str, Any] = {}
        for name, value in vars(self).items():
            content[name] = asdict(value) if isinstance(value, Share) else value
        content["pairs"] = [pair.to_json() for pair in self.pairs]
        content["review"] = len(self.review)
        content["kinds"] = self.kinds
        return content

    @property
    def kinds(self) -> dict[str, int]:
        """Rows of the review by kind."""
        counts: dict[str, int] = {}
        for row in self.review:
            counts[row.kind] = counts.get(row.kind, 0) + 1
        return counts


def find(rows: AuditRows, answers: Answers, settings: AuditConfig, reviewed: Reviewed) -> Findings:
    """Look at every label; rows that a person has decided to keep are not listed again."""
    labels = rows.labels
    suspected = suspects.find_suspects(labels, answers, settings.filter)
    contradictions = {found.row: found for found in alike.find_contradictions(rows, answers)}

    found_rows = sorted({*np.flatnonzero(suspected).tolist(), *contradictions})
    listed = [row for row in found_rows if not _is_reviewed(rows, row, reviewed)]
    margin = suspects.margins(labels, answers)
    # The surest first: a person who stops halfway has decided on what matters most.
    listed.sort(key=lambda row: (-margin[row], row))

    nearest = _nearest(answers, listed, settings.neighbours)
    review = []
    for row, near in zip(listed, nearest, strict=True):
        is_suspected = bool(suspected[row])
        review.append(_describe(rows, answers, row, is_suspected, contradictions.get(row), near))

    return Findings(
        method=answers.method,
        accuracy=answers.share_right(labels),
        rows=len(rows),
        judged=int(answers.judged.sum()),
        suspected=share(int(suspected.sum()), int(answers.judged.sum())),
        contradicting=share(len(contradictions), len(rows)),
        reviewed=len(found_rows) - len(listed),
        alike_names=alike.alike_names(rows),
        pairs=pairs.find_pairs(rows, answers, settings.pairs),
        review=review,
    )


def share(count: int, of: int) -> Share:
    """A count with the interval of its share."""
    # Late, because it is slow to import.
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return Share(count, of, [float(interval.low), float(interval.high)])


def _is_reviewed(rows: AuditRows, row: int, reviewed: Reviewed) -> bool:
    label = rows.names[rows.rows.labels[row]]
    return (text_key(rows.rows.texts[row]), label) in reviewed


def _nearest(answers: Answers, listed: list[int], count: int) -> list[list[tuple[int, float]]]:
    """For each listed row the nearest other rows and their cosines."""
    vectors = answers.vectors
    most = min(count + 1, len(vectors))
    found: list[list[tuple[int, float]]] = []
    if not listed:
        return found

    nearest, cosines = nearest_rows(vectors[listed], vectors, most)
    for row, others, values in zip(listed, nearest.tolist(), cosines.tolist(), strict=True):
        near = [(other, value) for other, value in zip(others, values, strict=True) if other != row]
        found.append(near[:count])
    return found


def _describe(
    rows: AuditRows,
    answers: Answers,
    row: int,
    is_suspected: bool,
    contradiction: Contradiction | None,
    near: list[tuple[int, float]],
) -> ReviewRow:
    labels = rows.rows.labels
    probabilities: NDArray[np.float64] = answers.probabilities[row]
    kinds = []
    suggested = int(probabilities.argmax())
    if is_suspected:
        kinds.append(LABEL_ERROR)
    if contradiction is not None:
        kinds.append(NEAR_DUPLICATE)
        near = _with_twin(answers, row, contradiction.other, near)
        # The models of the folds may say a third intent; the twin is what contradicts the row.
        if not is_suspected:
            suggested = labels[contradiction.other]

    neighbours = []
    for other, cosine in near:
        name = rows.names[labels[other]]
        neighbours.append(Neighbour(rows.rows.texts[other], name, round(cosine, 4)))
    return ReviewRow(
        id=rows.rows.ids[row],
        split=rows.splits[row],
        text=rows.rows.texts[row],
        given=rows.names[labels[row]],
        suggested=rows.names[suggested],
        confidence=round(float(probabilities[suggested]), 6),
        given_confidence=round(float(probabilities[labels[row]]), 6),
        kind="+".join(kinds),
        neighbours=neighbours,
    )


def _with_twin(
    answers: Answers, row: int, twin: int, near: list[tuple[int, float]]
) -> list[tuple[int, float]]:
    """The neighbours with the row's twin before them."""
    cosine = float(answers.vectors[row] @ answers.vectors[twin])
    others = [(other, value) for other, value in near if other != twin]
    return [(twin, cosine), *others][: max(len(near), 1)]
