"""A client of the API for the Gradio page, which shows the message of every failure."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

MAX_RETRIES = 5
"""Most repetitions of a call while the API is busy, so that a file outlasts a short overload."""

BUSY_STATUSES = (429, 503, 504)
"""Statuses of an API that is full, still loading, or too slow: a later call may succeed."""


class Trouble(Exception):
    """The reason why there is no answer, in one or two sentences for the person at the page."""


@dataclass(frozen=True, slots=True)
class ApiPrediction:
    """The best intents of a text with their scores, and how long the answer took."""

    top_k: list[dict[str, Any]]
    """Each with its `label` and its `score`, best first."""
    truncated: bool
    milliseconds: float


class Client:
    """Calls one API. Every failure is a Trouble."""

    def __init__(self, url: str, key: str | None = None, seconds: float = 60) -> None:
        headers = {}
        if key:
            headers["Authorization"] = f"Bearer {key}"

        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=seconds,
            # A proxy that the environment names would not reach loopback.
            trust_env=False,
        )

    def predict(self, text: str, top_k: int) -> ApiPrediction:
        """The intents of one text."""
        started = time.perf_counter()
        response = self._call("POST", "/predict/", json={"text": text, "top_k": top_k})
        milliseconds = 1000 * (time.perf_counter() - started)

        body = response.json()
        return ApiPrediction(body["top_k"], body["truncated"], milliseconds)

    def predict_many(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The API's answers for several texts; waits and tries again while it is busy."""
        body = {"text": list(texts), "top_k": 1}
        response = self._call("POST", "/predict/", retries=MAX_RETRIES, json=body)
        return list(response.json())

    def info(self) -> dict[str, Any]:
        """The body of `/info`."""
        return dict(self._call("GET", "/info").json())

    def card(self) -> dict[str, Any]:
        """The body of `/card`."""
        return dict(self._call("GET", "/card").json())

    def plot(self, address: str) -> bytes:
        """The picture at an address that `/card` names."""
        return self._call("GET", address).content

    def is_ready(self) -> bool:
        """Whether the API takes texts."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _call(self, method: str, path: str, retries: int = 0, **options: Any) -> httpx.Response:
        response = self._request(method, path, **options)
        while response.status_code in BUSY_STATUSES and retries > 0:
            retries -= 1
            time.sleep(retry_delay(response))
            response = self._request(method, path, **options)

        if not response.is_success:
            raise Trouble(explain_refusal(response))
        return response

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.InvalidURL):
            raise Trouble(f"The API at {self.url} cannot be reached. Is it running?") from None
        except UnicodeEncodeError:
            # A lone surrogate, which a browser can send, has no UTF-8.
            raise Trouble("The text is not valid Unicode.") from None


def retry_delay(response: httpx.Response) -> float:
    """Seconds to wait before the next call: what the API asks for, within one and ten."""
    seconds = response.headers.get("Retry-After", "1")

    # HTTP also allows a date here.
    if not seconds.isdigit():
        return 1
    return min(max(float(seconds), 1), 10)


def explain_refusal(response: httpx.Response) -> str:
    """A refusal of the API as a sentence for the person at the page."""
    reason = _reason(response)

    match response.status_code:
        case 401:
            return "The API needs its key: start this page with BANKINTENT_API_KEY set to it."
        case 429:
            return "The API is busy. Try again in a moment."
        case 503:
            return f"The API is not ready ({reason}). Try again in a moment."
        case 504:
            return "The API took too long. Try again in a moment."
        case _:
            return f"The API refused this: {reason}"


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        # The answer is not the API's: it may come from a gateway between it and this page.
        return f"it answered with status {response.status_code}"
