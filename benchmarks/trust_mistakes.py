"""Mistakes that every model of a data set makes alike, whatever its regime and seed.

Where all of them give the same answer and it is not the label, the label may be the mistake. The
sure ones among these bound the coverage at a high precision.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.deciding import decide
from bankintent.measures.arrays import Bools, Ints
from bankintent.measures.selective import PRECISIONS
from benchmarks.tables import Record

COVERAGES = (0.9, 0.8)
"""Share of the surest rows that is looked at for each of PRECISIONS: what is to be reached."""

Logits = NDArray[np.float32]


def find_shared(models: Mapping[str, Sequence[Logits]], labels: Ints) -> Record:
    """How many mistakes all models share, and how many of the sure ones they are.

    `models` are the (rows, labels) logits of each model, by regime; `labels` are (rows,) ids.
    """
    every: list[Ints] = []
    for group in models.values():
        every += [logits.argmax(axis=1) for logits in group]
    is_alike = np.all(np.stack(every) == every[0], axis=0)
    is_shared = is_alike & (every[0] != labels)

    entries = []
    for regime, group in models.items():
        for precision, coverage in zip(PRECISIONS, COVERAGES, strict=True):
            counts = [_count(logits, labels, is_shared, coverage) for logits in group]
            entries.append(
                {
                    "regime": regime,
                    "coverage": coverage,
                    "precision": precision,
                    "allowed": int((1 - precision) * coverage * len(labels) + 1e-9),
                    "wrong": [count[0] for count in counts],
                    "shared": [count[1] for count in counts],
                }
            )
    return {
        "models": len(every),
        "rows": len(labels),
        "shared": int(is_shared.sum()),
        "surest": entries,
    }


def _count(logits: Logits, labels: Ints, is_shared: Bools, coverage: float) -> tuple[int, int]:
    """Mistakes among the surest rows, and those of them that all models share."""
    decisions = decide(logits, None, None)
    order = np.argsort(-decisions.scores, kind="stable")
    surest = order[: round(coverage * len(labels))]
    is_wrong = decisions.labels[surest] != labels[surest]
    return int(is_wrong.sum()), int((is_wrong & is_shared[surest]).sum())
