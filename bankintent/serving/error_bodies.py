"""Refusals as HTTP responses, and their entries in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

from bankintent.serving.refusals import (
    DeadlineExceeded,
    Foreign,
    Invalid,
    Malformed,
    NotReady,
    QueueFull,
    Refusal,
    SlowBody,
    TooLarge,
    Unauthorized,
    UnknownModel,
)

DOCUMENTED: tuple[type[Refusal], ...] = (
    Malformed,
    Unauthorized,
    Foreign,
    UnknownModel,
    SlowBody,
    TooLarge,
    Invalid,
    QueueFull,
    NotReady,
    DeadlineExceeded,
)
"""Every refusal that a client can receive; ClientGone has no reader."""


class ErrorBody(BaseModel):
    """Every refusal; it never repeats what was sent."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"error": "text: must not be empty or blank", "error_type": "validation"}]
        },
    )

    error: str
    """What is wrong and, where the sender can mend it, what to send."""
    error_type: str
    """A word for the kind of refusal, for programs."""


def error_response(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A response with the common error body."""
    body = {"error": message, "error_type": kind}
    return JSONResponse(body, status, headers)


def refusal_response(refusal: Refusal) -> JSONResponse:
    """The response to a request that was refused."""
    return error_response(refusal.status, refusal.kind, str(refusal), refusal.headers)


def openapi_responses(
    *statuses: int, model: type[BaseModel] = ErrorBody
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the refusals with these statuses, whose bodies are of this model."""
    entries: dict[int | str, dict[str, Any]] = {}

    for kind in DOCUMENTED:
        if kind.status in statuses:
            entries[kind.status] = {"model": model, "description": kind.__doc__}
    return entries
