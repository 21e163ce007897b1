"""An app that says that it has started once its model is there."""

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from bankintent.serving.service import State

PAUSE_SECONDS = 0.05


class ReadyApp:
    """An app that has started once its model is loaded and warm: until then a replica gets nothing.

    Under another server, probes are answered while the model loads.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: the start of the lifespan is confirmed late, everything else is passed on."""

        async def send_when_ready(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._ready()
            await send(message)

        is_lifespan = scope["type"] == "lifespan"
        await self.app(scope, receive, send_when_ready if is_lifespan else send)

    async def _ready(self) -> None:
        # A model that cannot be loaded ends this process.
        while self.app.state.service.state is State.LOADING:
            await asyncio.sleep(PAUSE_SECONDS)
