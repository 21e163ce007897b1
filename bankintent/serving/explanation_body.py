"""The part of an answer of `/predict/` that explains it."""

from pydantic import BaseModel, ConfigDict

from bankintent.explanation.explainer import Attribution, Explanation, Neighbour


class NeighbourBody(BaseModel):
    """A training sentence that lies near to the text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """The id of its row in the training data."""
    intent: str
    """Its intent."""
    similarity: float
    """Cosine of what the model's last layer reads of the two, from -1 to 1."""
    text: str | None
    """The sentence; null where the model's bundle does not hold its sentences."""


class AttributionBody(BaseModel):
    """What a word of the text weighs, or some neighbouring words of a long one."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    word: str
    """The word, as it stands in the text."""
    start: int
    """Place of its first character, in Unicode code points."""
    end: int
    """Place behind its last one."""
    weight: float
    """Log-odds of the label that are lost without it; below 0 it speaks against the label."""
    score_without: float
    """Probability of the label without it."""


class ExplanationBody(BaseModel):
    """Why a text got its answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    neighbours: list[NeighbourBody] | None
    """The nearest training sentences, the nearest first; null where that is not known."""
    no_neighbours: str | None
    """Why they are not known; otherwise null."""
    attributions: list[AttributionBody]
    """The words in the order of the text; none of a text of one word."""


def make_explanation(explanation: Explanation) -> ExplanationBody:
    """An explanation as `/predict/` gives it."""
    neighbours = None
    if explanation.neighbours is not None:
        neighbours = list(map(_make_neighbour, explanation.neighbours))
    return ExplanationBody(
        neighbours=neighbours,
        no_neighbours=explanation.no_neighbours,
        attributions=list(map(_make_attribution, explanation.attributions)),
    )


def _make_neighbour(near: Neighbour) -> NeighbourBody:
    # The vectors are float16, which has about four digits.
    similarity = round(near.similarity, 4)
    return NeighbourBody(id=near.id, intent=near.intent, similarity=similarity, text=near.text)


def _make_attribution(attribution: Attribution) -> AttributionBody:
    return AttributionBody(
        word=attribution.word,
        start=attribution.start,
        end=attribution.end,
        weight=round(attribution.weight, 4),
        score_without=round(attribution.score_without, 6),
    )
