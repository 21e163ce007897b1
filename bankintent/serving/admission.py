"""Admission of requests: the key, the limits, the deadline, and clients that leave."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bankintent.config import LimitsSection
from bankintent.serving.refusals import (
    ClientGone,
    DeadlineExceeded,
    Invalid,
    NotReady,
    Unauthorized,
)
from bankintent.serving.served import Served
from bankintent.serving.service import Answer, Service, State
from bankintent.serving.telemetry import record_of

Result = TypeVar("Result")
BEARER = HTTPBearer(auto_error=False, description="The value of BANKINTENT_API_KEY")
"""Reads the Authorization header; a missing one is left to `check_key`, which says what to send."""

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
"""The key of the Authorization header, as the parameter of a dependency."""

LATE = "no answer before the deadline; send less, or try again later"


def served_by(request: Request) -> Served:
    """What the app of this request serves."""
    return request.app.state.models


@contextlib.asynccontextmanager
async def using(request: Request, name: str | None = None) -> AsyncIterator[Service]:
    """The service of a model for as long as the block; without a name, of the default one.

    A model that is not loaded is waited for, until the deadline of the request. Raises
    UnknownModel, NotReady, or Invalid where a request has to name a model.
    """
    models = served_by(request)
    record = record_of(request.scope)
    loaded = models.take(name)
    while loaded is None:
        deadline = record.arrived + models.settings.limits.deadline_s
        try:
            check_time(deadline)
            await in_time(models.load(name), request, deadline)
        except DeadlineExceeded:
            raise NotReady(State.LOADING.value) from None
        loaded = models.take(name)

    try:
        record.model = loaded.name
        yield loaded.service
    finally:
        models.release(loaded)


async def need_key(request: Request, bearer: Bearer) -> None:
    """Dependency of a route that needs the key."""
    key = bearer.credentials if bearer else ""
    check_key(request.app.state.key, key)


def key_guards(app: FastAPI, guard: Callable[..., Any] = need_key) -> list[Dependency]:
    """The dependencies of guarded routes: the guard, where the app has a key."""
    if app.state.key is None:
        return []
    return [Depends(guard)]


async def classify(service: Service, request: Request, texts: list[str]) -> list[Answer]:
    """The answers to the texts within the deadline, after a check of the limits.

    Their figures go to the request's record and to the metrics.
    """
    deadline = admit(service, request, texts)
    answers = await in_time(service.classify(texts, deadline), request, deadline)
    account(service, request, answers)
    return answers


def admit(service: Service, request: Request, texts: Sequence[str]) -> float:
    """Check the limits and the time that is left; returns the deadline of the request.

    It is a time of `time.monotonic`.
    """
    limits = service.settings.limits
    # Before the check, so that the log line of a refused request has the number too.
    record = record_of(request.scope)
    record.texts = len(texts)
    check_texts(texts, limits)

    # The deadline counts from the arrival: reading the body has used some of the time.
    deadline = record.arrived + limits.deadline_s
    check_time(deadline)
    return deadline


def account(service: Service, request: Request, answers: Sequence[Answer]) -> None:
    """Put the figures of some answers into the request's record and the metrics."""
    record = record_of(request.scope)
    record.tokens = sum(answer.tokens for answer in answers)
    decisions = [answer.decision for answer in answers]
    service.metrics.observe_answers(decisions, service.facts.labels)


def check_texts(texts: Sequence[str], limits: LimitsSection) -> None:
    """Raise Invalid for too many texts or one that is too long."""
    if len(texts) > limits.max_texts:
        raise Invalid(
            f"{len(texts)} texts in one request; at most {limits.max_texts} are allowed."
            " Send several requests."
        )

    longest = max(len(text) for text in texts)
    if longest > limits.max_chars:
        raise Invalid(
            f"a text of {longest} characters; at most {limits.max_chars} are allowed. Shorten it."
        )


def check_key(expected: str | None, key: str) -> None:
    """Raise Unauthorized unless no key is expected or `key` is the expected one."""
    if not expected:
        return

    # As bytes: `compare_digest` takes only ASCII as text, and strict UTF-8 refuses lone surrogates,
    # which a form can hold. Its time does not reveal where two keys differ.
    sent = key.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(expected.encode(), sent):
        raise Unauthorized("this API needs its key, sent as the header Authorization: Bearer KEY")


def check_time(deadline: float) -> None:
    """Raise DeadlineExceeded after the deadline, a time of `time.monotonic`."""
    if time.monotonic() > deadline:
        raise DeadlineExceeded(LATE)


async def in_time(work: Coroutine[Any, Any, Result], request: Request, deadline: float) -> Result:
    """The result of the work, if it ends before the `deadline` and the client stays.

    Otherwise the work is cancelled, and DeadlineExceeded or ClientGone raised. The deadline is a
    time of `time.monotonic`.
    """
    task = asyncio.ensure_future(work)
    departure = asyncio.ensure_future(_wait_for_departure(request))

    try:
        finished, _ = await asyncio.wait(
            (task, departure),
            timeout=max(deadline - time.monotonic(), 0),
            return_when=asyncio.FIRST_COMPLETED,
        )

        # Tested first: an answer that comes at the same moment as the departure still counts.
        if task in finished:
            result = task.result()
            # A busy event loop may come here long after the work was done.
            check_time(deadline)
            return result
        if departure in finished:
            raise ClientGone("the client left")
        raise DeadlineExceeded(LATE)
    finally:
        # Cancelling the work removes from the queue the texts that no batch has taken.
        task.cancel()
        departure.cancel()


async def _wait_for_departure(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
