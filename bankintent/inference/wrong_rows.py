"""The wrong answers of an evaluation, the most confident first, with what they lie near to.

A confident mistake beside sentences of the intent that it was taken for is often a wrong label, or
two intents that nobody can tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bankintent.bundle import index
from bankintent.bundle.index import Neighbour, SentenceIndex
from bankintent.bundle.layout import Checkpoint
from bankintent.decision.deciding import DECIMALS, Decisions
from bankintent.inference.evaluation import Evaluation, NearSentence, WrongRow
from bankintent.inference.labelled import EvaluationData
from bankintent.inference.predicted import Predicted
from bankintent.inference.runtime import Features

MOST = 50
"""Wrong answers that a report lists."""

NEIGHBOURS = 3
"""Training sentences beside each."""


@dataclass(frozen=True)
class Background:
    """What an evaluation shows its wrong answers by."""

    sentences: SentenceIndex | None
    """None where the model has no index."""
    with_texts: bool
    """Whether sentences are shown, those of training where the index holds them."""


def find_background(checkpoint: Checkpoint, with_texts: bool) -> Background:
    """The index of a model, read and verified; ModelError where it was changed."""
    sentences = index.read(checkpoint.root, checkpoint.manifest, checkpoint.labels)
    return Background(sentences, with_texts)


def beside(
    result: Evaluation, predicted: Predicted, data: EvaluationData, background: Background
) -> Evaluation:
    """The evaluation with its wrong answers."""
    decisions = predicted.decisions
    true = np.asarray(data.rows.labels)
    wrong = np.flatnonzero(decisions.labels != true)
    # Of equal scores the earlier row comes first.
    order = np.argsort(-decisions.scores[wrong], kind="stable")
    rows = wrong[order][:MOST].tolist()

    near = _find_near(rows, predicted.features, background.sentences)
    records = []
    for row, neighbours in zip(rows, near, strict=True):
        record = _describe(row, decisions, data, background.with_texts)
        records.append(replace(record, neighbours=_name(neighbours, data, background.with_texts)))
    return replace(result, wrong=records)


def _find_near(
    rows: list[int], features: Features | None, sentences: SentenceIndex | None
) -> Sequence[list[Neighbour] | None]:
    """The nearest training sentences of each row; None where that cannot be said."""
    if features is None or sentences is None or features.shape[1] != sentences.width:
        return [None] * len(rows)
    return sentences.nearest(features[rows], NEIGHBOURS)


def _describe(row: int, decisions: Decisions, data: EvaluationData, with_texts: bool) -> WrongRow:
    names = data.labels.names
    decision = decisions.of(row)
    return WrongRow(
        id=data.rows.ids[row],
        label=names[data.rows.labels[row]],
        predicted=names[decision.label],
        score=round(decision.score, DECIMALS),
        decision=decision.verdict.value,
        neighbours=None,
        text=data.rows.texts[row] if with_texts else None,
    )


def _name(
    neighbours: list[Neighbour] | None, data: EvaluationData, with_texts: bool
) -> list[NearSentence] | None:
    if neighbours is None:
        return None

    sentences = []
    for near in neighbours:
        intent = data.labels.names[near.label]
        text = near.text if with_texts else None
        sentences.append(NearSentence(near.id, intent, round(near.similarity, 4), text))
    return sentences
