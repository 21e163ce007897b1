"""From a request to its answers: the key, the limits, the deadline, and a client that may leave."""

import asyncio
import hmac
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bankintent.config import LimitsSection
from bankintent.serving.limits import ClientGone, DeadlineExceeded, Invalid, Unauthorized
from bankintent.serving.service import Answer, Service

Result = TypeVar("Result")
BEARER = HTTPBearer(auto_error=False, description="The value of BANKINTENT_API_KEY")


def the_service(request: Request) -> Service:
    """The service of the app that got the request."""
    return request.app.state.service


async def need_key(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> None:
    """Dependency of the guarded routes, where there is a key."""
    check_key(request.app.state.key, sent.credentials if sent else "")


async def classify(request: Request, texts: list[str]) -> list[Answer]:
    """Check the limits, then the answers before the deadline; measured and counted."""
    service = the_service(request)
    allowed = service.settings.limits
    request.scope["measured"]["texts"] = len(texts)
    check_texts(texts, allowed)
    left = allowed.deadline_s - (asyncio.get_running_loop().time() - request.scope["arrived"])
    answers = await in_time(service.classify(texts), request, left)
    request.scope["measured"]["tokens"] = sum(answer.tokens for answer in answers)
    service.metrics.observe_answers(
        [service.facts.labels[int(answer.logits.argmax())] for answer in answers]
    )
    return answers


def check_texts(texts: Sequence[str], limits: LimitsSection) -> None:
    """Raise Invalid for too many texts or one that is too long."""
    if len(texts) > limits.max_texts:
        raise Invalid(
            f"{len(texts)} texts in one request; at most {limits.max_texts} are allowed. Send several requests."
        )
    longest = max(len(text) for text in texts)
    if longest > limits.max_chars:
        raise Invalid(
            f"a text of {longest} characters; at most {limits.max_chars} are allowed. Shorten it."
        )


def check_key(expected: str | None, given: str) -> None:
    """Raise Unauthorized unless no key is expected or the given one is it; the time taken tells nothing of the key."""
    if expected and not hmac.compare_digest(
        expected.encode(), given.encode("utf-8", "surrogatepass")
    ):
        raise Unauthorized("this API needs its key, sent as the header Authorization: Bearer KEY")


async def in_time(work: Coroutine[Any, Any, Result], request: Request, seconds: float) -> Result:
    """The work's result, unless the deadline passes or the client leaves first; then the work is cancelled."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        done, _ = await asyncio.wait(
            (task, gone), timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return task.result()
        if gone in done:
            raise ClientGone("the client left")
        raise DeadlineExceeded("no answer before the deadline; send less, or try again later")
    finally:
        task.cancel()
        gone.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
