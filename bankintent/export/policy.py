"""The policy of a model, fitted from its answers and written into its bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bankintent import files
from bankintent.bundle import layout
from bankintent.config.decision import DecisionSection
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.general import general_hash, read_general
from bankintent.decision.fitting import FEWEST_ROWS, FittedPolicy
from bankintent.decision.material import LabelledRows, Material, Rows, Vectors
from bankintent.decision.policy import POLICY, VECTORS
from bankintent.errors import DataError
from bankintent.inference.exported_inputs import FormatSettings
from bankintent.inference.predictor import Predictor
from bankintent.inference.runtime import Outputs

NAMED = "named"
"""The kind of sentences that the data itself names out of scope."""

GENERAL = "general"
"""The kind of everyday sentences that are shipped with the project."""

FITTED_SPLITS = ("train", "val")
"""Splits whose out-of-scope sentences a policy is fitted on; those of test are for evaluation."""


@dataclass(frozen=True)
class Outside:
    """Sentences that are none of the intents, by their kind, and where they are from."""

    texts: Mapping[str, list[str]]
    about: dict[str, str | int]


def find_outside(data: Dataset, settings: DecisionSection) -> Outside:
    """The out-of-scope sentences that a policy is fitted on; none of them is of a test split."""
    by_split = data.read_out_of_scope()
    named = []
    for split in FITTED_SPLITS:
        named += by_split.get(split, [])

    texts = {NAMED: named} if named else {}
    about: dict[str, str | int] = {"data": data.name, "data_hash": data.hash}
    if settings.general:
        try:
            texts[GENERAL] = read_general()
            about["general_hash"] = general_hash()
        except DataError:
            # They lie beside the project's own data, which an installed package may lack.
            about["general"] = "not at hand"
    return Outside(texts, about)


def gather(
    predictor: Predictor,
    validation: SplitData,
    answers: Outputs,
    outside: Outside,
    train: Vectors | None,
    batch_size: int,
) -> Material:
    """The material of a policy; `answers` are those to the validation rows.

    Without the features of training rows it has no features at all.
    """
    uses_features = train is not None and answers.features is not None
    kinds = {}
    for kind, texts in outside.texts.items():
        outputs = predictor.outputs(texts, batch_size)
        kinds[kind] = Rows(outputs.logits, outputs.features if uses_features else None)

    return Material(
        validation=LabelledRows(
            answers.logits,
            answers.features if uses_features else None,
            np.asarray(validation.labels, dtype=np.int64),
        ),
        outside=kinds,
        train=train if uses_features else None,
        about=outside.about,
    )


def formats_give_features(bundle: Path) -> bool:
    """Whether every exported format of a bundle gives features; so too where there are none."""
    onnx = bundle / layout.ONNX
    return not onnx.is_dir() or FormatSettings.load(onnx).features > 0


def why_not(rows: int) -> str | None:
    """Why no policy is fitted on so many validation rows; None where one is."""
    if rows >= FEWEST_ROWS:
        return None
    return f"{rows:,} validation rows are too few (at least {FEWEST_ROWS})"


def write(folder: Path, fitted: FittedPolicy) -> None:
    """Write a policy and its arrays into a bundle that is not sealed yet."""
    files.write_text(folder / POLICY, fitted.policy.record.to_json())
    arrays = folder / VECTORS
    if fitted.arrays is None:
        arrays.unlink(missing_ok=True)
        return
    with files.staged(arrays) as path:
        path.write_bytes(fitted.arrays)
