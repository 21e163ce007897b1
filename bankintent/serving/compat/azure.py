"""What Azure's two services have in common: the header of the key, and the form of errors."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, JsonValue

from bankintent.serving.admission import Bearer, check_key

HEADER = APIKeyHeader(
    name="Ocp-Apim-Subscription-Key",
    auto_error=False,
    description="The value of BANKINTENT_API_KEY, where Azure's clients send their key",
)

NONE = "None"
"""The intent that CLU and LUIS name where a text has none of a project's own."""

CODES = {
    "malformed": "InvalidRequest",
    "validation": "InvalidArgument",
    "too_large": "InvalidRequest",
    "unauthorized": "Unauthorized",
    "foreign": "Forbidden",
    "not_found": "NotFound",
    "unknown_model": "NotFound",
    "slow_body": "Timeout",
    "timeout": "Timeout",
    "overloaded": "TooManyRequests",
    "unhealthy": "ServiceUnavailable",
    "internal": "InternalServerError",
}
"""`error_type` -> the code by which Azure's services call it."""


class AzureErrorBody(BaseModel):
    """The code of an error, and one line about it."""

    code: str
    message: str


class AzureError(BaseModel):
    """Every refusal; it never repeats what was sent."""

    error: AzureErrorBody


def error_body(status: int, kind: str, message: str) -> dict[str, JsonValue]:
    """Azure's body of an error."""
    # What is left, such as a wrong method, is a fault of the request.
    code = CODES.get(kind, "InvalidRequest")
    return {"error": {"code": code, "message": message}}


async def need_key(
    request: Request,
    bearer: Bearer,
    header: Annotated[str | None, Depends(HEADER)],
) -> None:
    """Dependency of a route that needs the key, as a bearer or in Azure's header."""
    key = bearer.credentials if bearer else header
    check_key(request.app.state.key, key or "")
