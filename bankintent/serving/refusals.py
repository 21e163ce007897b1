"""HTTP refusals: one exception for each status."""

from typing import ClassVar


class Refusal(Exception):
    """A request that gets an error body instead of an answer.

    The docstring of each kind is its description in the OpenAPI document.
    """

    status: ClassVar[int]
    kind: ClassVar[str]
    """The `error_type` of the body, and the reason that the metrics count."""
    headers: ClassVar[dict[str, str]] = {}


class Malformed(Refusal):
    """The body is not JSON that can be read."""

    status = 400
    kind = "malformed"


class Unauthorized(Refusal):
    """The API key is missing or wrong."""

    status = 401
    kind = "unauthorized"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class Foreign(Refusal):
    """The request names a foreign host, or comes from a web page of another origin."""

    status = 403
    kind = "foreign"


class UnknownModel(Refusal):
    """There is no model of that name; the message names some that there are."""

    status = 404
    kind = "unknown_model"


class SlowBody(Refusal):
    """The body did not arrive before the deadline."""

    status = 408
    kind = "slow_body"
    # The rest of the body may still come: this connection cannot take another request.
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class TooLarge(Refusal):
    """The body is longer than max_body_bytes."""

    status = 413
    kind = "too_large"
    headers: ClassVar[dict[str, str]] = {"Connection": "close"}


class Invalid(Refusal):
    """The body is not of the documented form, a text is empty or too long, or too many are sent."""

    status = 422
    kind = "validation"


class QueueFull(Refusal):
    """The queue is full; try again after Retry-After seconds."""

    status = 429
    kind = "overloaded"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class ClientGone(Refusal):
    """The client left before its answer; nobody reads this."""

    # nginx's number for it: HTTP has none.
    status = 499
    kind = "client_gone"


class NotReady(Refusal):
    """The model is still loading, or the process is about to end."""

    status = 503
    kind = "unhealthy"
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class DeadlineExceeded(Refusal):
    """No answer before the deadline; what had not begun was not done."""

    status = 504
    kind = "timeout"


REASONS = {
    refusal.status: refusal.kind
    for refusal in Refusal.__subclasses__()
    if refusal is not UnknownModel
}
"""Status -> the reason that the metrics count.

A 404 is left out: a path that does not exist has it too, and holds no text.
"""
