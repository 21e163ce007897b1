"""The HTTP API: the application, its routes, and its error handlers."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from bankintent import __version__
from bankintent.api_key import read_key
from bankintent.config import ServeConfig
from bankintent.serving import info_bodies, lifetime, tracing, wire
from bankintent.serving.addresses import HeadAsGet, Prefix
from bankintent.serving.admission import classify, key_guards, served_by, using
from bankintent.serving.body_limit import BodyLimit
from bankintent.serving.bounded import UNREADABLE, BoundedRoute
from bankintent.serving.decision_header import say_decisions
from bankintent.serving.error_bodies import error_response, openapi_responses, refusal_response
from bankintent.serving.explaining import explain
from bankintent.serving.explanation_body import make_explanation
from bankintent.serving.hosts import HostCheck
from bankintent.serving.invalid_bodies import describe_invalid
from bankintent.serving.loading import Bases
from bankintent.serving.metrics import Metrics
from bankintent.serving.models import ManyModels
from bankintent.serving.one_model import OneModel
from bankintent.serving.page import routes as pages
from bankintent.serving.refusals import Invalid, NotReady, Refusal, UnknownModel
from bankintent.serving.served import Finder, Served
from bankintent.serving.service import State, find_model
from bankintent.serving.telemetry import Telemetry
from bankintent.serving.tenants import AdapterBases

DESCRIPTION = (
    "Sentences in, intents out. Errors are `{error, error_type}` and never repeat what was sent."
)

FRAMEWORK_ERRORS = {
    400: ("malformed", UNREADABLE),
    404: ("not_found", "there is no such page"),
    405: ("method_not_allowed", "this page does not take that method"),
}
"""The error types and messages of the requests that FastAPI itself refuses."""

PREDICT_ERRORS = openapi_responses(400, 401, 403, 404, 408, 413, 422, 429, 503, 504)
"""The refusals of `/predict`, for the OpenAPI document."""

METRICS_RESPONSES = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    **openapi_responses(401),
}
"""The answers of `/metrics`; without this, FastAPI would document no content."""

guarded = APIRouter(route_class=BoundedRoute)
"""Routes that need the key, where there is one."""

unguarded = APIRouter()
"""Health probes, which have no key."""


Model = Annotated[str | None, Query(max_length=100)]
"""The name of a model in an address."""


def create_app(
    settings: ServeConfig, find: Finder = find_model, bases: Bases | None = None
) -> FastAPI:
    """The application; its lifespan finds and loads what is served.

    Tests pass their own `find` and `bases`.
    """
    metrics = Metrics(several=settings.has_several)
    models = _make_models(settings, metrics, find, bases)

    # Offline: what the page at /docs loads is part of it. The page itself is one of `pages`.
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="bankintent",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lambda app: lifetime.serve(models),
        # /predict and /predict/ are two routes, and a client may not follow a redirected POST.
        redirect_slashes=False,
        # FastAPI's own spans and logs have addresses, bodies and messages: users' texts.
        telemetry=tracing.NO_OWN_TELEMETRY,
    )
    app.state.models = models
    if isinstance(models, OneModel):
        app.state.service = models.service
    app.state.metrics = metrics
    # Before the routes are included: whether they are guarded depends on it.
    app.state.key = read_key()

    app.include_router(guarded, dependencies=key_guards(app))
    app.include_router(unguarded)
    pages.add(app)

    app.add_exception_handler(Refusal, handle_refusal)
    app.add_exception_handler(RequestValidationError, handle_invalid_body)
    app.add_exception_handler(HTTPException, handle_framework_error)

    _add_middleware(app, settings, metrics)

    if settings.compat:
        # Late, so that an API without them loads nothing of them.
        from bankintent.serving.compat import services

        services.add(app, settings.compat)

    # Outermost: everything else sees the path as the routes have it.
    app.add_middleware(Prefix, root_path=settings.root_path)
    return app


def _add_middleware(app: FastAPI, settings: ServeConfig, metrics: Metrics) -> None:
    # The middleware added last is the outermost: telemetry also sees what the body limit refuses.
    limits = settings.limits
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, seconds=limits.deadline_s)
    app.add_middleware(HeadAsGet)
    traces = tracing.start()
    if traces is not None:
        app.add_middleware(tracing.Tracing, provider=traces)
    app.add_middleware(Telemetry, metrics=metrics)


def _make_models(
    settings: ServeConfig, metrics: Metrics, find: Finder, bases: Bases | None
) -> Served:
    if settings.has_several:
        return ManyModels(settings, metrics, find, bases or AdapterBases())
    return OneModel(settings, metrics, find)


async def handle_refusal(request: Request, error: Exception) -> Response:
    """Exception handler: a Refusal as its error body."""
    # FastAPI's type of a handler takes any Exception; it calls this one with refusals only.
    assert isinstance(error, Refusal)
    return refusal_response(error)


async def handle_invalid_body(request: Request, error: Exception) -> Response:
    """Exception handler: the problems of an invalid body, without anything that was sent."""
    assert isinstance(error, RequestValidationError)
    return refusal_response(Invalid(describe_invalid(error)))


async def handle_framework_error(request: Request, error: Exception) -> Response:
    """Exception handler: the framework's own refusals in the common form."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    kind, message = FRAMEWORK_ERRORS.get(status, ("refused", error.detail))
    return error_response(status, kind, message, error.headers)


@guarded.post("/predict/", responses=PREDICT_ERRORS, tags=["predict"])
async def predict(
    body: wire.PredictRequest, request: Request
) -> wire.Prediction | list[wire.Prediction]:
    """The intent of a text; for a list of texts a list of such answers, in order.

    Where the model is not sure enough, or the text is none of its intents, `decision` is `abstain`.
    With `explain` each has its nearest training sentences and the weights of its words, which
    takes as many passes through the model as it has words.
    """
    async with using(request, body.model) as service:
        predictions = []
        if body.explain:
            for one in await explain(service, request, body.texts):
                prediction = wire.make_prediction(one.answer, service.facts, body.top_k)
                prediction.explanation = make_explanation(one.explanation)
                predictions.append(prediction)
        else:
            for answer in await classify(service, request, body.texts):
                predictions.append(wire.make_prediction(answer, service.facts, body.top_k))
    return predictions if isinstance(body.text, list) else predictions[0]


@guarded.post("/predict", responses=PREDICT_ERRORS, tags=["predict"])
async def predict_either(
    body: wire.EitherRequest, request: Request, response: Response
) -> wire.Prediction | list[wire.Prediction] | list[wire.Score] | list[list[wire.Score]]:
    """The same as `/predict/`, or the request of text-embeddings-inference's `/predict`.

    The latter is answered with all intents of each text, best first. Its form has no word for an
    answer that the model does not give: the header `X-Decision` says so for each text.
    """
    if isinstance(body, wire.PredictRequest):
        return await predict(body, request)

    return await _score(body, request, response, None)


async def _score(
    body: wire.TeiRequest, request: Request, response: Response, model: str | None
) -> list[wire.Score] | list[list[wire.Score]]:
    """The answer to text-embeddings-inference's request."""
    async with using(request, model) as service:
        answers = await classify(service, request, body.texts)
        facts = service.facts

    # A request that does not set truncate has its texts cut, as with true.
    if body.truncate is False and any(answer.truncated for answer in answers):
        raise Invalid(f"a text has more than {facts.max_length} tokens and truncate is false")

    say_decisions(response, answers)
    scores = [wire.score_all(answer, facts, body.raw_scores) for answer in answers]
    return scores if body.is_batch else scores[0]


@guarded.post("/models/{name}/predict", responses=PREDICT_ERRORS, tags=["models"])
async def predict_by_path(
    name: str, body: wire.EitherRequest, request: Request, response: Response
) -> wire.Prediction | list[wire.Prediction] | list[wire.Score] | list[list[wire.Score]]:
    """The same as `/predict`, by the model of this name."""
    if isinstance(body, wire.TeiRequest):
        return await _score(body, request, response, name)

    if body.model not in (None, name):
        raise UnknownModel("the body names another model than the address")
    return await predict(body.model_copy(update={"model": name}), request)


@guarded.get("/models", responses=openapi_responses(401), tags=["models"])
async def list_models(request: Request) -> info_bodies.ModelList:
    """Which models there are, and in which state; at most the first thousand."""
    return info_bodies.make_list(served_by(request))


@unguarded.get("/health/live", tags=["operations"])
async def live_probe() -> info_bodies.Health:
    """The process runs."""
    return info_bodies.Health(status="live")


@unguarded.get("/health/ready", responses=openapi_responses(503), tags=["operations"])
async def ready_probe(request: Request) -> info_bodies.Health:
    """The model is loaded and warm, and the process is not about to end.

    Of several models, those that are loaded at the start are, as far as they can be served.
    """
    state = served_by(request).state

    if state is not State.READY:
        raise NotReady(state.value)

    return info_bodies.Health(status="ready")


@guarded.get("/info", responses=openapi_responses(401, 404, 422, 503), tags=["operations"])
async def info(request: Request, model: Model = None) -> info_bodies.Info:
    """Which model is served, how, and within which limits; of several, the one that is named."""
    async with using(request, model) as service:
        return info_bodies.make_info(service.facts, service.policy, service.settings)


@guarded.get("/metrics", responses=METRICS_RESPONSES, response_class=Response, tags=["operations"])
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    # In a thread: with many models and intents it takes long, and requests must not wait for it.
    content = await asyncio.to_thread(generate_latest, request.app.state.metrics.registry)
    return Response(content, media_type=CONTENT_TYPE_LATEST)
