"""The header that carries decisions where the body of a service has no word for them."""

from collections.abc import Sequence

from fastapi import Response

from bankintent.decision.deciding import Decision, Reason
from bankintent.serving.service import Answer

HEADER = "X-Decision"
"""A list of structured fields (RFC 9651) with one item for each text, in the order of the request:
`answer`, or `abstain;reason=out_of_scope`."""


def say_decisions(response: Response, answers: Sequence[Answer]) -> None:
    """Put the decisions on some texts into the headers of their response."""
    items = [format_decision(answer.decision) for answer in answers]
    response.headers[HEADER] = ", ".join(items)


def format_decision(decision: Decision) -> str:
    """A decision as an item of the header."""
    if decision.reason is Reason.NONE:
        return decision.verdict.value
    return f"{decision.verdict.value};reason={decision.reason.value}"
