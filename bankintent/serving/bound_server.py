"""How the app brings the bounds of connections to the uvicorn that starts it."""

import logging

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bankintent.serving import telemetry
from bankintent.serving.connections import Connections, fit_descriptors
from bankintent.serving.protocol import CONNECTIONS, BoundedProtocol
from bankintent.serving.served import Served

SERVER = "bankintent.server"
"""The key of the settings of uvicorn in the scope of the lifespan; None under any other server."""


class BoundServer:
    """The app in a server whose connections are bounded.

    It brings the bounded protocol to the uvicorn that starts it, so that `uvicorn backend:app` has
    the same bounds as `python -m backend`. It is no middleware: FastAPI wraps `receive` before
    those.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.models: Served = app.state.models
        self.connections = Connections(self.models.settings.limits, app.state.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope.setdefault("state", {})[CONNECTIONS] = self.connections
            scope[SERVER] = server_config(receive)
            if scope[SERVER] is not None:
                self._bind(scope[SERVER])
        await self.app(scope, receive, send)

    def _bind(self, config: Config) -> None:
        telemetry.start_logging()
        # uvicorn reads both when it opens the port, after the app's start.
        if config.http_protocol_class is HttpToolsProtocol:
            config.http_protocol_class = BoundedProtocol
        config.backlog = min(config.backlog, self.connections.limits.max_connections)

        if not issubclass(config.http_protocol_class, BoundedProtocol):
            telemetry.log_event(
                "connections are not bounded: only uvicorn's httptools protocol can be",
                logging.WARNING,
            )
            return

        limits = self.connections.limits
        most = fit_descriptors(limits.max_connections, config.backlog)
        if most < limits.max_connections:
            config.backlog = min(config.backlog, most)
            self._lower(most)

    def _lower(self, most: int) -> None:
        """Hold, and show in `/info`, fewer connections than were asked for."""
        limits = self.connections.limits.model_copy(update={"max_connections": most})
        self.connections.limits = limits
        self.models.settings = self.models.settings.model_copy(update={"limits": limits})


def server_config(receive: Receive) -> Config | None:
    """The settings of the uvicorn that runs an app's lifespan; None under any other server.

    `receive` is a method of uvicorn's lifespan, which has the settings of the server.
    """
    lifespan = getattr(receive, "__self__", None)
    config = getattr(lifespan, "config", None)
    return config if isinstance(config, Config) else None
