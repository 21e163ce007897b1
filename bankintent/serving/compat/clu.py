"""Azure's conversational language understanding (CLU): the analysis of one message."""

from typing import Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from bankintent.serving import wire
from bankintent.serving.admission import key_guards
from bankintent.serving.bounded import BoundedQueryRoute
from bankintent.serving.compat import azure
from bankintent.serving.compat.answers import Understood, understand
from bankintent.serving.compat.dialect import STATUSES, Dialect, NoEntities
from bankintent.serving.error_bodies import openapi_responses

EXAMPLE: dict[str, JsonValue] = {
    "kind": "Conversation",
    "analysisInput": {"conversationItem": {"id": "1", "participantId": "1", "text": wire.TEXT}},
    "parameters": {"projectName": "any", "deploymentName": "any"},
}
"""The body of the example in the OpenAPI document."""

router = APIRouter(tags=["clu"], route_class=BoundedQueryRoute)


class ConversationItem(BaseModel):
    """One message."""

    text: wire.Text


class AnalysisInput(BaseModel):
    """The message in its wrapping."""

    model_config = ConfigDict(alias_generator=to_camel)

    conversation_item: ConversationItem


class ConversationTask(BaseModel):
    """The body of CLU's `:analyze-conversations`. Other keys are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, json_schema_extra={"examples": [EXAMPLE]})

    kind: Literal["Conversation"]
    analysis_input: AnalysisInput
    parameters: JsonValue = None
    """`projectName` in it is the name of the model, where there are several."""

    @property
    def project(self) -> str | None:
        """The name of the project; None where the request has none that could be a model's."""
        if not isinstance(self.parameters, dict):
            return None
        name = self.parameters.get("projectName")
        return name if isinstance(name, str) else None


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )


class CluIntent(_Answer):
    """An intent and its probability."""

    category: str
    confidence_score: float


class CluPrediction(_Answer):
    """Every intent of the model, best first, after `None` where none of them is the answer."""

    top_intent: str
    project_kind: Literal["Conversation"] = "Conversation"
    intents: list[CluIntent]
    entities: NoEntities = []
    """Always empty: the model finds no entities."""


class CluResult(_Answer):
    """The text and what the model makes of it."""

    query: str
    prediction: CluPrediction


class ConversationResult(_Answer):
    """The answer to a message."""

    kind: Literal["ConversationResult"] = "ConversationResult"
    result: CluResult


@router.post(
    "/language/:analyze-conversations",
    responses=openapi_responses(*STATUSES, model=azure.AzureError),
)
async def analyze_conversation(
    body: ConversationTask, request: Request, response: Response
) -> ConversationResult:
    """The intents of a message.

    Where there are several models, `projectName` names one; without it, the default one answers.
    With one model it is not looked at, and the name of the deployment, the language and
    `api-version` never are.
    """
    text = body.analysis_input.conversation_item.text
    understood = await understand(request, response, text, body.project)
    return make_result(text, understood)


def make_result(text: str, understood: Understood) -> ConversationResult:
    """The answer in CLU's words."""
    ranking = understood.ranked(azure.NONE)
    intents = [CluIntent(category=score.label, confidence_score=score.score) for score in ranking]
    prediction = CluPrediction(top_intent=ranking[0].label, intents=intents)
    return ConversationResult(result=CluResult(query=text, prediction=prediction))


def add_routes(app: FastAPI) -> None:
    """Add the route of CLU to an app."""
    app.include_router(router, dependencies=key_guards(app, azure.need_key))


DIALECT = Dialect(paths=("/language/",), add_routes=add_routes, error_body=azure.error_body)
