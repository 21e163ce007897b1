"""Run by export in a fresh process: load each saved form of a model and compare it with reference logits.

    python -m bankintent.training.parity STAGING WORK

Prints one JSON object: the largest absolute logit difference of each form, at batch size 1 and 32.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from bankintent.bundle.layout import ADAPTER, MERGED, Checkpoint, base_folder
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema


def compare(staging: Path, work: Path) -> dict[str, float]:
    """Largest differences by form and batch size."""
    texts = json.loads((work / "parity.json").read_text(encoding="utf-8"))
    reference = load_file(work / "parity.safetensors")["logits"]
    labels = LabelSchema.load(staging / "labels.json")
    forms = {"merged": Checkpoint(staging, labels, staging / MERGED, None, None)}
    if (staging / ADAPTER).is_dir():
        base = staging / base_folder(labels)
        forms["base + adapter"] = Checkpoint(staging, labels, base, staging / ADAPTER, None)
    differences = {}
    for name, form in forms.items():
        predictor = Predictor.load(form)
        for batch_size in (1, 32):
            found = predictor.logits(texts, batch_size)
            differences[f"{name}, batch {batch_size}"] = float(np.abs(found - reference).max())
    return differences


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))
