"""Azure's LUIS, version 3: the prediction of a slot, or of a version, of an app."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from bankintent.serving import wire
from bankintent.serving.admission import Bearer, check_key, key_guards
from bankintent.serving.bounded import BoundedQueryRoute
from bankintent.serving.compat import azure
from bankintent.serving.compat.answers import Understood, understand
from bankintent.serving.compat.dialect import STATUSES, Dialect
from bankintent.serving.error_bodies import openapi_responses

SLOT = "/apps/{app_id}/slots/{name}/predict"
VERSION = "/apps/{app_id}/versions/{name}/predict"

PARAMETER = APIKeyQuery(
    name="subscription-key",
    auto_error=False,
    description="The value of BANKINTENT_API_KEY, as LUIS takes it in an address",
)

AllIntents = Annotated[bool, Query(alias="show-all-intents")]
"""Whether the answer has every intent, or only the best."""

router = APIRouter(
    prefix="/luis/prediction/v3.0",
    tags=["luis"],
    route_class=BoundedQueryRoute,
    responses=openapi_responses(*STATUSES, model=azure.AzureError),
)


class LuisRequest(BaseModel):
    """The body of LUIS's `predict`. Only the query is read, other keys are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": wire.TEXT}]})

    query: wire.Text


class LuisIntent(BaseModel):
    """The probability of an intent."""

    score: float


class LuisPrediction(BaseModel):
    """The best intent, and the probabilities of those that were asked for, best first.

    Where none of them is the answer the best is `None`.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )

    top_intent: str
    intents: dict[str, LuisIntent]
    entities: Annotated[dict[str, JsonValue], Field(max_length=0)] = {}
    """Always empty: the model finds no entities."""


class LuisAnswer(BaseModel):
    """The text and what the model makes of it."""

    query: str
    prediction: LuisPrediction


# The routes of slots and versions share their functions. With one model none of these names is
# looked at; of several, the app is one.
@router.post(SLOT)
@router.post(VERSION)
async def predict_body(
    body: LuisRequest,
    request: Request,
    response: Response,
    app_id: str,
    name: str,
    show_all: AllIntents = False,
) -> LuisAnswer:
    """The intents of the query of a body.

    Where there are several models, the app is the name of one. With one model it is not looked at,
    and the names of slot and version, `verbose` and `log` never are.
    """
    understood = await understand(request, response, body.query, app_id)
    return make_answer(body.query, understood, show_all)


@router.get(SLOT)
@router.get(VERSION)
async def predict_address(
    query: Annotated[wire.Text, Query()],
    request: Request,
    response: Response,
    app_id: str,
    name: str,
    show_all: AllIntents = False,
) -> LuisAnswer:
    """The intents of the query of an address; as with a body, nothing else of it is looked at."""
    understood = await understand(request, response, query, app_id)
    return make_answer(query, understood, show_all)


def make_answer(text: str, understood: Understood, show_all: bool) -> LuisAnswer:
    """The answer in LUIS's words."""
    ranking = understood.ranked(azure.NONE)
    shown = ranking if show_all else ranking[:1]
    intents = {score.label: LuisIntent(score=score.score) for score in shown}
    prediction = LuisPrediction(top_intent=ranking[0].label, intents=intents)
    return LuisAnswer(query=text, prediction=prediction)


async def need_key(
    request: Request,
    bearer: Bearer,
    header: Annotated[str | None, Depends(azure.HEADER)],
    parameter: Annotated[str | None, Depends(PARAMETER)],
) -> None:
    """Dependency of a route that needs the key, as a bearer, in a header or in the address."""
    key = bearer.credentials if bearer else header or parameter
    check_key(request.app.state.key, key or "")


def add_routes(app: FastAPI) -> None:
    """Add the routes of LUIS to an app."""
    app.include_router(router, dependencies=key_guards(app, need_key))


DIALECT = Dialect(paths=("/luis/",), add_routes=add_routes, error_body=azure.error_body)
