"""The HTTP API: the application, its routes, and its error handlers."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from bankintent import __version__
from bankintent.api_key import read_key
from bankintent.config import ServeConfig
from bankintent.serving import lifetime, wire
from bankintent.serving.addresses import HeadAsGet, Prefix
from bankintent.serving.admission import classify, key_guards, service_of
from bankintent.serving.body_limit import BodyLimit
from bankintent.serving.bounded import UNREADABLE, BoundedRoute
from bankintent.serving.decision_header import say_decisions
from bankintent.serving.error_bodies import error_response, openapi_responses, refusal_response
from bankintent.serving.explaining import explain
from bankintent.serving.explanation_body import make_explanation
from bankintent.serving.hosts import HostCheck
from bankintent.serving.page import routes as pages
from bankintent.serving.refusals import Invalid, NotReady, Refusal
from bankintent.serving.service import Service, State, find_model
from bankintent.serving.telemetry import Metrics, Telemetry

DESCRIPTION = (
    "Sentences in, intents out. Errors are `{error, error_type}` and never repeat what was sent."
)

FRAMEWORK_ERRORS = {
    400: ("malformed", UNREADABLE),
    404: ("not_found", "there is no such page"),
    405: ("method_not_allowed", "this page does not take that method"),
}
"""The error types and messages of the requests that FastAPI itself refuses."""

PREDICT_ERRORS = openapi_responses(400, 401, 403, 408, 413, 422, 429, 503, 504)
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


def create_app(settings: ServeConfig, find: lifetime.Finder = find_model) -> FastAPI:
    """The application; its lifespan finds and loads the model. Tests pass their own `find`."""
    metrics = Metrics()
    service = Service(settings, metrics)

    # Offline: what the page at /docs loads is part of it. The page itself is one of `pages`.
    app = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        title="bankintent",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lambda app: lifetime.serve(service, find),
        # /predict and /predict/ are two routes, and a client may not follow a redirected POST.
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = metrics
    # Before the routes are included: whether they are guarded depends on it.
    app.state.key = read_key()

    app.include_router(guarded, dependencies=key_guards(app))
    app.include_router(unguarded)
    pages.add(app)

    app.add_exception_handler(Refusal, handle_refusal)
    app.add_exception_handler(RequestValidationError, handle_invalid_body)
    app.add_exception_handler(HTTPException, handle_framework_error)

    # The middleware added last is the outermost: telemetry also sees what the body limit refuses.
    limits = settings.limits
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, seconds=limits.deadline_s)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Telemetry, metrics=metrics)

    if settings.compat:
        # Late, so that an API without them loads nothing of them.
        from bankintent.serving.compat import services

        services.add(app, settings.compat)

    # Outermost: everything else sees the path as the routes have it.
    app.add_middleware(Prefix, root_path=settings.root_path)
    return app


async def handle_refusal(request: Request, error: Exception) -> Response:
    """Exception handler: a Refusal as its error body."""
    # FastAPI's type of a handler takes any Exception; it calls this one with refusals only.
    assert isinstance(error, Refusal)
    return refusal_response(error)


async def handle_invalid_body(request: Request, error: Exception) -> Response:
    """Exception handler: the problems of an invalid body, without anything that was sent."""
    assert isinstance(error, RequestValidationError)
    return refusal_response(Invalid(wire.describe_invalid(error)))


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
    service = service_of(request)
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

    service = service_of(request)
    answers = await classify(service, request, body.texts)
    facts = service.facts

    # A request that does not set truncate has its texts cut, as with true.
    if body.truncate is False and any(answer.truncated for answer in answers):
        raise Invalid(f"a text has more than {facts.max_length} tokens and truncate is false")

    say_decisions(response, answers)
    scores = [wire.score_all(answer, facts, body.raw_scores) for answer in answers]
    return scores if body.is_batch else scores[0]


@unguarded.get("/health/live", tags=["operations"])
async def live_probe() -> wire.Health:
    """The process runs."""
    return wire.Health(status="live")


@unguarded.get("/health/ready", responses=openapi_responses(503), tags=["operations"])
async def ready_probe(request: Request) -> wire.Health:
    """The model is loaded and warm, and the process is not about to end."""
    state = service_of(request).state

    if state is not State.READY:
        raise NotReady(state.value)

    return wire.Health(status="ready")


@guarded.get("/info", responses=openapi_responses(401, 503), tags=["operations"])
async def info(request: Request) -> wire.Info:
    """Which model is served, how, and within which limits."""
    service = service_of(request)
    return wire.make_info(service.facts, service.policy, service.settings)


@guarded.get("/metrics", responses=METRICS_RESPONSES, response_class=Response, tags=["operations"])
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    content = generate_latest(request.app.state.metrics.registry)
    return Response(content, media_type=CONTENT_TYPE_LATEST)
