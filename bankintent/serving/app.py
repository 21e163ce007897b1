"""The HTTP API: routes, and the life of the process around them."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from bankintent import __version__
from bankintent.config import ServeConfig
from bankintent.errors import ConfigError, UserError
from bankintent.inference.runtime import Runtime
from bankintent.serving import limits, telemetry, wire
from bankintent.serving.admission import classify, need_key, the_service
from bankintent.serving.page import routes as pages
from bankintent.serving.service import Service, State, find_model
from bankintent.serving.wire import refusals

Finder = Callable[[ServeConfig], Callable[[], Runtime]]
KEY_VARIABLE = "BANKINTENT_API_KEY"
FRAMEWORK = {
    400: ("malformed", "the body cannot be read as JSON"),
    404: ("not_found", "there is no such page"),
    405: ("method_not_allowed", "this page does not take that method"),
}
"""What the framework refuses by itself, in our words."""


def create_app(settings: ServeConfig, find: Finder = find_model) -> FastAPI:
    """The application; its lifespan finds and loads the model. Tests give another `find`."""
    service = Service(settings)
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="bankintent",
        version=__version__,
        description="Sentences in, intents out. Errors are `{error, error_type}` and never repeat what was sent.",
        lifespan=lambda app: live(service, find),
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.key = read_key()
    app.include_router(guarded, dependencies=[Depends(need_key)] if app.state.key else [])
    app.include_router(unguarded)
    pages.add(app)
    app.add_exception_handler(limits.Refusal, refuse)
    app.add_exception_handler(RequestValidationError, refuse_body)
    app.add_exception_handler(HTTPException, refuse_http)
    app.add_middleware(
        limits.BodyLimit,
        max_bytes=settings.limits.max_body_bytes,
        seconds=settings.limits.deadline_s,
    )
    app.add_middleware(telemetry.Telemetry, metrics=service.metrics)
    return app


def read_key() -> str | None:
    """The API key that callers must send; ConfigError where the variable is set and empty."""
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not key.strip():
        raise ConfigError(
            f"{KEY_VARIABLE} is set but empty", "Give it a value, or unset it to need no key"
        )
    return key


@contextlib.asynccontextmanager
async def live(service: Service, find: Finder) -> AsyncIterator[None]:
    """Verify the model before the port opens, load it behind: `/health/live` answers at once, `/health/ready` later."""
    telemetry.start_logging()
    try:
        load = await asyncio.to_thread(find, service.settings)
    except UserError as error:
        fail(error)
        await asyncio.Event().wait()
    with draining_on_signals(service):
        loading = asyncio.create_task(service.start(load))
        loading.add_done_callback(end_unless_loaded)
        yield
        loading.cancel()
        await service.close()


def end_unless_loaded(loading: "asyncio.Task[None]") -> None:
    """A model that cannot be served ends the process with one line and code 2."""
    error = None if loading.cancelled() else loading.exception()
    if error is None:
        return
    if not isinstance(error, UserError):
        error = UserError(f"the model cannot be served: {type(error).__name__}: {error}")
    fail(error)


def fail(error: UserError) -> None:
    """One line, then the end; the server would otherwise report its own cancelled tasks at length."""
    print(f"error: {error}", file=sys.stderr)
    logging.getLogger("uvicorn.error").disabled = True
    asyncio.get_running_loop().call_soon(sys.exit, error.exit_code)


@contextlib.contextmanager
def draining_on_signals(service: Service) -> Iterator[None]:
    """Be unready as soon as SIGTERM or SIGINT arrives, then let the server's own handler end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        if service.state is not State.DRAINING:
            service.state = State.DRAINING
            loop.call_soon_threadsafe(service.drain)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


async def refuse(request: Request, error: Exception) -> Response:
    """Exception handler: a Refusal as its error body."""
    assert isinstance(error, limits.Refusal)
    return error.response()


async def refuse_body(request: Request, error: Exception) -> Response:
    """Exception handler: what is wrong with a body, without the body."""
    assert isinstance(error, RequestValidationError)
    return await refuse(request, limits.Invalid(wire.describe(error)))


async def refuse_http(request: Request, error: Exception) -> Response:
    """Exception handler: the framework's own refusals in the common form."""
    assert isinstance(error, HTTPException)
    kind, message = FRAMEWORK.get(error.status_code, ("refused", error.detail))
    return JSONResponse(
        {"error": message, "error_type": kind}, error.status_code, dict(error.headers or {})
    )


guarded, unguarded = APIRouter(), APIRouter()
ON_PREDICT = refusals(400, 401, 408, 413, 422, 429, 503, 504)


@guarded.post("/predict/", responses=ON_PREDICT, tags=["predict"])
async def predict(
    body: wire.PredictRequest, request: Request
) -> wire.Prediction | list[wire.Prediction]:
    """The intent of a text; for a list of texts a list of such answers, in order."""
    answers = await classify(request, body.texts)
    facts = the_service(request).facts
    out = [
        wire.prediction(answer.logits, answer.truncated, facts, body.top_k) for answer in answers
    ]
    return out if isinstance(body.text, list) else out[0]


@guarded.post("/predict", responses=ON_PREDICT, tags=["predict"])
async def predict_either(
    body: wire.EitherRequest, request: Request
) -> wire.Prediction | list[wire.Prediction] | list[wire.Score] | list[list[wire.Score]]:
    """The same, or the body of text-embeddings-inference's `/predict`: all intents of each text, best first."""
    if isinstance(body, wire.PredictRequest):
        return await predict(body, request)
    answers = await classify(request, body.texts)
    if body.truncate is False and any(answer.truncated for answer in answers):
        raise limits.Invalid(
            f"a text has more than {the_service(request).facts.max_length} tokens and truncate is false"
        )
    facts = the_service(request).facts
    scores = [wire.all_scores(answer.logits, facts, body.raw_scores) for answer in answers]
    return scores if body.is_batch else scores[0]


@unguarded.get("/health/live", tags=["operations"])
async def live_probe() -> wire.Health:
    """The process runs."""
    return wire.Health(status="live")


@unguarded.get("/health/ready", responses=refusals(503), tags=["operations"])
async def ready_probe(request: Request) -> wire.Health:
    """The model is loaded and warm, and the process is not about to end."""
    state = the_service(request).state
    if state is not State.READY:
        raise limits.NotReady(state.value)
    return wire.Health(status="ready")


@guarded.get("/info", responses=refusals(401, 503), tags=["operations"])
async def info(request: Request) -> wire.Info:
    """Which model is served, how, and within which limits."""
    service = the_service(request)
    return wire.info(service.facts, service.settings)


@guarded.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401)},
    response_class=Response,
    tags=["operations"],
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(
        generate_latest(the_service(request).metrics.registry), media_type=CONTENT_TYPE_LATEST
    )
