"""Request and response bodies: our own, and those of text-embeddings-inference's `/predict`."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StrictBool,
    Tag,
    field_validator,
)

from bankintent.decision.deciding import (
    DECIMALS,
    Decision,
    Floats,
    Reason,
    Verdict,
    rank_intents,
)
from bankintent.inference.runtime import ModelFacts
from bankintent.serving.explanation_body import ExplanationBody
from bankintent.serving.service import Answer
from bankintent.texts import SEEN, UNSEEN

TEXT = "where is my parcel"
"""The text of the examples in the OpenAPI document."""

SCORES: list[JsonValue] = [
    {"label": "parcel_location", "score": 0.93},
    {"label": "delivery_time", "score": 0.04},
    {"label": "lost_parcel", "score": 0.01},
]
"""The scores of the examples."""

PAIR = (
    "two strings in one list are a pair, which an intent classifier does not take;"
    ' write a batch as [["a"], ["b"]]'
)
"""The message for the form that text-embeddings-inference reads as a pair of texts."""


def _integral(value: Any) -> Any:
    """The integer that a whole float is: JSON has one kind of number, so 3.0 is 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_list(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


def _is_none(value: object) -> bool:
    return value is None


def _dialect(value: Any) -> str:
    """The tag of a body of `/predict`: own, or text-embeddings-inference's."""
    if isinstance(value, dict) and "inputs" in value:
        return "tei"
    return "own"


# In the OpenAPI document is the part of the pattern that clients in any language can compile.
Text = Annotated[
    str,
    Field(min_length=1, pattern=SEEN.pattern, json_schema_extra={"pattern": f"[^{UNSEEN}]"}),
]
"""A text with at least one character that can be seen."""

# After the first wrong item the rest of a list is not looked at.
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1)]
# With a tag, an error is about the form that was sent, not about every form.
OneOrMany = Annotated[
    Annotated[Text, Tag("one")] | Annotated[Texts, Tag("many")], Discriminator(_is_list)
]


class PredictRequest(BaseModel):
    """One text, or a list of texts."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"text": TEXT, "top_k": 3}, {"text": [TEXT, "how do I return it?"]}]
        },
    )

    text: OneOrMany
    """A sentence, or a list of sentences, none of them empty or only white space."""
    top_k: Annotated[int, Field(ge=1, strict=True), BeforeValidator(_integral)] = 3
    """How many intents to give for each text, best first."""
    explain: StrictBool = False
    """true says why each text gets its answer; at most `max_explained` texts a request."""
    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """The name of the model that answers, where a server has several; by default its default."""

    @property
    def texts(self) -> list[str]:
        return self.text if isinstance(self.text, list) else [self.text]


class Score(BaseModel):
    """An intent and its probability."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: str
    """The name of the intent."""
    score: float
    """Its probability, from 0 to 1; its logit where `raw_scores` asks for it."""


class ModelName(BaseModel):
    """Which model answered."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The name of its folder."""
    version: str
    """It changes with the files of the model."""


class Prediction(BaseModel):
    """The best intent of one text, whether it is the answer, and the best few intents."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "label": "parcel_location",
                    "score": 0.93,
                    "decision": "answer",
                    "reason": "",
                    "in_scope": True,
                    "close_to": None,
                    "top_k": SCORES,
                    "truncated": False,
                    "model": {"name": "quickstart", "version": "0" * 12},
                }
            ]
        },
    )

    label: str
    """The best intent; the answer only where `decision` is `answer`."""
    score: float
    """Probability of the label, from 0 to 1."""
    decision: Verdict
    """Whether the label is the answer, or the model abstains: then act as if it had none."""
    reason: Reason
    """Why the model abstains; empty where it answers."""
    in_scope: bool
    """Whether the text looks like one of the model's intents."""
    close_to: list[str] | None
    """The two intents of a close call; null otherwise."""
    top_k: list[Score]
    """The best intents, best first, also where the model abstains."""
    truncated: bool
    """The text was longer than the model reads; its end was cut off."""
    model: ModelName
    """The model that answered."""
    explanation: ExplanationBody | None = Field(default=None, exclude_if=_is_none)
    """Only where the request says `explain: true`."""


OneText = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=1)]
TextBatch = Annotated[list[OneText], Field(fail_fast=True, min_length=1)]


def _input_form(value: Any) -> str:
    """The tag of a form of `inputs`."""
    if not isinstance(value, list):
        return "text"
    if value and not isinstance(value[0], list):
        return "one"
    return "batch"


class TeiRequest(BaseModel):
    """The body of text-embeddings-inference's `/predict`. As there, other keys are ignored."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"inputs": TEXT}, {"inputs": [[TEXT], ["how do I return it?"]]}]
        },
    )

    inputs: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[OneText, Tag("one")]
        | Annotated[TextBatch, Tag("batch")],
        Discriminator(_input_form),
    ]
    """A text, a list of one text, or a batch: a list of lists of one text each."""
    truncate: StrictBool | None = None
    """false refuses a text that is too long for the model; otherwise its end is cut off."""
    raw_scores: StrictBool = False
    """true gives logits instead of probabilities."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _no_pairs(cls, value: Any) -> Any:
        # Before pydantic's own checks, whose message would be about the length of a list.
        is_batch = isinstance(value, list) and any(isinstance(row, list) for row in value)
        rows = value if is_batch else [value]
        if any(isinstance(row, list) and len(row) == 2 for row in rows):
            raise ValueError(PAIR)

        return value

    @property
    def is_batch(self) -> bool:
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)

    @property
    def texts(self) -> list[str]:
        if isinstance(self.inputs, str):
            return [self.inputs]

        texts = []
        for row in self.inputs:
            texts.append(row if isinstance(row, str) else row[0])
        return texts


EitherRequest = Annotated[
    Annotated[PredictRequest, Tag("own")] | Annotated[TeiRequest, Tag("tei")],
    Discriminator(_dialect),
]


def make_prediction(answer: Answer, facts: ModelFacts, top_k: int) -> Prediction:
    """The answer to a text as `/predict/` gives it; a larger `top_k` gives all labels."""
    scores = rank(answer, answer.probabilities, facts, top_k)
    best = scores[0]
    decision = answer.decision
    return Prediction(
        label=best.label,
        score=best.score,
        decision=decision.verdict,
        reason=decision.reason,
        in_scope=decision.in_scope,
        close_to=find_close(decision, facts),
        top_k=scores,
        truncated=answer.truncated,
        model=ModelName(name=facts.name, version=facts.version),
    )


def find_close(decision: Decision, facts: ModelFacts) -> list[str] | None:
    """The two intents of a close call; None of any other decision."""
    if decision.close_to is None:
        return None
    return [facts.labels[label] for label in decision.close_to]


def score_all(answer: Answer, facts: ModelFacts, raw: bool = False) -> list[Score]:
    """Every label with its probability or, raw, its logit, best first."""
    values = answer.logits if raw else answer.probabilities
    return rank(answer, values, facts, len(facts.labels))


def rank(answer: Answer, values: Floats, facts: ModelFacts, top_k: int) -> list[Score]:
    """The best `top_k` labels with their values, best first; of equal ones the lower id."""
    scores = []
    for index in rank_intents(answer.logits, top_k):
        score = round(float(values[index]), DECIMALS)
        scores.append(Score(label=facts.labels[index], score=score))
    return scores
