"""The index of a bundle: the sentences that its model was trained on, as vectors.

The vectors are what the last layer reads of each sentence, so that near is near to this model. The
texts are there only where the run was told so: they may be words of customers.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save_file

from bankintent import files, typed_json
from bankintent.bundle import inside, layout
from bankintent.bundle.record import Manifest
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from bankintent.measures.unit_vectors import normalise
from bankintent.texts import shorten

if TYPE_CHECKING:
    # Serving reads an index and needs no pyarrow.
    from bankintent.corpus.dataset import SplitData

FOLDER = "index"
"""Its folder in a bundle."""

VECTORS = "vectors.safetensors"
ROWS = "rows.json"

FORMAT = 1
"""Number of the form of `rows.json`; a reader refuses one that it does not know."""

MOST_ROWS = 50_000
"""Most sentences of an index; of more, as many of each intent as there is room for."""

LARGEST_VECTORS = 1 << 27
"""Most bytes of the vectors in their file; of wide ones there are fewer."""

LONGEST_TEXT = 240
"""Characters of a text that are kept."""

ADVICE = "Copy or train the bundle again"

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class IndexRows:
    """The content of `rows.json`."""

    format: int
    labels_hash: str
    trained_on: int
    """Sentences that the model was trained on; the index may have fewer."""
    ids: list[str]
    """Of the rows in ETL's output, in the order of the vectors."""
    texts: list[str] | None
    """None where the run keeps its texts to itself."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where it is no index of this form."""
        rows = typed_json.parse(cls, text)
        if rows.format != FORMAT:
            raise ValueError(f"its format is {rows.format}, this version reads {FORMAT}")
        return rows


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sentence of training that is near to a text."""

    id: str
    """Of its row in ETL's output."""
    label: int
    """Id of its intent."""
    similarity: float
    """Cosine of the two vectors, from -1 to 1."""
    text: str | None
    """None where the bundle does not hold the texts."""


@dataclass(frozen=True)
class SentenceIndex:
    """The index of a bundle in memory.

    It takes twice the bytes of its file: float16 is widened once, which takes longer than all the
    products with one text.
    """

    vectors: Vectors
    """(sentences, width), each of length 1."""
    labels: NDArray[np.int32]
    """(sentences,) ids of their intents."""
    rows: IndexRows

    @property
    def width(self) -> int:
        """Of the vectors, and of the features that it is asked with."""
        return int(self.vectors.shape[1])

    def nearest(self, features: Vectors, count: int) -> list[list[Neighbour]]:
        """The nearest sentences of each text, the nearest first; `features` are (texts, width).

        Of equally near ones the earlier row of the index comes first.
        """
        similarities = normalise(features) @ self.vectors.T
        found = []
        for row in similarities:
            order = np.argsort(-row, kind="stable")[:count]
            found.append([self._neighbour(int(place), float(row[place])) for place in order])
        return found

    def _neighbour(self, place: int, similarity: float) -> Neighbour:
        texts = self.rows.texts
        return Neighbour(
            id=self.rows.ids[place],
            label=int(self.labels[place]),
            similarity=similarity,
            text=None if texts is None else texts[place],
        )


def choose(labels: list[int], most: int = MOST_ROWS) -> list[int]:
    """Indices of at most so many rows, in their order: of each intent the same number, or all.

    The rows of an intent are taken at even distances.
    """
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)

    chosen: list[int] = []
    left = most
    # The smallest intents first: what they do not need is for the others.
    groups = sorted(by_label.values(), key=len)
    for number, rows in enumerate(groups):
        share = min(len(rows), left // (len(groups) - number))
        places = np.arange(share) * len(rows) // max(1, share)
        chosen += [rows[place] for place in places]
        left -= share
    return sorted(chosen)


def write(
    bundle: Path,
    labels: LabelSchema,
    rows: "SplitData",
    features: Vectors,
    *,
    trained_on: int,
    with_texts: bool,
) -> None:
    """Write the index into a bundle that is not yet sealed; `features` are (rows, width)."""
    assert len(features) == len(rows)
    room = LARGEST_VECTORS // (2 * features.shape[1])
    chosen = choose(rows.labels, min(MOST_ROWS, room))
    kept = rows.take(chosen)

    folder = files.make_empty(bundle / FOLDER)
    arrays = {
        "vectors": normalise(features[chosen]).astype(np.float16),
        "labels": np.asarray(kept.labels, dtype=np.int32),
    }
    save_file(arrays, folder / VECTORS)

    texts = [shorten(text, LONGEST_TEXT) for text in kept.texts] if with_texts else None
    record = IndexRows(FORMAT, labels.hash, trained_on, list(kept.ids), texts)
    files.write_text(folder / ROWS, json.dumps(asdict(record), ensure_ascii=False) + "\n")


def read(root: Path, manifest: Manifest | None, labels: LabelSchema) -> SentenceIndex | None:
    """The index of a bundle, verified; None for a plain checkpoint and where there is none.

    Raises ModelError where a file was changed, or is no index of a model with these labels.
    """
    # A copy of a bundle may hold no more than what serving needs.
    if manifest is None or not manifest.folder(FOLDER) or not (root / FOLDER).exists():
        return None

    layout.verify(root, manifest, FOLDER)
    rows = _read_rows(root, labels)
    index = _read_vectors(root, rows)

    texts = len(rows.ids) if rows.texts is None else len(rows.texts)
    has_form = index.vectors.ndim == 2 and index.labels.ndim == 1
    is_whole = has_form and len(index.vectors) == len(index.labels) == len(rows.ids) == texts
    known = (index.labels >= 0) & (index.labels < len(labels))
    if not is_whole or not known.all():
        raise ModelError(f"{root}: the files of {FOLDER}/ do not fit each other", ADVICE)
    return index


def _read_rows(root: Path, labels: LabelSchema) -> IndexRows:
    name = f"{FOLDER}/{ROWS}"
    try:
        rows = IndexRows.from_json(inside.read_text(root, name))
    except ValueError as error:
        cause = str(error).splitlines()[0]
        raise ModelError(f"{root}: {name} is not what was published ({cause})", ADVICE) from None
    if rows.labels_hash != labels.hash:
        raise ModelError(f"{root}: {name} is of a model with other labels", ADVICE)
    return rows


def _read_vectors(root: Path, rows: IndexRows) -> SentenceIndex:
    name = f"{FOLDER}/{VECTORS}"
    # A little more than the vectors: the labels, and the header.
    content = inside.read_bytes(root, name, LARGEST_VECTORS + (1 << 20))
    try:
        arrays = load(content)
        vectors = arrays["vectors"].astype(np.float32)
        intents = arrays["labels"].astype(np.int32)
    # The library has errors of its own for what is no such file.
    except Exception:  # noqa: BLE001
        raise ModelError(f"{root}: {name} is not what was published", ADVICE) from None
    return SentenceIndex(vectors, intents, rows)
