"""Which texts are nearly the same, by a measure of two texts alone.

The other texts of a corpus do not matter for it: what is near stays near, whatever rows are added.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.93
"""Cosine of the counts of character 3- to 5-grams from which two texts are nearly the same. On
BANKING77 and CLINC150 it finds about as many pairs as a cosine of 0.95 with TF-IDF weights, which
would depend on the whole corpus."""

BLOCK = 50
"""Texts that are compared at a time: a block has candidates among a part of the others only."""

ROUNDING = 1e-5
"""More than the error of a sum of squares in 32-bit floats."""


Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearPairs:
    """Pairs of nearly the same texts, as aligned arrays."""

    first: Ints
    """Index of a text."""
    second: Ints
    """Index of a later text."""
    similarity: Floats
    """From NEAR to 1; rounding, or n-grams in another order, may reach 1."""

    def take(self, chosen: NDArray[np.bool_]) -> "NearPairs":
        return NearPairs(self.first[chosen], self.second[chosen], self.similarity[chosen])


@dataclass(frozen=True)
class Nearest:
    """Of each text the most similar one among some of the texts; the arrays are aligned."""

    index: Ints
    """-1 where none is near."""
    similarity: Floats

    def take_in(self, pairs: NearPairs, marked: NDArray[np.bool_]) -> None:
        """Take in pairs of texts, of those texts that are marked."""
        forward = pairs.take(marked[pairs.second])
        self.update(forward.first, forward.second, forward.similarity)
        backward = pairs.take(marked[pairs.first])
        self.update(backward.second, backward.first, backward.similarity)

    def update(self, texts: Ints, others: Ints, similarity: Floats) -> None:
        """Take in pairs of a text and one of the others."""
        better = similarity > self.similarity[texts]
        # Where a text stands several times the last assignment counts: that of the most similar
        # one, and of equals the first.
        order = np.lexsort((-others[better], similarity[better]))

        self.index[texts[better][order]] = others[better][order]
        self.similarity[texts[better][order]] = similarity[better][order]


def find_nearest(texts: Sequence[str], among: list[NDArray[np.bool_]]) -> list[Nearest]:
    """For each of the masks `among`, the near texts that it marks; a text itself does not count.

    The texts are normalised and all different.
    """
    found = []
    for _ in among:
        none = np.full(len(texts), -1, dtype=np.int64)
        found.append(Nearest(none, np.zeros(len(texts), dtype=np.float32)))

    for pairs in near_pairs(texts):
        for nearest, marked in zip(found, among, strict=True):
            nearest.take_in(pairs, marked)
    return found


def families(texts: Sequence[str]) -> list[int]:
    """The number of each text's family: texts are of one family where near pairs connect them.

    A family has the number of its first text. The texts are normalised and all different.
    """
    # Imported here, because it is slow to import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(texts)
    component_of_text = np.arange(size)
    # Block by block: the pairs of texts from one template may be too many to hold.
    for pairs in near_pairs(texts):
        ends = (component_of_text[pairs.first], component_of_text[pairs.second])
        edges = coo_array((np.ones(len(pairs.first)), ends), shape=(size, size))
        _, merged = connected_components(edges, directed=False)
        component_of_text = merged[component_of_text]

    first_of_component: dict[int, int] = {}
    numbers = []
    for index, component in enumerate(component_of_text.tolist()):
        numbers.append(first_of_component.setdefault(component, index))
    return numbers


def near_pairs(texts: Sequence[str]) -> Iterator[NearPairs]:
    """Every pair of nearly the same texts, some at a time; the texts are normalised, all different.

    Texts with different signs, such as `$` and `€` or two emoji, are never nearly the same.
    """
    if len(texts) < 2:
        return

    kinds: dict[str, int] = {}
    signs = np.array([kinds.setdefault(_signs(text), len(kinds)) for text in texts])
    for pairs in _similar_rows(_count_grams(texts)):
        same_signs = pairs.take(signs[pairs.first] == signs[pairs.second])
        if len(same_signs.first):
            yield same_signs


def similarities(first: Sequence[str], second: Sequence[str]) -> Floats:
    """How similar each text is to the one beside it; 0 where their signs differ."""
    if not first:
        return np.zeros(0, dtype=np.float32)

    grams = _weigh_grams([*first, *second])
    products = grams[: len(first)].multiply(grams[len(first) :])
    found = np.asarray(products.sum(axis=1), dtype=np.float32).ravel()
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if found[index] >= NEAR and _signs(one) != _signs(other):
            found[index] = 0
    return found


def _signs(text: str) -> str:
    """The symbols and punctuation marks of a text, sorted."""
    signs = [sign for sign in text if unicodedata.category(sign)[0] in "SP"]
    return "".join(sorted(signs))


def _weigh_grams(texts: Sequence[str]) -> Any:
    """(texts, n-grams), sparse: counts, each row of length 1."""
    # Imported here because it takes seconds, and a fault of the source should show before that.
    from sklearn.feature_extraction.text import TfidfVectorizer

    # 32-bit counts need half the memory, and two decimals of the cosine are enough.
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), use_idf=False, dtype=np.float32
    )
    return vectorizer.fit_transform(texts)


def _count_grams(texts: Sequence[str]) -> Any:
    """As `_weigh_grams`, with rare n-grams in the first columns."""
    from scipy.sparse import csr_array

    counts = _weigh_grams(texts)

    texts_with_gram = np.bincount(counts.indices, minlength=counts.shape[1])
    column_of_gram = np.empty(len(texts_with_gram), dtype=np.int64)
    column_of_gram[np.argsort(texts_with_gram, kind="stable")] = np.arange(len(texts_with_gram))

    columns = column_of_gram[counts.indices]
    ordered = csr_array((counts.data, columns, counts.indptr), shape=counts.shape)
    ordered.sort_indices()
    return ordered


def _similar_rows(grams: Any) -> Iterator[NearPairs]:
    """All pairs of rows with a cosine of at least NEAR, a block of rows at a time."""
    heads = _heads(grams)
    heads_by_gram = heads.T.tocsr()

    for start in range(0, grams.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        # Two near texts share an n-gram of their heads: few others have to be compared.
        candidates = np.unique((heads[block] @ heads_by_gram).indices)
        candidates = candidates[candidates > start]

        similarities = (grams[block] @ grams[candidates].T).tocoo()
        rows = similarities.row + start
        others = candidates[similarities.col]
        pairs = NearPairs(rows, others, similarities.data)
        yield pairs.take((similarities.data >= NEAR) & (rows < others))


def _heads(grams: Any) -> Any:
    """Of each row the rarest n-grams, as ones: enough that the rest is shorter than NEAR.

    A cosine of NEAR cannot come from the rest alone, so that two near rows have an n-gram of both
    heads in common (prefix filtering; Bayardo, Ma and Srikant, 2007).
    """
    from scipy.sparse import csr_array

    in_head = np.zeros(grams.nnz, dtype=np.float32)
    for row in range(grams.shape[0]):
        cells = slice(grams.indptr[row], grams.indptr[row + 1])
        in_head[cells] = _is_head(grams.data[cells])

    # Copies, because zeros are removed in place.
    heads = csr_array((in_head, grams.indices.copy(), grams.indptr.copy()), shape=grams.shape)
    heads.eliminate_zeros()
    return heads


def _is_head(weights: NDArray[np.float32]) -> NDArray[np.bool_]:
    """For each weight of a row, whether the row from there on has a length of at least NEAR."""
    squares_from_here = np.cumsum(weights[::-1] ** 2)[::-1]
    return np.asarray(squares_from_here >= NEAR**2 - ROUNDING)
