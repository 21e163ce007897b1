"""Run by export in a fresh process: load each saved form of a model, compare it with the trained one, make `onnx/`.

    python -m bankintent.export.fresh_check STAGING WORK

Reads ORDER and LOGITS from WORK and leaves DIFFERENCES there, then FORMATS: without the second file, making `onnx/` has
ended the process.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from bankintent import files, process
from bankintent.bundle.layout import ADAPTER, LABELS, MERGED, ONNX, Checkpoint, base_folder
from bankintent.config import ExportSection
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema

ORDER, LOGITS = "parity.json", "parity.safetensors"
DIFFERENCES, FORMATS = "differences.json", "formats.json"


def main(staging: Path, work: Path) -> None:
    """Compare, then export what is asked for."""
    order = json.loads((work / ORDER).read_text(encoding="utf-8"))
    logits = load_file(work / LOGITS)
    merged, *others = forms(staging)
    predictor = Predictor.load(merged)
    differences = compare("merged", predictor, order["texts"], logits["reference"])
    for form in others:
        differences |= compare(
            form.format, Predictor.load(form), order["texts"], logits["reference"]
        )
    files.write_text(work / DIFFERENCES, files.json_text(differences))
    files.write_text(work / FORMATS, files.json_text(export(predictor, order, logits, staging)))


def forms(staging: Path) -> list[Checkpoint]:
    """What was saved, merged first."""
    labels = LabelSchema.load(staging / LABELS)
    merged = Checkpoint(staging, labels, staging / MERGED, None, None)
    if not (staging / ADAPTER).is_dir():
        return [merged]
    return [
        merged,
        Checkpoint(staging, labels, staging / base_folder(labels), staging / ADAPTER, None),
    ]


def compare(
    name: str, predictor: Predictor, texts: list[str], reference: np.ndarray
) -> dict[str, float]:
    """The largest absolute logit difference at batch size 1 and 32."""
    found = {size: predictor.logits(texts[: len(reference)], size) for size in (1, 32)}
    return {
        f"{name}, batch {size}": float(np.abs(logits - reference).max())
        for size, logits in found.items()
    }


def export(
    predictor: Predictor, order: dict[str, Any], logits: dict[str, np.ndarray], staging: Path
) -> dict[str, Any]:
    """Make `onnx/` where it is wanted: the formats that passed their gate with its figures, and why others did not."""
    wanted = ExportSection.model_validate(order["export"])
    if not wanted.onnx:
        return {"formats": {}, "left_out": {}}
    from bankintent.export import onnx_export
    from bankintent.export.gate import Reference

    # Where there is a GPU the rows for the narrow comparison still are the CPU's.
    expected = np.concatenate(
        [logits["reference"], logits["validation"][len(logits["reference"]) :]]
    )
    reference = Reference(order["texts"], np.array(order["labels"]), expected)
    published = onnx_export.publish(
        predictor, order["backbone"], staging / ONNX, reference, order["calibration"], wanted
    )
    return dataclasses.asdict(published)


if __name__ == "__main__":
    process.end_with_parent()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
