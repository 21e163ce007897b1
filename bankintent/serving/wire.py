"""The bodies that go over the wire: this API's own, and those of text-embeddings-inference's `/predict`."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
from fastapi.exceptions import RequestValidationError
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

from bankintent import __version__
from bankintent.config import ServeConfig
from bankintent.inference.runtime import Logits, ModelFacts
from bankintent.measures.metrics import softmax
from bankintent.serving import limits

TEXT = "my card has not arrived yet"
SCORES: list[JsonValue] = [
    {"label": "card_arrival", "score": 0.93},
    {"label": "card_delivery_estimate", "score": 0.04},
    {"label": "lost_or_stolen_card", "score": 0.01},
]
PAIR = 'two strings in one list are a pair, which an intent classifier does not take; write a batch as [["a"], ["b"]]'


def _integral(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_list(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


def _dialect(value: Any) -> str:
    """Which of the two bodies of `/predict` this is."""
    return "tei" if isinstance(value, dict) and "inputs" in value else "own"


# What counts as blank, spelled out where the regular expressions of JavaScript, Python and Rust differ about \s.
Text = Annotated[str, Field(min_length=1, pattern=r"[^\s\u001c-\u001f\u0085\ufeff]")]
Texts = Annotated[list[Text], Field(min_length=1)]
OneOrMany = Annotated[
    Annotated[Text, Tag("one")] | Annotated[Texts, Tag("many")], Discriminator(_is_list)
]


class PredictRequest(BaseModel):
    """One text, or a list of texts."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"text": TEXT, "top_k": 3}, {"text": [TEXT, "how do I change my PIN?"]}]
        },
    )

    text: OneOrMany
    """A sentence, or a list of sentences; each has something else than white space in it."""
    top_k: Annotated[int, Field(ge=1, strict=True), BeforeValidator(_integral)] = 3
    """How many intents to give for each text, best first."""

    @property
    def texts(self) -> list[str]:
        return self.text if isinstance(self.text, list) else [self.text]


class Score(BaseModel):
    """An intent and its probability."""

    label: str
    score: float


class ModelName(BaseModel):
    """Which model answered; the version changes with its files."""

    name: str
    version: str


class Prediction(BaseModel):
    """The best intent of one text, and the best few with their probabilities."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "label": "card_arrival",
                    "score": 0.93,
                    "top_k": SCORES,
                    "truncated": False,
                    "model": {"name": "quickstart", "version": "0" * 12},
                }
            ]
        },
    )

    label: str
    score: float
    """Probability of the label, from 0 to 1."""
    top_k: list[Score]
    truncated: bool
    """The text was longer than the model reads; its end was cut off."""
    model: ModelName


One = Annotated[list[Text], Field(min_length=1, max_length=1)]
Batch = Annotated[list[One], Field(min_length=1)]


def _shape(value: Any) -> str:
    if not isinstance(value, list):
        return "text"
    return "one" if value and not isinstance(value[0], list) else "batch"


class TeiRequest(BaseModel):
    """The body of text-embeddings-inference's `/predict`. Keys that it may have besides are ignored, as there."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"inputs": TEXT}, {"inputs": [[TEXT], ["how do I change my PIN?"]]}]
        },
    )

    inputs: Annotated[
        Annotated[Text, Tag("text")] | Annotated[One, Tag("one")] | Annotated[Batch, Tag("batch")],
        Discriminator(_shape),
    ]
    """A text, alone or in a list, or a batch: a list of lists of one text each."""
    truncate: StrictBool | None = None
    """false refuses a text that is too long for the model; otherwise its end is cut off."""
    raw_scores: StrictBool = False
    """true gives logits instead of probabilities."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _no_pairs(cls, value: Any) -> Any:
        rows = (
            value
            if isinstance(value, list) and any(isinstance(row, list) for row in value)
            else [value]
        )
        if any(isinstance(row, list) and len(row) == 2 for row in rows):
            raise ValueError(PAIR)
        return value

    @property
    def is_batch(self) -> bool:
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)

    @property
    def texts(self) -> list[str]:
        rows = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        return [row[0] if isinstance(row, list) else row for row in rows]


EitherRequest = Annotated[
    Annotated[PredictRequest, Tag("own")] | Annotated[TeiRequest, Tag("tei")],
    Discriminator(_dialect),
]


class Info(BaseModel):
    """The served model and the limits of this API."""

    name: str
    version: str
    labels: list[str]
    labels_hash: str
    backbone: str
    parameters: int
    max_length: int
    runtime: str
    bankintent: str
    limits: dict[str, float]
    batching: dict[str, int]


class Card(BaseModel):
    """The model card as Markdown, and the addresses of the plots of its evaluation."""

    name: str
    version: str
    markdown: str
    plots: dict[str, str]


class Health(BaseModel):
    """What a probe reports."""

    status: Literal["live", "ready"]


class ErrorBody(BaseModel):
    """Every refusal; it never repeats what was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": "text: must not be empty or blank", "error_type": "validation"}]
        }
    )

    error: str
    error_type: str


REFUSALS: tuple[type[limits.Refusal], ...] = (
    limits.Malformed,
    limits.Unauthorized,
    limits.SlowBody,
    limits.TooLarge,
    limits.Invalid,
    limits.QueueFull,
    limits.NotReady,
    limits.DeadlineExceeded,
)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses."""
    kinds = [kind for kind in REFUSALS if kind.status in statuses]
    return {kind.status: {"model": ErrorBody, "description": kind.__doc__} for kind in kinds}


def prediction(logits: Logits, truncated: bool, facts: ModelFacts, top_k: int) -> Prediction:
    """One text's logits as its answer; `top_k` above the number of labels gives all."""
    scores = ranked(softmax(logits), facts, top_k)
    model = ModelName(name=facts.name, version=facts.version)
    return Prediction(
        label=scores[0].label, score=scores[0].score, top_k=scores, truncated=truncated, model=model
    )


def all_scores(logits: Logits, facts: ModelFacts, raw: bool) -> list[Score]:
    """Every label with its probability or, raw, its logit, best first."""
    return ranked(logits if raw else softmax(logits), facts, len(facts.labels))


def ranked(values: np.ndarray[Any, Any], facts: ModelFacts, top_k: int) -> list[Score]:
    """The best few labels, best first; of equal ones the lower id."""
    order = np.argsort(-values, kind="stable")[:top_k]
    return [Score(label=facts.labels[i], score=round(float(values[i]), 6)) for i in order]


def info(facts: ModelFacts, settings: ServeConfig) -> Info:
    """The body of `/info`."""
    shown = {**dataclasses.asdict(facts), **settings.model_dump(include={"limits", "batching"})}
    return Info.model_validate({**shown, "bankintent": __version__})


FIELDS = {name for model in (PredictRequest, TeiRequest) for name in model.model_fields}
PROBLEMS = {
    "string_pattern_mismatch": "must not be empty or blank",
    "string_too_short": "must not be empty or blank",
    "string_type": "must be a text",
    "string_unicode": "is not valid Unicode text",
    "extra_forbidden": "an unknown key; the keys are text and top_k",
    "json_invalid": "the body is not JSON",
    "model_attributes_type": 'the body must be a JSON object such as {"text": "..."}, sent as application/json',
}
PROBLEMS["model_type"] = PROBLEMS["dict_type"] = PROBLEMS["model_attributes_type"]


def describe(error: RequestValidationError) -> str:
    """The first few problems of a body in one line, in our words and pydantic's, without anything that was sent."""
    problems = []
    for detail in error.errors():
        place = ".".join(
            str(part) for part in detail["loc"] if part in FIELDS or isinstance(part, int)
        )
        message = PROBLEMS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
        problems.append(
            f"{place}: {message}" if place and detail["type"] != "json_invalid" else message
        )
    return "; ".join(list(dict.fromkeys(problems))[:3])
