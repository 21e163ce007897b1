"""Request and response bodies: our own, and those of text-embeddings-inference's `/predict`."""

import difflib
from typing import Annotated, Any, Literal

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
from bankintent.decision.deciding import (
    DECIMALS,
    Decision,
    Floats,
    Reason,
    Verdict,
    rank_intents,
)
from bankintent.decision.policy import Policy
from bankintent.inference.runtime import ModelFacts
from bankintent.serving.entries import ModelState
from bankintent.serving.explanation_body import ExplanationBody
from bankintent.serving.served import Served
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

MOST_MODELS = 1000
"""Models that `/models` lists."""

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


class PolicyInfo(BaseModel):
    """The policy by which the model answers or abstains."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    version: str
    """It changes with any number of the policy."""
    target: dict[str, JsonValue]
    """What was asked for when it was fitted."""
    promise: dict[str, JsonValue]
    """What it promises of texts like those that it was fitted on."""


class Info(BaseModel):
    """The served model and the limits of this API."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The name of the model's folder."""
    version: str
    """It changes with the files of the model."""
    labels: list[str]
    """The intents, in the order of the model's outputs."""
    labels_hash: str
    """SHA-256 of the intents in this order."""
    backbone: str
    """The pretrained model that was trained on."""
    parameters: int
    """Number of the model's weights."""
    max_length: int
    """Longest text in tokens; the end of a longer one is cut off."""
    runtime: str
    """What computes the answers."""
    policy: PolicyInfo | None
    """null where the model has no policy: then it answers everything."""
    bankintent: str
    """The version of the server."""
    limits: dict[str, float]
    """The keys of `limits:` in serve.yaml."""
    batching: dict[str, int]
    """The keys of `batching:` in serve.yaml."""
    compat: list[str]
    """The other services whose clients are answered."""


class ModelStatus(BaseModel):
    """One of the models of a server."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    name: str
    """By which requests choose it."""
    version: str | None
    """Of the files that answer; null where it is not loaded."""
    state: ModelState
    """A model that is not loaded is loaded by the first request for it."""
    reason: str | None
    """Why its newest files cannot be served; an older version may still answer."""
    default: bool
    """Whether it answers requests that name no model."""
    memory_mb: float
    """What it takes, as far as that was measured; 0 where it is not loaded."""
    held: int
    """Texts admitted and not yet answered."""


class ModelList(BaseModel):
    """The models of a server, sorted by name."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    models: list[ModelStatus]
    """The first thousand."""
    total: int
    """How many there are."""
    default: str | None
    """The model of requests that name none; null where they have to name one."""


class Card(BaseModel):
    """The model card as Markdown, and the addresses of the plots of its evaluation."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The name of the model's folder."""
    version: str
    """It changes with the files of the model."""
    markdown: str
    """The text of the card."""
    plots: dict[str, str]
    """The address of each plot on this server, by its name."""


class Health(BaseModel):
    """What a probe reports."""

    status: Literal["live", "ready"]


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


def make_info(facts: ModelFacts, policy: Policy | None, settings: ServeConfig) -> Info:
    """The body of `/info`."""
    return Info(
        name=facts.name,
        version=facts.version,
        labels=list(facts.labels),
        labels_hash=facts.labels_hash,
        backbone=facts.backbone,
        parameters=facts.parameters,
        max_length=facts.max_length,
        runtime=facts.runtime,
        policy=None if policy is None else describe_policy(policy),
        bankintent=__version__,
        limits=settings.limits.model_dump(),
        batching=settings.batching.model_dump(),
        compat=list(settings.compat),
    )


def make_list(models: Served) -> ModelList:
    """The body of `/models`."""
    default = models.default
    statuses = []
    for one in models.describe(MOST_MODELS):
        status = ModelStatus(
            name=one.name,
            version=one.version,
            state=one.state,
            reason=one.reason,
            default=one.name == default,
            memory_mb=round(one.memory / 1e6, 1),
            held=one.held,
        )
        statuses.append(status)
    return ModelList(models=statuses, total=len(models.names()), default=default)


def describe_policy(policy: Policy) -> PolicyInfo:
    """What `/info` says of a policy."""
    record = policy.record
    return PolicyInfo(version=policy.version, target=record.target, promise=record.promise)


COMPAT_FIELDS = {"kind", "analysisInput", "conversationItem", "query", "token", "show-all-intents"}
"""Keys of the requests that `compat/` reads."""

FIELDS = PredictRequest.model_fields.keys() | TeiRequest.model_fields.keys() | COMPAT_FIELDS
"""Keys that a message may name: any other was made up by the sender and may hold a text."""

NOT_AN_OBJECT = (
    'the body must be a JSON object, for /predict such as {"text": "..."}, sent as application/json'
)
"""FastAPI also gives such errors where the header Content-Type is missing or wrong."""

PROBLEMS = {
    "string_pattern_mismatch": "must not be empty or blank",
    "string_too_short": "must not be empty or blank",
    "string_type": "must be a text",
    "string_unicode": "is not valid Unicode text",
    "json_invalid": "the body is not JSON",
    "model_attributes_type": NOT_AN_OBJECT,
    "model_type": NOT_AN_OBJECT,
    "dict_type": NOT_AN_OBJECT,
}
"""Messages for pydantic's error types; the other types keep pydantic's own."""

KEYS = "the keys are text, top_k, explain and model"

MOST_KEY_CHARACTERS = 20
"""Longest unknown key that is compared with the known ones."""

MOST_PROBLEMS = 3
"""A list of texts may have an error in each: a message stays one readable line."""


def describe_invalid(error: RequestValidationError) -> str:
    """The first few problems of a body in one line, without anything that was sent."""
    problems = [_describe_one(detail) for detail in error.errors()]
    different = list(dict.fromkeys(problems))
    return "; ".join(different[:MOST_PROBLEMS])


def _describe_one(detail: dict[str, Any]) -> str:
    """One problem: a message, after its place where that repeats nothing that was sent."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"an unknown key{_guess_key(detail['loc'][-1])}; {KEYS}"
    message = PROBLEMS.get(kind) or detail["msg"].removeprefix("Value error, ")

    # The place of invalid JSON is an offset in the text that was sent.
    if kind == "json_invalid":
        return message

    # The first part says where it was sent: in the body, or as a query parameter.
    place = detail["loc"][1:]
    parts = [str(part) for part in place if part in FIELDS or isinstance(part, int)]
    if not parts:
        return message
    return f"{'.'.join(parts)}: {message}"


def _guess_key(sent: object) -> str:
    """After a comma what an unknown key may be meant as; empty where it is like none.

    The key itself is not repeated: it may hold a text.
    """
    # Comparing takes longer with the length, and these keys are short.
    if not isinstance(sent, str) or len(sent) > MOST_KEY_CHARACTERS:
        return ""

    near = difflib.get_close_matches(sent.casefold(), PredictRequest.model_fields, n=1)
    return f', perhaps meant as "{near[0]}"' if near else ""
