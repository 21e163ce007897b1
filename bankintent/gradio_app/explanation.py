"""An explanation as the API gives it, read as what anybody may have sent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_WEIGHT = 1e3
"""Log-odds of a score lie well below it."""


class NoExplanation(Exception):
    """The answer of an API holds no explanation that is understood."""


@dataclass(frozen=True, slots=True)
class ApiNeighbour:
    """A training sentence near to a text."""

    intent: str
    similarity: float
    text: str | None


@dataclass(frozen=True, slots=True)
class ApiWeight:
    """What a part of a text weighs."""

    start: int
    end: int
    weight: float
    score_without: float


@dataclass(frozen=True, slots=True)
class ApiExplanation:
    """Why a text got its label."""

    label: str
    neighbours: list[ApiNeighbour] | None
    no_neighbours: str
    """Why there are none."""
    weights: list[ApiWeight]
    """In the order of the text; they do not overlap."""


def read_explanation(body: Any, text: str) -> ApiExplanation:
    """The explanation of a text in an answer of `/predict/`; NoExplanation where there is none."""
    answer = _object(body)
    explanation = _object(answer.get("explanation"))
    found = explanation.get("neighbours")
    neighbours = None
    if found is not None:
        neighbours = [_read_neighbour(_object(near)) for near in _list(found)]

    weights: list[ApiWeight] = []
    position = 0
    for value in _list(explanation.get("attributions")):
        weight = _read_weight(_object(value))
        if not position <= weight.start < weight.end <= len(text):
            raise NoExplanation
        position = weight.end
        weights.append(weight)

    reason = explanation.get("no_neighbours") or ""
    return ApiExplanation(_text(answer.get("label")), neighbours, _text(reason), weights)


def _read_neighbour(near: Mapping[str, Any]) -> ApiNeighbour:
    sentence = near.get("text")
    return ApiNeighbour(
        intent=_text(near.get("intent")),
        similarity=_number(near.get("similarity"), 1.01),
        text=None if sentence is None else _text(sentence),
    )


def _read_weight(value: Mapping[str, Any]) -> ApiWeight:
    return ApiWeight(
        start=_place(value.get("start")),
        end=_place(value.get("end")),
        weight=_number(value.get("weight"), LARGEST_WEIGHT),
        score_without=_number(value.get("score_without"), 1.01),
    )


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NoExplanation
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NoExplanation
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NoExplanation
    return value


def _place(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NoExplanation
    return value


def _number(value: Any, most: float) -> float:
    """A number whose size is at most `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or abs(value) > most:
        raise NoExplanation
    return float(value)
