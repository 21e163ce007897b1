"""The API seen from the Gradio page: calls, and what went wrong in words for the person in front of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

PATIENCE = 5
"""How often a call that the API is too busy for is tried again before giving up."""


class Trouble(Exception):
    """Why there is no answer, in one readable sentence or two."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The best intents of a text with their scores, and how long the answer took."""

    scores: dict[str, float]
    truncated: bool
    milliseconds: float


class Client:
    """Calls one API. Every failure is a Trouble."""

    def __init__(self, url: str, key: str | None = None, seconds: float = 60) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=seconds, trust_env=False
        )

    def predict(self, text: str, top_k: int) -> Answered:
        """The intents of one text."""
        started = time.perf_counter()
        body = self._call("POST", "/predict/", json={"text": text, "top_k": top_k}).json()
        scores = {row["label"]: row["score"] for row in body["top_k"]}
        return Answered(scores, body["truncated"], 1000 * (time.perf_counter() - started))

    def predict_many(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The API's answers for several texts; waits and tries again while it is busy."""
        response = self._call(
            "POST", "/predict/", patience=PATIENCE, json={"text": list(texts), "top_k": 1}
        )
        return list(response.json())

    def info(self) -> dict[str, Any]:
        """What `/info` says."""
        return dict(self._call("GET", "/info").json())

    def card(self) -> dict[str, Any]:
        """What `/card` says."""
        return dict(self._call("GET", "/card").json())

    def plot(self, address: str) -> bytes:
        """The picture at an address that the card gave."""
        return self._call("GET", address).content

    def is_ready(self) -> bool:
        """Whether the API takes texts."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _call(self, method: str, path: str, patience: int = 0, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL):
            raise Trouble(f"The API at {self.url} cannot be reached. Is it running?") from None
        except UnicodeEncodeError:
            raise Trouble("The text is not valid Unicode.") from None
        if response.status_code in (429, 503, 504) and patience:
            time.sleep(pause(response))
            return self._call(method, path, patience - 1, **options)
        if response.is_success:
            return response
        raise Trouble(explain(response))


def pause(response: httpx.Response) -> float:
    """Seconds that a busy API asks to wait, at least one and at most ten."""
    asked = response.headers.get("Retry-After", "1")
    return min(max(float(asked), 1), 10) if asked.isdigit() else 1


def explain(response: httpx.Response) -> str:
    """A refusal in words."""
    try:
        said = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        said = f"it answered with status {response.status_code}"
    match response.status_code:
        case 401:
            return "The API needs its key: start this page with BANKINTENT_API_KEY set to it."
        case 429:
            return "The API is busy. Try again in a moment."
        case 503:
            return f"The API is not ready ({said}). Try again in a moment."
        case 504:
            return "The API took too long. Try again in a moment."
        case _:
            return f"The API refused this: {said}"
