"""Hostile requests: each gets an answer or a refusal of our form, and none holds the event loop up.

How long a request holds the loop is measured as processor time of the loop's thread, beside a good
body of the same size in the same run: a machine that is busy with something else changes nothing.
"""

import asyncio
import json
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from serving_fixtures import write_tiny_bundle

from bankintent.config import ServeConfig
from bankintent.serving.app import create_app
from bankintent.serving.service import State
from faults.tally import Tally

SIZE = 1_048_500
"""Bytes of a large body: as many as the default limit lets through."""

TIMES_GOOD = 10
"""A hostile request may hold the loop for so many times the good one's time."""

LEAST_SECONDS = 0.1
"""Less than this is never called too long."""

SECRET = "sekretsentence"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

LUIS = "/luis/prediction/v3.0/apps/a/slots/b/predict"
HOLES = {
    "own": ("/predict/", b'{"text": ', b"}"),
    "either": ("/predict", b'{"text": ', b"}"),
    "tei": ("/predict", b'{"inputs": ', b"}"),
    "rasa": ("/model/parse", b'{"text": ', b"}"),
    "clu": (
        "/language/:analyze-conversations",
        b'{"kind": "Conversation", "analysisInput": {"conversationItem": {"text": ',
        b"}}}",
    ),
    "luis": (LUIS, b'{"query": ', b"}"),
}
"""A form of request -> its path, and what stands before and after its text."""

SMALL = {
    "null": b"null",
    "a number": b"1",
    "an infinite number": b"1e999",
    "NaN": b"NaN",
    "true": b"true",
    "an empty text": b'""',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "nested lists": b'[[["sekretsentence"]]]',
    "a list of lists": b'[["sekretsentence"], "b"]',
    "a list of objects": b'[{"sekretsentence": 1}]',
    "a pair": b'["sekretsentence", 1]',
    "a lone surrogate": b'"\\ud800 sekretsentence"',
    "an encoded surrogate": b'"\xed\xa0\x80 sekretsentence"',
    "bytes that are not UTF-8": b'"\xff sekretsentence"',
    "a raw control character": b'"\x01 sekretsentence"',
    "an escaped NUL": b'"\\u0000"',
    "control characters alone": b'"\\u0001\\u0002\\u001b\\u0085"',
    "characters without width": b'"\\u200b\\u2060\\ufe0f"',
    "byte order marks": b'"\\ufeff\\ufeff"',
    "language tags": b'"\\udb40\\udc01"',
    "an unassigned character": b'"\\u0378"',
    "a noncharacter": b'"\\uffff"',
    "blanks of Unicode": b'"\\u00a0\\u2003\\u3000\\u2028"',
    "a lone accent": b'"\\u0301"',
    "a cut text": b'"sekretsentence',
    "a second value": b'"a" "sekretsentence"',
    "a repeated key": b'"a", "text": "b", "text": {"sekretsentence": 1}',
    "an unknown key": b'"a", "sekretsentence": 1',
    "top_k of a hundred digits": b'"a", "top_k": ' + b"9" * 100,
    "top_k of ten thousand digits": b'"a", "top_k": ' + b"9" * 10_000,
    "top_k below nothing": b'"a", "top_k": -1e308',
    "top_k as a large float": b'"a", "top_k": 1e308',
    "options of another kind": b'"a", "truncate": [], "raw_scores": "sekretsentence"',
    "parameters": b'"a", "parameters": {"top_k": 1, "sekretsentence": [1]}, "options": null',
}
"""What stands where a text belongs."""

REPEATED = {
    "numbers": b"1,",
    "empty texts": b'"",',
    "empty lists": b"[],",
    "lists of lists": b"[[]],",
    "pairs": b'["a","b"],',
    "lists of a text": b'["a"],',
    "objects": b'{"a":1},',
    "long numbers": b"9" * 4200 + b",",
    "fractions": b"1.1234567890123456789,",
    "blank texts": b'" ",',
}
"""Items that fill a list of SIZE bytes where a text belongs."""

WHOLE = {
    "white space": b" " * SIZE,
    "open lists": b"[" * SIZE,
    "open objects": b'{"a":' * (SIZE // 5),
    "a top-level list": b"[" + b"1," * (SIZE // 2) + b"1]",
    "a top-level text": b'"' + b"a" * SIZE + b'"',
    "digits": b"9" * SIZE,
    "quotes": b'"' * SIZE,
    "backslashes": b"\\" * SIZE,
    "unknown keys": b"{" + b",".join(b'"k%d":1' % i for i in range(SIZE // 12)) + b"}",
    "a repeated key": b'{"text":"a"' + b',"text":1' * (SIZE // 10) + b"}",
    "a long key": b'{"' + b"k" * SIZE + b'": 1}',
    "zero bytes": b"\0" * SIZE,
    "empty lists in UTF-16": ("[" + "[]," * (SIZE // 6) + "1]").encode("utf-16"),
    "a blank text": b'{"text": "' + b" " * SIZE + b'"}',
    "escapes": b'{"text": "' + b"\\u0001" * (SIZE // 6) + b'"}',
}
"""Large bodies of no form, sent to every path."""

FORMS = {
    "separators": b"&" * SIZE,
    "fields": b"a&" * (SIZE // 2),
    "equals signs": b"=" * SIZE,
    "escapes": b"text=" + b"%41" * (SIZE // 3),
    "broken escapes": b"text=" + b"%" * SIZE,
    "a repeated field": b"text=sekretsentence&" * (SIZE // 20),
    "bytes that are not UTF-8": b"text=\xff%ff%ed%a0%80",
    "blanks": b"text=+%0a%e2%80%8b",
    "no field": b"",
}

QUERIES = {
    "separators": "&" * 50_000,
    "parameters": "a&" * 25_000,
    "a repeated text": "query=sekretsentence&" * 2000,
    "escapes": "query=" + "%41" * 15_000,
    "broken escapes": "query=%ff%ed%a0%80%",
    "a blank text": "query=%e2%80%8b",
    "a wrong switch": "query=a&show-all-intents=sekretsentence",
}


@dataclass(frozen=True)
class Situation:
    """One request."""

    name: str
    path: str
    content: bytes = b""
    kind: str = JSON
    method: str = "POST"
    query: str = ""
    statuses: tuple[int, ...] = field(default=(200, 400, 401, 413, 414, 422))


def situations() -> list[Situation]:
    """Every hostile request, always in the same order."""
    found = []
    for form, (path, before, after) in HOLES.items():
        for name, value in SMALL.items():
            found.append(Situation(f"{form}: {name}", path, before + value + after))
        for name, item in REPEATED.items():
            value = b"[" + item * (SIZE // len(item) - 20) + b"1]"
            found.append(Situation(f"{form}: a list of {name}", path, before + value + after))
            value = b"[[" + item * (SIZE // len(item) - 20) + b"1]]"
            found.append(
                Situation(f"{form}: a list in a list of {name}", path, before + value + after)
            )
        for name, content in WHOLE.items():
            found.append(Situation(f"{form}: {name}", path, content))
        found.append(Situation(f"{form}: another Content-Type", path, before + b'"a"', "text/xml"))

    for name, content in FORMS.items():
        found.append(Situation(f"form: {name}", "/", content, FORM))
    found.append(Situation("form: JSON", "/", b'{"text": "a"}', JSON))
    found.append(
        Situation("form: parts", "/", b"--b\r\n\r\n" * 1000, "multipart/form-data; boundary=b")
    )

    for name, query in QUERIES.items():
        found.append(Situation(f"query: {name}", LUIS, method="GET", query=query))
        found.append(Situation(f"query of /status: {name}", "/status", method="GET", query=query))
    return found


def good() -> Situation:
    """A large request that is answered: as many texts as it may have, and an ignored key."""
    body = {"inputs": [["my card has not arrived"]] * 64, "padding": "x" * (SIZE - 3000)}
    return Situation("good", "/predict", json.dumps(body).encode())


def run(count: int) -> Tally:
    """Try at most `count` hostile requests on the API with a tiny model, in this process."""
    chosen = situations()
    if count < len(chosen):
        chosen = random.Random(0).sample(chosen, count)

    with tempfile.TemporaryDirectory() as folder:
        bundle = write_tiny_bundle(Path(folder) / "tiny")
        settings = ServeConfig(model_dir=bundle, threads=1, compat=["rasa", "clu", "luis"])
        return asyncio.run(try_all(create_app(settings), chosen))


async def try_all(app: FastAPI, chosen: list[Situation]) -> Tally:
    """Send each request to an app once its model is loaded."""
    tally = Tally("request_bodies")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client,
    ):
        while app.state.service.state is not State.READY:
            await asyncio.sleep(0.01)

        times = [(await send(client, good()))[1] for _ in range(3)]
        allowed = max(TIMES_GOOD * min(times), LEAST_SECONDS)
        for situation in chosen:
            tally.add(situation.name, await fault_of(client, situation, allowed))
    return tally


async def send(client: httpx.AsyncClient, situation: Situation) -> tuple[httpx.Response, float]:
    """The response, and the seconds of this thread's processor time that it took."""
    start = time.thread_time()
    response = await client.request(
        situation.method,
        f"{situation.path}?{situation.query}" if situation.query else situation.path,
        content=situation.content,
        headers={"Content-Type": situation.kind},
    )
    return response, time.thread_time() - start


async def fault_of(client: httpx.AsyncClient, situation: Situation, allowed: float) -> str | None:
    """What did not hold of one request, None where all did."""
    response, seconds = await send(client, situation)
    if response.status_code not in situation.statuses:
        return f"status {response.status_code}"

    fault = fault_of_body(response, situation)
    if fault is None and seconds > allowed:
        # The garbage of earlier requests may be collected in this one: the second try decides.
        _, seconds = await send(client, situation)
    if fault is None and seconds > allowed:
        return f"{seconds:.2f} s of the event loop, at most {allowed:.2f}"
    return fault


def fault_of_body(response: httpx.Response, situation: Situation) -> str | None:
    """What does not hold of the body of a response."""
    if response.status_code == 200 or situation.path == "/":
        return None

    if SECRET in response.text:
        return "repeats what was sent"

    body: Any = response.json()
    if isinstance(body.get("error"), str) and body.keys() == {"error", "error_type"}:
        return None
    if isinstance(body.get("error"), dict) and body["error"].keys() == {"code", "message"}:
        return None
    if body.get("status") == "failure":
        return None
    return "an error of another form"
