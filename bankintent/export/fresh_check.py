"""The fresh process of publishing: load each saved form of a model, compare it, make `onnx/`.

    python -m bankintent.export.fresh_check STAGING WORK

Reads REQUEST and LOGITS from WORK and leaves DIFFERENCES there, then FORMATS. Where the first is
there without the second, making `onnx/` has ended the process.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from bankintent import files
from bankintent.bundle.layout import ADAPTER, LABELS, MERGED, ONNX, Checkpoint, base_folder
from bankintent.config import ExportSection
from bankintent.config.base import Section
from bankintent.export import steps
from bankintent.export.gate import BATCH_SIZES, FormatResults, ReferenceAnswers
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema

REQUEST = "parity.json"
LOGITS = "parity.safetensors"
DIFFERENCES = "differences.json"
FORMATS = "formats.json"
STEPS = "steps.txt"
"""What the process is doing, a line as each step begins."""


class CheckRequest(Section):
    """REQUEST: everything that the fresh process needs but the logits."""

    texts: list[str]
    """All validation sentences."""
    label_ids: list[int]
    """Their true labels."""
    calibration: list[str]
    """Training sentences from which int8 takes its scales."""
    backbone: str
    """The public name of the pretrained model."""
    export: ExportSection

    def save(self, work: Path) -> None:
        """Write it into the folder WORK."""
        text = json.dumps(self.model_dump())
        (work / REQUEST).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, work: Path) -> "CheckRequest":
        """Read it from the folder WORK."""
        text = (work / REQUEST).read_text(encoding="utf-8")
        return cls.model_validate(json.loads(text))


def main(staging: Path, work: Path) -> None:
    """Compare every saved form, then export what the request names."""
    with steps.recorded(work / STEPS):
        check_forms(staging, work)


def check_forms(staging: Path, work: Path) -> None:
    """`main` without the record of its steps."""
    steps.begin("comparing the saved forms")
    request = CheckRequest.load(work)
    logits = load_file(work / LOGITS)
    reference = logits["reference"]
    merged, *others = saved_forms(staging)

    predictor = Predictor.load(merged)
    differences = largest_differences("merged", predictor, request.texts, reference)
    for form in others:
        other = Predictor.load(form)
        differences |= largest_differences(form.format, other, request.texts, reference)
    # Before the export, which can end the process.
    files.write_text(work / DIFFERENCES, files.json_text(differences))

    # The first rows are compared narrowly: they are the CPU's also where a GPU computed the others.
    other_rows = logits["validation"][len(reference) :]
    expected = np.concatenate([reference, other_rows])
    results = export_formats(predictor, request, expected, staging)
    files.write_text(work / FORMATS, files.json_text(dataclasses.asdict(results)))


def saved_forms(staging: Path) -> list[Checkpoint]:
    """The forms of the model that were saved, merged first."""
    labels = LabelSchema.load(staging / LABELS)
    forms = [Checkpoint(staging, labels, staging / MERGED, None, None)]

    adapter = staging / ADAPTER
    if adapter.is_dir():
        base = staging / base_folder(labels)
        forms.append(Checkpoint(staging, labels, base, adapter, None))
    return forms


def largest_differences(
    name: str, predictor: Predictor, texts: list[str], reference: np.ndarray
) -> dict[str, float]:
    """The largest absolute difference of a logit for each batch size.

    `reference` are the (rows, labels) logits of the first `rows` texts.
    """
    compared = texts[: len(reference)]
    differences = {}
    for size in BATCH_SIZES:
        logits = predictor.logits(compared, size)
        largest = np.abs(logits - reference).max()
        differences[f"{name}, batch {size}"] = float(largest)
    return differences


def export_formats(
    predictor: Predictor, request: CheckRequest, logits: np.ndarray, staging: Path
) -> FormatResults:
    """Make `onnx/` where the request asks for it; `logits` are those of all its texts."""
    if not request.export.onnx:
        return FormatResults({}, {})
    # The exporter takes seconds to import: it is imported only where it is needed.
    from bankintent.export.onnx_export import write_formats

    reference = ReferenceAnswers(request.texts, np.array(request.label_ids), logits)
    return write_formats(
        predictor,
        request.backbone,
        staging / ONNX,
        reference,
        request.calibration,
        request.export,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
