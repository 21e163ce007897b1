"""Explanations of answers: each takes some passes, which the queue counts as so many texts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fastapi import Request

from bankintent.config import LimitsSection
from bankintent.explanation.explainer import Explainer, Explanation, Plan, plan
from bankintent.serving.admission import account, admit, in_time
from bankintent.serving.refusals import Invalid
from bankintent.serving.service import Answer, Service


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer to one text, and why it got it."""

    answer: Answer
    explanation: Explanation


async def explain(service: Service, request: Request, texts: list[str]) -> list[Explained]:
    """The answers to the texts with their explanations, within the limits and the deadline.

    Raises what `admission.classify` raises, and Invalid where they take more passes than are
    allowed.
    """
    deadline = admit(service, request, texts)
    plans = plan_all(texts, service.settings.limits)
    explained = await in_time(_explain(service, plans, deadline), request, deadline)
    account(service, request, [one.answer for one in explained])
    return explained


def plan_all(texts: Sequence[str], limits: LimitsSection) -> list[Plan]:
    """What has to be computed; Invalid for too many texts, or more passes than the queue takes."""
    if limits.max_explained == 0:
        raise Invalid("explain: this server explains no answers (limits.max_explained is 0)")
    if len(texts) > limits.max_explained:
        raise Invalid(
            f"explain: {len(texts)} texts in one request; at most {limits.max_explained} are"
            " explained at once. Send several requests."
        )

    plans = [plan(text) for text in texts]
    passes = sum(len(one.texts) for one in plans)
    if passes > limits.max_queue:
        raise Invalid(
            f"explain: this takes {passes} passes through the model, and the queue of this server"
            f" has {limits.max_queue} places. Send fewer or shorter texts."
        )
    return plans


async def _explain(service: Service, plans: list[Plan], deadline: float) -> list[Explained]:
    try:
        answers = await service.compute(_texts_of(plans), deadline)
    except Invalid:
        # What is left of a text without a word can be blank to the model: no word is weighed. Where
        # the text itself is, this raises it again.
        plans = [Plan(one.text, ()) for one in plans]
        answers = await service.compute(_texts_of(plans), deadline)

    # In a thread: the first explanation reads the index, and each compares with all of it.
    return await asyncio.to_thread(_combine, service.explainer, plans, answers)


def _texts_of(plans: list[Plan]) -> list[str]:
    texts = []
    for one in plans:
        texts += one.texts
    return texts


def _combine(explainer: Explainer, plans: list[Plan], answers: list[Answer]) -> list[Explained]:
    """The explanations, from the answers to the texts of the plans, in order."""
    explained = []
    start = 0
    for one in plans:
        end = start + len(one.texts)
        own = answers[start:end]
        start = end

        first = own[0]
        label = first.decision.label
        scores = np.array([float(answer.probabilities[label]) for answer in own])
        features = first.outputs.features
        explanation = explainer.explain(one, first.decision, scores, features)
        explained.append(Explained(first, explanation))
    return explained
