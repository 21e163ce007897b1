"""One text to its intents, for all services alike."""

from dataclasses import dataclass

from fastapi import Request

from bankintent.serving import wire
from bankintent.serving.admission import classify, service_of


@dataclass(frozen=True, slots=True)
class Understood:
    """What the model makes of one text; each service writes it in its own words."""

    top: wire.Score
    """The answer."""
    ranking: list[wire.Score]
    """Every intent with its probability, best first."""


async def understand(request: Request, text: str) -> Understood:
    """The intents of a text, under the same limits and by the same way as `/predict`.

    Raises a Refusal where `/predict` would.
    """
    service = service_of(request)
    answers = await classify(service, request, [text])

    ranking = wire.score_all(answers[0].logits, service.facts, raw=False)
    return Understood(top=ranking[0], ranking=ranking)
