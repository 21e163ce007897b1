"""uvicorn on a port that a command holds already."""

import contextlib
import socket
import sys

import uvicorn

from bankintent import ports

START_FAILED = 3
"""The exit code of uvicorn for an app that does not start."""


class OwnServer(uvicorn.Server):
    """Says where it listens, also on sockets that it was given."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen.

        Raises UserError where another process has begun to listen on the port meanwhile.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            await self.lifespan.shutdown()
            raise ports.refused(error, self.config.host, self.config.port) from None
        if self.started and sockets:
            self._log_started_message(sockets)


def run(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    """Serve on these sockets until the process is ended; Ctrl+C ends it in order."""
    server = OwnServer(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(START_FAILED)
