"""Bodies of what a server says of itself: its models, its limits, its health."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from bankintent import __version__
from bankintent.config import ServeConfig
from bankintent.decision.policy import Policy
from bankintent.inference.runtime import ModelFacts
from bankintent.serving.entries import ModelState
from bankintent.serving.served import Served

MOST_MODELS = 1000
"""Models that `/models` lists."""


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
