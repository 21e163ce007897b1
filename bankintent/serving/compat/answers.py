"""One text to its intents, for all services alike."""

from dataclasses import dataclass

from fastapi import Request, Response

from bankintent.decision.deciding import Verdict
from bankintent.serving import wire
from bankintent.serving.admission import classify, served_by, using
from bankintent.serving.decision_header import say_decisions

CERTAIN = 1.0
"""The score of what a service calls none of the intents. It is a decision and no probability: a
client that takes the highest score must take it too."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What the model makes of one text; each service writes it in its own words."""

    ranking: list[wire.Score]
    """Every intent with its probability, best first."""
    is_answered: bool
    """Whether the best of them is the answer; otherwise it is none of them."""

    def ranked(self, none: str, most: int | None = None) -> list[wire.Score]:
        """The best `most` intents; before them, where the model abstains, the one named `none`.

        The first is what the service calls the top intent. A model that has an intent of the name
        `none` itself is not shown with it twice.
        """
        if self.is_answered:
            return self.ranking[:most]
        others = [score for score in self.ranking if score.label != none]
        return [wire.Score(label=none, score=CERTAIN), *others[:most]]


async def understand(
    request: Request, response: Response, text: str, model: str | None = None
) -> Understood:
    """The intents of a text, under the same limits and by the same way as `/predict`.

    Where there are several models, `model` is the name that the request has for it; a server with
    one looks at no name. The headers of the response say what was decided. Raises a Refusal where
    `/predict` would.
    """
    has_several = served_by(request).settings.has_several
    async with using(request, model if has_several else None) as service:
        answers = await classify(service, request, [text])
        say_decisions(response, answers)

        ranking = wire.score_all(answers[0], service.facts)
        is_answered = answers[0].decision.verdict is Verdict.ANSWER
        return Understood(ranking, is_answered)
