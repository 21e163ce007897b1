"""How a request is refused, one class for each status, and the limit that holds for every body."""

import asyncio
import contextlib
from typing import ClassVar

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Refusal(Exception):
    """A request that gets an error body instead of an answer; the docstring of each kind is its OpenAPI text."""

    status: ClassVar[int]
    kind: ClassVar[str]
    headers: ClassVar[dict[str, str]] = {}

    def response(self) -> JSONResponse:
        return JSONResponse(
            {"error": str(self), "error_type": self.kind}, self.status, dict(self.headers)
        )


class Malformed(Refusal):
    """The body is not JSON that can be read."""

    status, kind = 400, "malformed"


class Unauthorized(Refusal):
    """The API key is missing or wrong."""

    status, kind, headers = 401, "unauthorized", {"WWW-Authenticate": "Bearer"}


class SlowBody(Refusal):
    """The body did not arrive before the deadline."""

    status, kind, headers = 408, "slow_body", {"Connection": "close"}


class TooLarge(Refusal):
    """The body is longer than max_body_bytes."""

    status, kind, headers = 413, "too_large", {"Connection": "close"}


class Invalid(Refusal):
    """The body is not of the documented form, a text is empty or too long, or there are too many."""

    status, kind = 422, "validation"


class ClientGone(Refusal):
    """The client left before its answer; nobody reads this."""

    status, kind = 499, "client_gone"


class QueueFull(Refusal):
    """The queue is full; try again after Retry-After seconds."""

    status, kind, headers = 429, "overloaded", {"Retry-After": "1"}


class NotReady(Refusal):
    """The model is still loading, or the process is about to end."""

    status, kind, headers = 503, "unhealthy", {"Retry-After": "1"}


class DeadlineExceeded(Refusal):
    """No answer before the deadline; what had not begun was not done."""

    status, kind = 504, "timeout"


REASONS = {refusal.status: refusal.kind for refusal in Refusal.__subclasses__()}
"""What the metrics call each status."""


class BodyLimit:
    """Reads the body before the application does, so that size and patience are the same with and without a
    Content-Length and no handler ever holds a place while a slow client is still sending.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [name for name, _ in scope["headers"]] if scope["type"] == "http" else []
        if b"content-length" not in names and b"transfer-encoding" not in names:
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            return await SlowBody("the body took too long to arrive").response()(
                scope, receive, send
            )
        except Refusal as refusal:
            return await refusal.response()(scope, receive, send)
        await self.app(scope, replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        declared = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        too_large = int(declared) > self.max_bytes
        body = bytearray()
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


def replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then goes on with the original."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def discard(receive: Receive, seconds: float = 1.0) -> None:
    """Read on for a moment: a client that is cut off while it sends would not see the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
