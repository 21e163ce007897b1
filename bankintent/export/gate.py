"""What a format must show before it is published: answers like the trained model's, whatever stands beside a text."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent.inference.exported_runtime import FLOAT_TOLERANCE, REDUCED_TOLERANCE
from bankintent.inference.runtime import Logits, Tokens

PARITY_ROWS = 64
GATE_ROWS = 4096
"""Most validation sentences that a reduced format is measured on, spread over the split."""
NEIGHBOUR_ROWS = 256
LOST_ACCURACY = 0.002
AGREEMENT = 0.99


class Model(Protocol):
    """What can be measured."""

    def tokenize(self, texts: list[str]) -> list[Tokens]: ...

    def logits(self, items: list[Tokens]) -> Logits: ...


@dataclass(frozen=True)
class Reference:
    """What the trained model says in float32: (rows, labels) logits of validation sentences, and their true labels."""

    texts: list[str]
    labels: NDArray[np.int64]
    logits: Logits


@dataclass(frozen=True)
class Verdict:
    """What a format showed, and why it may not be published; without a reason it may."""

    figures: dict[str, Any]
    reason: str | None


def judge_float32(model: Model, reference: Reference) -> Verdict:
    """Every logit within FLOAT_TOLERANCE and the same top label, at batch 1 and 32."""
    items = model.tokenize(reference.texts[:PARITY_ROWS])
    expected = reference.logits[:PARITY_ROWS]
    found = {f"batch {size}": batched(model, items, size) for size in (1, 32)}
    differences = {name: float(np.abs(logits - expected).max()) for name, logits in found.items()}
    figures = {"rows": len(items), "largest_logit_difference": differences}
    worst = max(differences.values())
    if not worst <= FLOAT_TOLERANCE:
        return Verdict(figures, f"a logit differs by {worst:.1e}, more than {FLOAT_TOLERANCE:.0e}")
    changed = max(_changed(logits, expected) for logits in found.values())
    return Verdict(figures, f"the top label of {changed} sentences is another" if changed else None)


def judge_reduced(model: Model, reference: Reference) -> Verdict:
    """At most LOST_ACCURACY less accuracy, at least AGREEMENT of the top labels, and no word of the neighbours in it."""
    rows = np.unique(
        np.linspace(0, len(reference.texts) - 1, min(GATE_ROWS, len(reference.texts))).astype(int)
    )
    expected, labels = reference.logits[rows], reference.labels[rows]
    items = model.tokenize([reference.texts[row] for row in rows])
    found = batched(model, items, 32)
    if not np.isfinite(found).all():
        return Verdict({"rows": len(rows)}, "a logit is not finite")
    changed, depends = neighbours(model, items[:NEIGHBOUR_ROWS])
    allowed = REDUCED_TOLERANCE * float(np.abs(expected).max())
    lost = float(
        np.mean(expected.argmax(axis=1) == labels) - np.mean(found.argmax(axis=1) == labels)
    )
    agreement = 1 - _changed(found, expected) / len(rows)
    figures = {
        "rows": len(rows),
        "accuracy": round(float(np.mean(found.argmax(axis=1) == labels)), 6),
        "lost_accuracy": round(lost, 6),
        "agreement": round(agreement, 6),
        "largest_logit_difference": float(np.abs(found - expected).max()),
        "neighbours": {
            "labels_changed": changed,
            "largest_logit_difference": depends,
            "allowed": allowed,
        },
    }
    faults = {
        f"it loses {100 * lost:.2f} points of accuracy": lost > LOST_ACCURACY + 1e-9,
        f"it agrees on {100 * agreement:.1f} % of the labels": agreement < AGREEMENT,
        f"answers depend on the batch ({changed} labels change with their neighbours, a logit by {depends:.1e})": (
            changed > 0 or not depends <= allowed
        ),
    }
    return Verdict(figures, "; ".join(fault for fault, found in faults.items() if found) or None)


def neighbours(model: Model, items: list[Tokens]) -> tuple[int, float]:
    """How many top labels, and by how much the logits, differ between each text alone and two batches of 32.

    In the second the order is reversed and begins elsewhere: other neighbours, another place, another padding.
    """
    alone = batched(model, items, 1)
    order = np.roll(np.arange(len(items))[::-1], 7)
    shuffled = np.empty_like(alone)
    shuffled[order] = batched(model, [items[row] for row in order], 32)
    together = [batched(model, items, 32), shuffled]
    changed = np.any([logits.argmax(axis=1) != alone.argmax(axis=1) for logits in together], axis=0)
    return int(changed.sum()), max(float(np.abs(logits - alone).max()) for logits in together)


def batched(model: Model, items: list[Tokens], size: int) -> Logits:
    """(items, labels) logits in batches of a size, in the order given."""
    return np.concatenate(
        [model.logits(items[start : start + size]) for start in range(0, len(items), size)]
    )


def _changed(found: Logits, expected: Logits) -> int:
    return int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
