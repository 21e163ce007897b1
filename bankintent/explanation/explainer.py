"""Why a text got its answer: the nearest sentences of training, and its words by their weight."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bankintent.bundle import index, layout
from bankintent.bundle.index import SentenceIndex
from bankintent.decision.deciding import Decision, decide
from bankintent.errors import ModelError
from bankintent.explanation.occlusion import Part, parts_of
from bankintent.inference.runtime import Outputs, OutputTable, Runtime
from bankintent.labels import LabelSchema

NEIGHBOURS = 5
"""Nearest sentences of an explanation."""

BATCH = 16
"""Texts in one forward pass of `explain`."""

NO_INDEX = "this model has no index of its training sentences"
NO_FEATURES = "the format that computes this model gives no vectors of texts"
DAMAGED = "the index of this model is damaged"

SMALLEST_SHARE = 1e-12
"""Scores are kept so far from 0 and 1 that their odds are finite."""

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sentence of training that is near to a text."""

    id: str
    """Of its row in ETL's output."""
    intent: str
    similarity: float
    """Cosine of what the last layer reads of the two, from -1 to 1."""
    text: str | None
    """None where the bundle does not hold the texts."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a word, or some words of a long text, weigh in its answer."""

    word: str
    """As it stands in the text."""
    start: int
    """Place of its first character in the text."""
    end: int
    """Place behind its last one."""
    weight: float
    """Log-odds of the answered intent that are lost without it; negative where they rise."""
    score_without: float
    """Score of the answered intent without it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text got its answer."""

    decision: Decision
    """The answer that is explained."""
    neighbours: tuple[Neighbour, ...] | None
    """The nearest sentences of training, the nearest first; None where that cannot be said."""
    no_neighbours: str | None
    """Why not."""
    attributions: tuple[Attribution, ...]
    """In the order of the text; none for a text of one word."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be computed for the explanation of a text."""

    text: str
    parts: tuple[Part, ...]

    @property
    def texts(self) -> list[str]:
        """The text itself, then the text without each of its parts."""
        return [self.text, *(part.left_out(self.text) for part in self.parts)]


def plan(text: str) -> Plan:
    """What has to be computed for the explanation of a text: at most MOST_PARTS + 1 answers."""
    return Plan(text, tuple(parts_of(text)))


class LazyIndex:
    """The index of the bundle in a folder, read and verified when it is first asked for."""

    def __init__(self, root: Path, labels: LabelSchema) -> None:
        self._root = root
        self._labels = labels
        self._lock = threading.Lock()
        self._found: SentenceIndex | str | None = None

    def get(self) -> SentenceIndex | str:
        """The index, or why there is none."""
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def _find(self) -> SentenceIndex | str:
        try:
            manifest = layout.find_manifest(self._root)
            return index.read(self._root, manifest, self._labels) or NO_INDEX
        except (ModelError, OSError):
            # An answer does not need it; `python -m bankintent verify` says what is wrong with it.
            return DAMAGED


class Explainer:
    """Explains the answers of one model."""

    def __init__(self, root: Path, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._index = LazyIndex(root, LabelSchema(labels))

    def explain(
        self,
        asked: Plan,
        decision: Decision,
        scores: Scores,
        features: NDArray[np.float32] | None,
        count: int = NEIGHBOURS,
    ) -> Explanation:
        """The explanation of a decision about the text of a plan.

        `scores` are the (1 + parts,) probabilities of the decided label for `asked.texts`;
        `features` are the (width,) ones of the text, None where the runtime gives none.
        """
        found = self._nearest(features, count)
        return Explanation(
            decision=decision,
            neighbours=None if isinstance(found, str) else found,
            no_neighbours=found if isinstance(found, str) else None,
            attributions=_attribute(asked, scores),
        )

    def _nearest(
        self, features: NDArray[np.float32] | None, count: int
    ) -> tuple[Neighbour, ...] | str:
        """The nearest sentences of a text, or why there are none."""
        sentences = self._index.get()
        if isinstance(sentences, str):
            return sentences
        if features is None or len(features) != sentences.width:
            return NO_FEATURES

        neighbours = []
        for near in sentences.nearest(features[np.newaxis], count)[0]:
            intent = self._labels[near.label]
            neighbours.append(Neighbour(near.id, intent, near.similarity, near.text))
        return tuple(neighbours)


def _attribute(asked: Plan, scores: Scores) -> tuple[Attribution, ...]:
    log_odds = _log_odds(scores)

    attributions = []
    for number, part in enumerate(asked.parts, start=1):
        attribution = Attribution(
            word=part.of(asked.text),
            start=part.start,
            end=part.end,
            weight=float(log_odds[0] - log_odds[number]),
            score_without=float(scores[number]),
        )
        attributions.append(attribution)
    return tuple(attributions)


def _log_odds(scores: Scores) -> NDArray[np.float64]:
    shares = np.clip(scores.astype(np.float64), SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    return np.asarray(np.log(shares) - np.log1p(-shares))


def explain(
    texts: Sequence[str], runtime: Runtime, explainer: Explainer, count: int = NEIGHBOURS
) -> list[Explanation]:
    """The explanation of each text, computed by a runtime."""
    explanations = []
    for text in texts:
        asked = plan(text)
        outputs = _compute(runtime, asked.texts)
        decisions = decide(outputs.logits, outputs.features, runtime.policy)

        first = decisions.of(0)
        scores = decisions.probabilities[:, first.label]
        features = None if outputs.features is None else outputs.features[0]
        explanations.append(explainer.explain(asked, first, scores, features, count))
    return explanations


def _compute(runtime: Runtime, texts: list[str]) -> Outputs:
    """The outputs of some texts, a few at a time."""
    items = runtime.tokenize(texts)
    table = OutputTable(len(items), len(runtime.facts.labels))
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        rows = list(range(start, start + len(batch)))
        table.fill(rows, runtime.outputs(batch))
    return table.outputs()
