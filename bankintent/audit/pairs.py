"""The pairs of intents that are confused most, their nearest sentences, and a line of guidance."""

import warnings
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.audit.answers import Answers
from bankintent.audit.quick import nearest_rows
from bankintent.audit.rows import AuditRows
from bankintent.files import JsonObject

SENTENCES = 3
"""Pairs of nearest sentences that are shown of a pair of intents."""

TERMS = 4
"""Words or pairs of words that a guideline names of each intent."""

TELLING = frozenset(
    {"again", "already", "back", "cannot", "cant", "how", "many", "much", "never", "no", "not"}
    | {
        "off",
        "out",
        "up",
        "still",
        "twice",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "without",
    }
)
"""Words of scikit-learn's English stop list that may tell two intents apart."""

WORD = r"[^\W_]{2,}"
"""What is a word of a sentence."""

LEAST_ROWS = 2
"""Sentences of an intent that hold a term, at least, for a guideline to name it."""


@dataclass(frozen=True)
class NearSentences:
    """Two sentences of two intents that are near each other."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True)
class ConfusablePair:
    """Two intents that are hard to tell apart."""

    first: str
    second: str
    first_as_second: int
    """Rows of the first that are answered with the second, out of fold."""
    second_as_first: int
    rows: int
    """Judged rows of the two."""
    confusion: float
    """The mean probability of the other intent over the rows of both."""
    sentences: list[NearSentences]
    first_terms: list[str]
    """Words that speak for the first intent against the second."""
    second_terms: list[str]
    guideline: str
    """A suggestion, made of the names and the terms, for people to correct."""

    def to_json(self) -> JsonObject:
        """The pair as plain JSON values."""
        return asdict(self)


def find_pairs(rows: AuditRows, answers: Answers, count: int) -> list[ConfusablePair]:
    """The `count` pairs of intents with the highest confusion, worst first."""
    matrix = confusion(rows.labels, answers)
    firsts, seconds = np.triu_indices(len(rows.names), k=1)
    values = matrix[firsts, seconds]

    pairs = []
    for place in np.argsort(-values, kind="stable")[:count].tolist():
        if values[place] > 0:
            pairs.append(_describe(rows, answers, int(firsts[place]), int(seconds[place])))
    return pairs


def confusion(labels: NDArray[np.int64], answers: Answers) -> NDArray[np.float64]:
    """(labels, labels), symmetric: the mean probability of an intent over the rows of another."""
    num_labels = answers.probabilities.shape[1]
    rows = np.flatnonzero(answers.judged)
    sums = np.zeros((num_labels, num_labels))
    np.add.at(sums, labels[rows], answers.probabilities[rows])

    counts = np.bincount(labels[rows], minlength=num_labels)
    together = np.maximum(counts[:, None] + counts[None, :], 1)
    return np.asarray((sums + sums.T) / together)


def _describe(rows: AuditRows, answers: Answers, first: int, second: int) -> ConfusablePair:
    labels = rows.labels
    own = answers.judged & ((labels == first) | (labels == second))
    of_first = np.flatnonzero(own & (labels == first))
    of_second = np.flatnonzero(own & (labels == second))

    predicted = answers.probabilities.argmax(axis=1)
    shares = answers.probabilities
    other = float(shares[of_first, second].sum() + shares[of_second, first].sum())

    first_terms, second_terms = _separating_terms(rows, of_first, of_second)
    names = (rows.names[first], rows.names[second])
    return ConfusablePair(
        first=names[0],
        second=names[1],
        first_as_second=int((predicted[of_first] == second).sum()),
        second_as_first=int((predicted[of_second] == first).sum()),
        rows=len(of_first) + len(of_second),
        confusion=other / (len(of_first) + len(of_second)),
        sentences=_nearest_sentences(rows, answers, of_first, of_second),
        first_terms=first_terms,
        second_terms=second_terms,
        guideline=write_guideline(names, first_terms, second_terms),
    )


def _nearest_sentences(
    rows: AuditRows, answers: Answers, of_first: NDArray[np.int64], of_second: NDArray[np.int64]
) -> list[NearSentences]:
    """The nearest sentences of two intents, each sentence once."""
    if not len(of_first) or not len(of_second):
        return []

    vectors = answers.vectors
    count = min(SENTENCES, len(of_second))
    nearest, cosines = nearest_rows(vectors[of_first], vectors[of_second], count)
    found = []
    used: set[int] = set()
    for place in np.argsort(-cosines, axis=None, kind="stable").tolist():
        row = int(of_first[place // count])
        other = int(of_second[nearest.flat[place]])
        if used & {row, other}:
            continue
        used |= {row, other}
        texts = (rows.rows.texts[row], rows.rows.texts[other])
        found.append(NearSentences(*texts, float(cosines.flat[place])))
        if len(found) == SENTENCES:
            break
    return found


def _separating_terms(
    rows: AuditRows, of_first: NDArray[np.int64], of_second: NDArray[np.int64]
) -> tuple[list[str], list[str]]:
    """The terms of each of two intents with most weight in a regression between the two."""
    # Late, because it is slow to import.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([of_first, of_second])
    texts = [rows.rows.texts[row] for row in both.tolist()]
    is_second = np.arange(len(both)) >= len(of_first)
    if is_second.all() or not is_second.any():
        return [], []

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=LEAST_ROWS, token_pattern=WORD)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError:
        # No word stands in two of the sentences.
        return [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(class_weight="balanced").fit(weights, is_second)

    terms = zip(vectorizer.get_feature_names_out().tolist(), model.coef_[0].tolist(), strict=True)
    # Heaviest first; of equals the shorter, which says the same.
    ordered = sorted(terms, key=lambda term: (-round(abs(term[1]), 6), len(term[0])))
    for_first = [name for name, weight in ordered if weight < 0]
    for_second = [name for name, weight in ordered if weight > 0]
    return _different(for_first), _different(for_second)


def _different(terms: list[str]) -> list[str]:
    """The first TERMS of the terms that say something, no word twice."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    without_topic = ENGLISH_STOP_WORDS - TELLING
    chosen: list[str] = []
    for term in terms:
        words = set(term.split())
        if words & without_topic:
            continue
        if not any(words & set(other.split()) for other in chosen):
            chosen.append(term)
        if len(chosen) == TERMS:
            break
    return chosen


def write_guideline(names: tuple[str, str], first: list[str], second: list[str]) -> str:
    """A line for people who label, made of two names and the terms that separate them."""
    parts = []
    for name, terms in zip(names, (first, second), strict=True):
        if terms:
            listed = ", ".join(f'"{term}"' for term in terms)
            parts.append(f"{name} where the sentence speaks of {listed}")
    if not parts:
        return (
            f"{names[0]} or {names[1]}: no words tell the two apart; say in a sentence what does,"
            " or make them one intent"
        )
    return "; ".join(parts)
