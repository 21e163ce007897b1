"""Rasa's HTTP API, as far as it is about understanding: parse a message, status, version."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, ConfigDict, JsonValue

from bankintent import __version__
from bankintent.serving import wire
from bankintent.serving.admission import Bearer, check_key, key_guards, using
from bankintent.serving.bounded import BoundedQueryRoute
from bankintent.serving.compat.answers import Understood, understand
from bankintent.serving.compat.dialect import STATUSES, Dialect, NoEntities
from bankintent.serving.error_bodies import openapi_responses
from bankintent.serving.refusals import Invalid

RANKED = 10
"""Intents of a ranking, as many as Rasa's classifiers give by default."""

FALLBACK = "nlu_fallback"
"""The intent that Rasa's FallbackClassifier puts first where no other is sure enough."""

TOKEN = APIKeyQuery(
    name="token",
    auto_error=False,
    description="The value of BANKINTENT_API_KEY, where Rasa's clients send their token",
)

REASONS = {
    "malformed": "BadRequest",
    "validation": "BadRequest",
    "too_large": "PayloadTooLarge",
    "unauthorized": "NotAuthenticated",
    "not_found": "NotFound",
    "unknown_model": "NotFound",
    "method_not_allowed": "MethodNotAllowed",
    "slow_body": "RequestTimeout",
    "timeout": "Timeout",
    "overloaded": "TooManyRequests",
    "unhealthy": "ServiceUnavailable",
    "internal": "ServerError",
}
"""`error_type` -> the reason of an error in Rasa's words, where it has one."""


class AnyContentType(BoundedQueryRoute):
    """A route whose body is JSON whatever its Content-Type says.

    Rasa does not look at it, and `curl -d` calls every body a form.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which is shown the body as JSON."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            headers = request.scope["headers"]
            others = [(name, value) for name, value in headers if name != b"content-type"]
            scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
            return await handler(Request(scope, request.receive))

        return handle


parse_router = APIRouter(tags=["rasa"], route_class=AnyContentType)
status_router = APIRouter(tags=["rasa"], route_class=BoundedQueryRoute)

unguarded = APIRouter(tags=["rasa"])
"""As in Rasa, the version is told without a token."""


class ParseRequest(BaseModel):
    """The body of Rasa's `/model/parse`. Only the text is read, other keys are ignored."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"examples": [{"text": wire.TEXT}]}
    )

    text: wire.Text
    token: str | None = None
    """The key, where there is one: a Rasa server that asks another one sends it here."""


class RasaIntent(BaseModel):
    """An intent and its probability."""

    name: str
    confidence: float


class ParseResult(BaseModel):
    """The text and what the model makes of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    intent: RasaIntent
    entities: NoEntities = []
    """Always empty: the model finds no entities."""
    intent_ranking: list[RasaIntent]
    """The best ten intents, or all of fewer, best first; before them `nlu_fallback` where none of
    them is the answer."""


class RasaStatus(BaseModel):
    """The model that is served."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    model_file: str
    """The model's name."""
    model_id: str
    """The model's version, which changes with its files."""
    fingerprint: dict[str, str]
    """The same version, and the hash of the labels."""
    num_active_training_jobs: Literal[0] = 0
    """A server trains nothing."""


class RasaVersion(BaseModel):
    """The version of bankintent; of its own models, it is sure to read those of this version."""

    version: str
    minimum_compatible_version: str


class RasaError(BaseModel):
    """Every refusal; it never repeats what was sent."""

    version: str
    status: Literal["failure"]
    message: str
    reason: str
    details: dict[str, JsonValue]
    help: str | None
    code: int


@parse_router.post(
    "/model/parse",
    responses=openapi_responses(*STATUSES, model=RasaError),
)
async def parse(
    body: ParseRequest,
    request: Request,
    response: Response,
    emulation_mode: Annotated[str | None, Query(include_in_schema=False)] = None,
) -> ParseResult:
    """The intents of a message; `emulation_mode` is refused.

    Of several models, the default one answers: a request has no place for a name.
    """
    if emulation_mode is not None:
        raise Invalid("emulation_mode: not had here; leave it out")

    understood = await understand(request, response, body.text)
    return make_result(body.text, understood)


def make_result(text: str, understood: Understood) -> ParseResult:
    """The answer in Rasa's words."""
    scores = understood.ranked(FALLBACK, RANKED)
    ranking = [RasaIntent(name=score.label, confidence=score.score) for score in scores]
    return ParseResult(text=text, intent=ranking[0], intent_ranking=ranking)


@status_router.get("/status", responses=openapi_responses(401, 422, 503, model=RasaError))
async def status(request: Request) -> RasaStatus:
    """Which model is served; of several, the default one."""
    async with using(request) as service:
        facts = service.facts
    return RasaStatus(
        model_file=facts.name,
        model_id=facts.version,
        fingerprint={"model": facts.version, "labels": facts.labels_hash},
    )


@unguarded.get("/version")
async def version() -> RasaVersion:
    """The version of this server."""
    return RasaVersion(version=__version__, minimum_compatible_version=__version__)


async def need_token(
    request: Request,
    bearer: Bearer,
    token: Annotated[str | None, Depends(TOKEN)],
) -> None:
    """Dependency of a route that needs the key, as a bearer or as Rasa's token."""
    key = bearer.credentials if bearer else token
    check_key(request.app.state.key, key or "")


async def need_token_or_body(
    # By the name that the route gives it: it is the same body.
    body: ParseRequest,
    request: Request,
    bearer: Bearer,
    token: Annotated[str | None, Depends(TOKEN)],
) -> None:
    """The same for `/model/parse`, whose body may have the token."""
    key = bearer.credentials if bearer else token or body.token
    check_key(request.app.state.key, key or "")


def error_body(status: int, kind: str, message: str) -> dict[str, JsonValue]:
    """Rasa's body of an error."""
    error = RasaError(
        version=__version__,
        status="failure",
        message=message,
        reason=REASONS.get(kind, "BadRequest"),
        details={},
        help=None,
        code=status,
    )
    return error.model_dump()


def add_routes(app: FastAPI) -> None:
    """Add the routes of Rasa to an app."""
    app.include_router(parse_router, dependencies=key_guards(app, need_token_or_body))
    app.include_router(status_router, dependencies=key_guards(app, need_token))
    app.include_router(unguarded)


DIALECT = Dialect(
    paths=("/model/", "/status", "/version"), add_routes=add_routes, error_body=error_body
)
