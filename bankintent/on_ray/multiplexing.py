"""Several models on Ray Serve: each replica holds some of them, and Serve knows which.

A request names its model in Serve's own header, `serve_multiplexed_model_id`, or in its path,
`/models/NAME/predict`. With the header Serve chooses a replica that holds the model already.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn

from bankintent.config import ServeConfig
from bankintent.errors import ConfigError, UserError
from bankintent.on_ray.ready import ReadyApp
from bankintent.serving import entries
from bankintent.serving.app import create_app
from bankintent.serving.error_bodies import error_response
from bankintent.serving.service import find_model
from bankintent.serving.telemetry import log_event

HEADER = b"serve_multiplexed_model_id"
"""Ray Serve's header of the model that a request is for."""

MODELS = "/models/"
"""Begin of the paths that name a model."""

PROBES = ("/health/live", "/health/ready")
"""Paths that are of no model: a replica that answers is there."""

Load = Callable[[str], Awaitable["LoadedModel"]]
"""Gives the app of a model by its name."""


def require_supported(settings: ServeConfig) -> None:
    """Raise ConfigError for keys of several models that Ray Serve does not have."""
    for key in ("models_dir", "base", "memory_mb"):
        if getattr(settings, key) is not None:
            raise ConfigError(
                f"engine: ray does not serve {key}",
                "Name the models under models:, or use engine: local",
            )


def settings_of(settings: ServeConfig, name: str) -> ServeConfig:
    """The serve.yaml of one of several models, as if it were served alone."""
    own = entries.settings_of(settings, settings.models[name])
    return own.model_copy(update={"models": {}, "default_model": None})


class LoadedModel:
    """The app of one model within a replica, with a lifespan of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = ReadyApp(app)
        config = Config(self.app, lifespan="on", log_config=None, access_log=False)
        self._lifespan = LifespanOn(config)

    @classmethod
    async def load(cls, settings: ServeConfig) -> "LoadedModel":
        """Load and warm the model of the settings; a UserError where it cannot be loaded."""
        # Here, because the app's own lifespan would end the process, and the other models with it.
        load = await asyncio.to_thread(find_model, settings)
        runtime = await asyncio.to_thread(load)
        loaded = cls(create_app(settings, lambda _: lambda: runtime))
        await loaded._lifespan.startup()
        return loaded

    async def __del__(self) -> None:
        """Finish what it has begun; Ray Serve calls this for a model that it unloads."""
        await self._lifespan.shutdown()


class Multiplexer:
    """An ASGI app that hands each request to the app of its model."""

    def __init__(self, settings: ServeConfig, load: Load) -> None:
        self._names = frozenset(settings.models)
        self._default = settings.default_model
        if self._default is None and len(settings.models) == 1:
            [self._default] = settings.models
        self._load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; a request of no known model is 404, one whose model cannot be loaded 503."""
        if scope["type"] == "lifespan":
            await _confirm(receive, send)
            return
        if scope["path"] in PROBES:
            await _health(scope, receive, send)
            return

        name, inner = self._address(scope)
        answer: ASGIApp
        if name not in self._names:
            # Without a list: this is before any key is looked at.
            what = "name a model" if name is None else "there is no model of this name"
            answer = error_response(404, "not_found", what)
        else:
            answer = await self._find(name)
        await answer(inner, receive, send)

    def _address(self, scope: Scope) -> tuple[str | None, Scope]:
        """The name of the model that a request is for, and the request for that model's app."""
        path = scope["path"]
        if path.startswith(MODELS):
            name, _, rest = path.removeprefix(MODELS).partition("/")
            inner = f"/{rest}"
            return name, dict(scope) | {"path": inner, "raw_path": inner.encode()}

        named = dict(scope["headers"]).get(HEADER, b"").decode("latin-1")
        return named or self._default, scope

    async def _find(self, name: str) -> ASGIApp:
        try:
            loaded = await self._load(name)
        except UserError as error:
            log_event("model not loaded", logging.ERROR, model=name, reason=str(error))
            return error_response(503, "not_ready", "the model cannot be loaded")
        return loaded.app


async def _confirm(receive: Receive, send: Send) -> None:
    """A lifespan in which nothing is done: models have their own."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _health(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    status = scope["path"].rpartition("/")[2]
    await JSONResponse({"status": status})(scope, receive, send)
