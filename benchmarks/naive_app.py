"""The app that one writes first: FastAPI around `pipeline()`, with the same weights as ours.

It is the benchmark's point of comparison.
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classify = pipeline("text-classification", model=os.environ["MODEL_DIR"], dtype="float32")


class Message(BaseModel):
    """One text."""

    text: str


@app.post("/predict/")
def predict(message: Message) -> list[dict[str, Any]]:
    """The best intent."""
    return classify(message.text, truncation=True)
