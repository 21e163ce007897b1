"""Policies made by hand, put into bundles as a fit would put them."""

import json
import math
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import REPOSITORY

from bankintent.bundle import layout
from bankintent.decision.gaussian import Gaussians
from bankintent.decision.policy import (
    POLICY,
    VECTORS,
    Policy,
    PolicyRecord,
    ScopeRule,
    Temperature,
    Thresholds,
)
from bankintent.decision.prototypes import Prototypes
from bankintent.decision.scope_scores import Geometry
from bankintent.decision.vectors import to_arrays
from bankintent.labels import LabelSchema
from bankintent.measures.unit_vectors import normalise


def make_record(labels: Sequence[str], **changes: Any) -> PolicyRecord:
    """A policy by which logits of 4 and more are in scope, and scores of .7 and more enough."""
    values: dict[str, Any] = {
        "format": 1,
        "labels_hash": LabelSchema(tuple(labels)).hash,
        "temperature": Temperature(bias=math.log(2)),
        "out_of_scope": ScopeRule({"max_logit": 1.0}, threshold=4.0),
        "thresholds": Thresholds(shared=0.7),
        "vectors": None,
        "target": {"precision": 0.98},
        "promise": {"precision": 0.98, "coverage": 0.9},
        "fitted_on": {"rows": 1000},
    }
    return PolicyRecord(**(values | changes))


def make_policy(labels: Sequence[str], **changes: Any) -> Policy:
    """The same, ready to decide."""
    return Policy(make_record(labels, **changes), tuple(labels))


def save_vectors(bundle: Path, vectors: Any) -> None:
    """Write one prototype of each intent, (labels, width), into a bundle that is sealed later."""
    from safetensors.numpy import save_file

    save_file(to_arrays(make_geometry(vectors)), bundle / VECTORS)


def make_geometry(vectors: Any, gaussians: Gaussians | None = None) -> Geometry:
    """One prototype of each intent, in the directions of (labels, width) vectors."""
    labels = np.arange(len(vectors), dtype=np.int64)
    return Geometry(Prototypes(normalise(vectors.astype(np.float32)), labels), gaussians)


def documented(name: str, folder: Path) -> Any:
    """The function of this name in a block of Python of docs/how-to/onnx-numpy.md, run from a folder."""
    text = (REPOSITORY / "docs" / "how-to" / "onnx-numpy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    found = [block for block in blocks if f"def {name}(" in block]
    assert len(found) == 1
    script = folder / f"{name}.py"
    script.write_text(found[0])
    return runpy.run_path(str(script))[name]


def put_policy(bundle: Path, record: PolicyRecord) -> None:
    """Write a policy into a bundle, and seal it again."""
    (bundle / POLICY).write_text(record.to_json())

    manifest = json.loads((bundle / layout.MANIFEST).read_text())
    (bundle / layout.MANIFEST).unlink()
    del manifest["files"]
    layout.seal(bundle, manifest)
