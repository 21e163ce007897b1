"""The limit on request bodies, in bytes and in seconds."""

import asyncio
import contextlib
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bankintent.serving.error_bodies import refusal_response
from bankintent.serving.refusals import ClientGone, Refusal, SlowBody, TooLarge
from bankintent.serving.telemetry import ARRIVED


class BodyLimit:
    """Middleware that reads the whole body before the application does.

    Both limits hold with and without a Content-Length, and no handler holds a place in the queue
    while a slow client is still sending.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_body(scope):
            await self.app(scope, receive, send)
            return

        try:
            body = await self._read_in_time(scope, receive)
        except Refusal as refusal:
            # The application's error handlers are inside this middleware and do not see it.
            response = refusal_response(refusal)
            await response(scope, receive, send)
            return

        await self.app(scope, replay(body, receive), send)

    async def _read_in_time(self, scope: Scope, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._time_left(scope)):
                return await self._read(scope, receive)
        except TimeoutError:
            raise SlowBody("the body took too long to arrive") from None

    def _time_left(self, scope: Scope) -> float:
        """Seconds until the body is too late, which the headers may have used in part."""
        arrived = scope.get(ARRIVED)
        used = time.monotonic() - arrived if arrived else 0.0
        return max(self.seconds - used, 0.0)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body. Raises TooLarge, or ClientGone where the client ends the connection."""
        too_large = declared_length(scope) > self.max_bytes
        body = bytearray()

        # A chunked body declares no length, and a declared one may be wrong: count what arrives.
        while not too_large:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left")

            body += message.get("body", b"")
            too_large = len(body) > self.max_bytes
            if not message.get("more_body", False):
                break

        if too_large:
            await discard(receive)
            raise TooLarge(
                f"the body is longer than {self.max_bytes} bytes. Send several requests."
            )
        return bytes(body)


def has_body(scope: Scope) -> bool:
    """Whether the headers of an HTTP request announce a body (RFC 9112, section 6)."""
    if scope["type"] != "http":
        return False

    names = [name for name, _ in scope["headers"]]
    return b"content-length" in names or b"transfer-encoding" in names


def declared_length(scope: Scope) -> int:
    """The Content-Length in bytes; 0 without one."""
    for name, value in scope["headers"]:
        # uvicorn has refused a value that is not a number.
        if name == b"content-length":
            return int(value)
    return 0


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns the body that was read, then passes on to the original."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        if pending:
            return pending.pop()
        # The application reads on, to learn when the client leaves.
        return await receive()

    return replayed


async def discard(receive: Receive, seconds: float = 1.0) -> None:
    """Read and drop the rest of a body, for `seconds` at most.

    A client that is cut off while it sends would not see the answer.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
