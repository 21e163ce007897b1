"""The formats of `onnx/` in words: what passed its gate, what was left out, and what that costs."""

import textwrap
from collections.abc import Collection
from typing import Any

SPEEDS = {"onnx-int8": 1.0, "openvino": 0.75, "onnx": 0.5, "torch": 0.2}
"""Way to serve a model -> its sentences a second as a share of int8's, fastest first.

Measured on MiniLM and two cores with AVX-512 (docs/results/performance has int8 and torch); other
processors differ, so that only `about half as fast` is said of them.
"""

PRECISIONS = {
    "onnx-int8": "int8",
    "openvino": "bf16",
    "onnx": "float32",
    "torch": "float32 by torch",
}
"""Way to serve a model -> what it computes in."""

WIDTH = 78
"""Longest line for a terminal: 80 columns with a margin of two."""

SHARES = {0.75: "three quarters", 0.5: "half", 0.2: "a fifth"}
"""A share in words."""

ADVICE = (
    "Nothing has to be done: what is served gives the answers that were measured. For the speed,"
    " train with another recipe or for more or fewer epochs and see whether that model passes, or"
    " train a smaller student of this one (the section distill). export.int8: false saves the try."
)
"""What to do about a faster format that was left out."""


def describe_formats(parity: dict[str, Any]) -> list[str]:
    """For a card, one line for each format: the result of its gate, or why it was left out."""
    lines = []
    for name, figures in parity.get("formats", {}).items():
        lines.append(f"{name}: {_describe_gate(figures, _measured_on(parity))}")

    for name, reason in parity.get("left_out", {}).items():
        lines.append(f"{name} was left out: {reason}")

    cost = _describe_slowdown(parity)
    if cost is not None:
        lines.append(f"{cost}. {ADVICE}")
    return lines


def summarise_formats(parity: dict[str, Any]) -> list[str]:
    """What `describe_formats` says, for a terminal: in lines of at most WIDTH characters."""
    lines = []
    for name, figures in parity.get("formats", {}).items():
        lines.append(f"{name}: {_summarise_gate(figures, _measured_on(parity))}")

    for name, reason in parity.get("left_out", {}).items():
        # The card has every fault of a format, and the whole text of an error.
        first = reason.partition("; ")[0]
        line = f"{name} was left out: {first}"
        lines.append(textwrap.shorten(line, WIDTH, placeholder=" ..."))

    cost = _describe_slowdown(parity)
    if cost is not None:
        lines.append(f"{cost}")
        lines.append("what to do: see README.md in the bundle")
    return lines


def _measured_on(parity: dict[str, Any]) -> str:
    """What the accuracy of a reduced format is that of, as the begin of a phrase."""
    is_own = parity.get("compared_on") == "train"
    return "accuracy on its training sentences" if is_own else "validation accuracy"


def _describe_slowdown(parity: dict[str, Any]) -> str | None:
    """What is served in place of a faster format that was left out; None where nothing is lost."""
    left_out = parity.get("left_out", {})
    missed = _fastest(left_out)
    served = _fastest([*parity.get("formats", {}), "torch"])
    if missed is None or served is None or SPEEDS[missed] <= SPEEDS[served]:
        return None

    share = SHARES[_nearest_share(SPEEDS[served] / SPEEDS[missed])]
    return f"{PRECISIONS[served]} is served instead, about {share} as fast"


def _fastest(names: Collection[str]) -> str | None:
    known = [name for name in SPEEDS if name in names]
    return known[0] if known else None


def _nearest_share(share: float) -> float:
    return min(SHARES, key=lambda known: abs(known - share))


def _is_reduced(figures: dict[str, Any]) -> bool:
    # A reduced format is judged by its answers, float32 by its logits.
    return "accuracy" in figures


def _describe_gate(figures: dict[str, Any], measure: str) -> str:
    if not _is_reduced(figures):
        worst = max(figures["largest_logit_difference"].values())
        return f"float32, every logit within {worst:.0e} of the trained model"

    accuracy = 100 * figures["accuracy"]
    agreement = 100 * figures["agreement"]
    return (
        f"{measure} {accuracy:.2f} % ({_describe_change(figures)}), same label as float32"
        f" for {agreement:.1f} % of {figures['rows']:,}"
    )


def _summarise_gate(figures: dict[str, Any], measure: str) -> str:
    if not _is_reduced(figures):
        return _describe_gate(figures, measure)

    accuracy = 100 * figures["accuracy"]
    agreement = 100 * figures["agreement"]
    change = _describe_change(figures)
    measure = measure.removeprefix("validation ")
    return f"{measure} {accuracy:.2f} % ({change}), {agreement:.1f} % same labels"


def _describe_change(figures: dict[str, Any]) -> str:
    lost = 100 * figures["lost_accuracy"]
    if lost < 0:
        return f"{-lost:.2f} points more"
    return f"{lost:.2f} points lost"
