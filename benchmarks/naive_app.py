"""What one writes first: FastAPI around `pipeline()`. The benchmark's point of comparison, with the same weights."""

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
