"""A bound on what uploads may store together, and on each of them, whatever its header says."""

import contextlib
from pathlib import Path
from typing import Any

from bankintent.gradio_app.uploads import FILES_OF_ALL, stored_bytes

ROUTE = "/upload"
"""End of the path of Gradio's route for uploads."""

FORM_BYTES = 1 << 16
"""Bytes of a form beside those of its file."""

FULL = "The page holds as many files as it may. Try again in an hour, or use a smaller file."
TOO_LARGE = "The file is too large for this page."


class _TooMany(Exception):
    """An upload has more bytes than it may."""


class UploadLimit:
    """ASGI middleware that refuses an upload with 413."""

    def __init__(self, app: Any, folder: Path, max_bytes: int) -> None:
        self.app = app
        self.folder = folder
        self.max_body = max_bytes + FORM_BYTES
        self.most = FILES_OF_ALL * max_bytes
        self.arriving = 0
        """Bytes that the uploads of the moment may have."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_upload = scope["type"] == "http" and scope["path"].rstrip("/").endswith(ROUTE)
        if not is_upload:
            await self.app(scope, receive, send)
            return

        stored = stored_bytes(self.folder)
        if stored + self.arriving + self.max_body > self.most:
            await _refuse(send, FULL)
            return

        self.arriving += self.max_body
        try:
            await self._admit(scope, receive, send)
        finally:
            self.arriving -= self.max_body

    async def _admit(self, scope: Any, receive: Any, send: Any) -> None:
        left = self.max_body
        has_answer = False

        async def count() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooMany
            return message

        async def answer(message: Any) -> None:
            nonlocal has_answer
            # What the app makes of the error is not sent.
            if left >= 0 or has_answer:
                has_answer = True
                await send(message)

        with contextlib.suppress(_TooMany):
            await self.app(scope, count, answer)
        if left < 0 and not has_answer:
            await _refuse(send, TOO_LARGE)


async def _refuse(send: Any, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
