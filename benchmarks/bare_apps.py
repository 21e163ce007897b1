"""Apps with no model behind them, to measure the rest of a request.

uvicorn benchmarks.bare_apps:empty --lifespan off
uvicorn --factory benchmarks.bare_apps:constant
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI

from bankintent.config import ServeConfig
from bankintent.decision.policy import Policy
from bankintent.inference.runtime import Logits, ModelFacts, Outputs, Tokens
from bankintent.serving.app import create_app

LABELS = tuple(f"intent_{number}" for number in range(77))
BODY = json.dumps({"label": LABELS[0]}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def empty(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app that reads the body and gives one answer: the cost of the HTTP server itself."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


class ConstantRuntime:
    """A model of 77 labels that gives every text the same logits at once."""

    def __init__(self) -> None:
        self.facts = ModelFacts(
            name="constant",
            version="0",
            labels=LABELS,
            labels_hash="0",
            backbone="none",
            parameters=0,
            max_length=128,
            runtime="constant, float32",
            folder=Path(),
        )
        self.policy: Policy | None = None
        self.workers = 1
        self._row = np.linspace(1, 0, len(LABELS), dtype=np.float32)

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Sixteen tokens for every text."""
        tokens = Tokens({"input_ids": [0] * 16}, False)
        return [tokens] * len(texts)

    def outputs(self, items: list[Tokens]) -> Outputs:
        """(items, 77) logits and no features."""
        return Outputs(np.tile(self._row, (len(items), 1)), None)

    def logits(self, items: list[Tokens]) -> Logits:
        """(items, 77) float32."""
        return self.outputs(items).logits


def constant() -> FastAPI:
    """This project's whole API over a constant: everything but tokenizing and the model."""
    return create_app(ServeConfig(), lambda _: ConstantRuntime)
