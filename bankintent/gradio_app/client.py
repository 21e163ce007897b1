"""A client of the API for the Gradio page, which shows the message of every failure."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bankintent.decision.deciding import Verdict
from bankintent.gradio_app.explanation import ApiExplanation, NoExplanation, read_explanation

MAX_RETRIES = 5
"""Most repetitions of a call while the API is busy, so that a file outlasts a short overload."""

BUSY_STATUSES = (429, 503, 504)
"""Statuses of an API that is full, still loading, or too slow: a later call may succeed."""


HIGHEST_SCORE = 1.001
"""Scores are shares; a little more is rounding."""

LONGEST_REASON = 500
"""Characters of the API's own reason that the page shows."""

MOST_BYTES = 1 << 24
"""Most bytes of an answer; a plot has a few hundred thousand."""

PLOT_ADDRESS = re.compile(r"(?:/[A-Za-z0-9_-]+)+\.png")
"""Addresses of plots that are asked for: paths of this API, with nothing that leads elsewhere."""

PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a picture."""

ODD_ANSWER = "The API answered with something that this page does not understand."


class Trouble(Exception):
    """The reason why there is no answer, in one or two sentences for the person at the page."""


@dataclass(frozen=True, slots=True)
class ApiDecision:
    """Whether the best intent of a text is its answer."""

    verdict: Verdict
    reason: str
    """Why it is not; empty where it is."""
    close_to: list[str] | None
    """The two intents of a close call."""

    @property
    def is_answer(self) -> bool:
        return self.verdict is Verdict.ANSWER


@dataclass(frozen=True, slots=True)
class ApiPrediction:
    """The best intents of a text with their scores, and how long the answer took."""

    top_k: list[dict[str, Any]]
    """Each with its `label` and its `score`, best first."""
    decision: ApiDecision
    truncated: bool
    milliseconds: float


class Client:
    """Calls one API. Every failure is a Trouble, and so is an answer of any other shape."""

    def __init__(self, url: str, key: str | None = None, seconds: float = 60) -> None:
        headers = {}
        if key:
            headers["Authorization"] = f"Bearer {key}"

        self.url = url.rstrip("/")
        self._seconds = seconds
        self._http = httpx.Client(
            base_url=self.url,
            # Not compressed: a short answer cannot become a long one.
            headers=headers | {"Accept-Encoding": "identity"},
            timeout=seconds,
            # The key goes to the configured address only, whatever an answer names.
            follow_redirects=False,
            # A proxy that the environment names would not reach loopback.
            trust_env=False,
        )

    def predict(self, text: str, top_k: int) -> ApiPrediction:
        """The intents of one text."""
        started = time.perf_counter()
        response = self._call("POST", "/predict/", json={"text": text, "top_k": top_k})
        milliseconds = 1000 * (time.perf_counter() - started)

        body = _as_object(response.json())
        intents = body.get("top_k")
        if not isinstance(intents, list) or not intents:
            raise Trouble(ODD_ANSWER)
        for intent in intents:
            require_intent(intent)
        is_cut = body.get("truncated") is True
        return ApiPrediction(intents, read_decision(body), is_cut, milliseconds)

    def explain(self, text: str) -> ApiExplanation:
        """Why a text gets its answer."""
        sent = {"text": text, "top_k": 1, "explain": True}
        body = self._call("POST", "/predict/", json=sent).json()
        try:
            return read_explanation(body, text)
        except NoExplanation:
            raise Trouble(ODD_ANSWER) from None

    def predict_many(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The API's answers for several texts; waits and tries again while it is busy."""
        body = {"text": list(texts), "top_k": 2}
        response = self._call("POST", "/predict/", retries=MAX_RETRIES, json=body)
        answers = response.json()
        if not isinstance(answers, list) or len(answers) != len(texts):
            raise Trouble(ODD_ANSWER)
        return list(map(_as_object, answers))

    def info(self) -> dict[str, Any]:
        """The body of `/info`."""
        body = _as_object(self._call("GET", "/info").json())
        limits = _as_object(body.get("limits"))
        for key in ("max_texts", "max_chars"):
            if not _is_number(limits.get(key)) or limits[key] < 1:
                raise Trouble(ODD_ANSWER)
        _require_texts(body.get("labels", []))
        return body

    def card(self) -> dict[str, Any]:
        """The body of `/card`."""
        body = _as_object(self._call("GET", "/card").json())
        _require_texts([body.get(key) for key in ("name", "version", "markdown")])
        _require_texts(list(_as_object(body.get("plots")).values()))
        return body

    def plot(self, address: str) -> bytes:
        """The picture at an address that `/card` names; only one of this API is asked for."""
        if not PLOT_ADDRESS.fullmatch(address):
            raise Trouble(ODD_ANSWER)
        picture = self._call("GET", address).content
        if not picture.startswith(PNG):
            raise Trouble(ODD_ANSWER)
        return picture

    def is_ready(self) -> bool:
        """Whether the API takes texts."""
        try:
            return self._request("GET", "/health/ready").status == 200
        except Trouble:
            return False

    def _call(self, method: str, path: str, retries: int = 0, **options: Any) -> "Answer":
        response = self._request(method, path, **options)
        while response.status in BUSY_STATUSES and retries > 0:
            retries -= 1
            time.sleep(retry_delay(response))
            response = self._request(method, path, **options)

        if not 200 <= response.status < 300:
            raise Trouble(explain_refusal(response))
        return response

    def _request(self, method: str, path: str, **options: Any) -> "Answer":
        try:
            with self._http.stream(method, path, **options) as response:
                return Answer(response.status_code, response.headers, self._read(response))
        except (httpx.HTTPError, httpx.InvalidURL):
            raise Trouble(f"The API at {self.url} cannot be reached. Is it running?") from None
        except UnicodeEncodeError:
            # A lone surrogate, which a browser can send, has no UTF-8.
            raise Trouble("The text is not valid Unicode.") from None

    def _read(self, response: httpx.Response) -> bytes:
        """The body of an answer; Trouble where it is too long, or comes too slowly."""
        deadline = time.monotonic() + self._seconds
        body = bytearray()
        for block in response.iter_bytes():
            body += block
            if len(body) > MOST_BYTES:
                raise Trouble("The API's answer is too long for this page.")
            if time.monotonic() > deadline:
                raise Trouble("The API took too long. Try again in a moment.")
        return bytes(body)


@dataclass(frozen=True)
class Answer:
    """An answer of the API, read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The content as JSON; Trouble where it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise Trouble(ODD_ANSWER) from None


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Trouble(ODD_ANSWER)
    return value


def _require_texts(values: Any) -> None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Trouble(ODD_ANSWER)


def require_intent(value: Any) -> None:
    """Raise Trouble where a value is no intent with its score."""
    intent = _as_object(value)
    score = intent.get("score")
    # The second part is false for NaN.
    is_share = _is_number(score) and 0 <= intent["score"] <= HIGHEST_SCORE
    if not isinstance(intent.get("label"), str) or not is_share:
        raise Trouble(ODD_ANSWER)


def read_decision(body: Mapping[str, Any]) -> ApiDecision:
    """What an answer says of its label; Trouble where that is not understood.

    An API that knows no decisions answers every text.
    """
    if "decision" not in body:
        return ApiDecision(Verdict.ANSWER, "", None)

    close_to = body.get("close_to")
    if close_to is not None:
        _require_texts(close_to)
    is_pair = close_to is None or len(close_to) == 2
    reason = body.get("reason")
    if body["decision"] not in list(Verdict) or not isinstance(reason, str) or not is_pair:
        raise Trouble(ODD_ANSWER)
    return ApiDecision(Verdict(body["decision"]), reason, close_to)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def retry_delay(response: Answer) -> float:
    """Seconds to wait before the next call: what the API asks for, within one and ten."""
    seconds = response.headers.get("Retry-After", "1")

    # HTTP also allows a date here.
    if not seconds.isdigit():
        return 1
    return min(max(float(seconds), 1), 10)


def explain_refusal(response: Answer) -> str:
    """A refusal of the API as a sentence for the person at the page."""
    reason = _reason(response)

    match response.status:
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


def _reason(response: Answer) -> str:
    try:
        return str(response.json()["error"])[:LONGEST_REASON]
    except (Trouble, KeyError, TypeError):
        # The answer is not the API's: it may come from a gateway between it and this page.
        return f"it answered with status {response.status}"
