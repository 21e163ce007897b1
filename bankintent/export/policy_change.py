"""A new policy for a bundle that is there: nothing is trained, and the old one is kept."""

import dataclasses
from pathlib import Path

import numpy as np

from bankintent.bundle import index
from bankintent.bundle.layout import Checkpoint
from bankintent.config.decision import PolicyConfig
from bankintent.corpus import dataset as datasets
from bankintent.corpus.dataset import Dataset
from bankintent.decision.fitting import FittedPolicy, fit
from bankintent.decision.material import Material, NearResult, Vectors
from bankintent.decision.policy import Policy
from bankintent.errors import DataError
from bankintent.export import policy, policy_swap
from bankintent.export.policy_swap import HeldBundle, PolicyChange
from bankintent.inference.labelled import read_dataset, recorded_data
from bankintent.inference.predictor import Predictor
from bankintent.inference.trained_on import trained_rows
from bankintent.progress import row_progress

FORMER = "policies"
"""Folder of a bundle with its former policies, each under its version."""


def change(settings: PolicyConfig) -> PolicyChange:
    """Fit a policy for a bundle and put it there.

    Raises a UserError where the bundle, its data or the target do not allow one; the bundle is then
    as it was. Nobody else may write the bundle meanwhile: what is replaced is what was read.
    """
    with policy_swap.held(settings.model_dir) as bundle:
        return _change(settings, bundle)


def _change(settings: PolicyConfig, bundle: HeldBundle) -> PolicyChange:
    checkpoint = bundle.checkpoint
    data = find_data(checkpoint, settings.data_dir)
    no_features = why_no_features(checkpoint)
    former = bundle.former

    material = gather(checkpoint, data, settings, uses_features=no_features is None)
    material = dataclasses.replace(material, near=find_near(former))
    fitted = fit(material, settings, checkpoint.labels)
    require_kept(fitted, settings)

    change = policy_swap.replace(
        bundle, fitted.policy, lambda staging: policy.write(staging, fitted)
    )
    if no_features is not None:
        change.notes.insert(0, no_features)
    return change


def find_data(checkpoint: Checkpoint, folder: Path | None) -> Dataset:
    """The data that a bundle was trained on; DataError where it is other data, or too little."""
    assert checkpoint.manifest is not None
    data = recorded_data(checkpoint) if folder is None else datasets.load(folder)
    if checkpoint.manifest.data_hash not in (None, data.hash):
        raise DataError(
            f"{data.path} does not hold the data that {checkpoint.name} was trained on (its hash"
            " differs)",
            "Name ETL's output of that data with --set data_dir=...: of other data, rows that the"
            " model has learned could count as validation",
        )
    if data.is_cross:
        raise DataError(
            f"{data.path} has no validation split (split: cross)",
            "Its policy is fitted while it is trained, from the answers out of fold",
        )

    reason = policy.why_not(len(data.read("val")))
    if reason is not None:
        raise DataError(
            f"no policy can be fitted: {reason}",
            "Set a larger val_split in data.yaml, or name the target in train.yaml"
            " (decision.target): training fits a policy on training rows too",
        )
    return data


def why_no_features(checkpoint: Checkpoint) -> str | None:
    """Why a policy cannot use features; None where every form of the model gives them."""
    if policy.formats_give_features(checkpoint.root):
        return None
    return (
        "its exported formats were made by an earlier version and give no features, so that the"
        " policy uses logits alone; train again for a better one"
    )


def gather(
    checkpoint: Checkpoint, data: Dataset, settings: PolicyConfig, *, uses_features: bool
) -> Material:
    """The answers of the model to the rows that its policy is fitted on."""
    predictor = Predictor.load(checkpoint)
    outside = policy.find_outside(data, settings)
    validation = data.read("val")

    with row_progress("validation rows", len(validation)) as advance:
        answers = predictor.outputs(validation.texts, settings.batch_size, advance)
    train = None
    if uses_features:
        train = _read_train(predictor, checkpoint, data, settings.batch_size)
    return policy.gather(predictor, validation, answers, outside, train, settings.batch_size)


def find_near(former: Policy | None) -> dict[str, NearResult] | None:
    """What training found on held-out intents, of the policy that is there; None without it.

    It is of the encoder before it was trained, which the bundle does not hold.
    """
    if former is None or not former.record.figures.get("near"):
        return None

    near = {}
    for name, values in former.record.figures["near"].items():
        near[name] = NearResult(auroc=values["auroc"], share=values["share"])
    return near


def _read_train(
    predictor: Predictor, checkpoint: Checkpoint, data: Dataset, batch_size: int
) -> Vectors | None:
    """The features of the rows that the model was trained on; None where it has none."""
    rows = trained_rows(checkpoint, read_dataset(data, "val"))
    if rows is None:
        return None
    # As many as training has fitted it on.
    rows = rows.take(index.choose(rows.labels))
    with row_progress("training rows", len(rows)) as advance:
        features = predictor.outputs(rows.texts, batch_size, advance).features
    if features is None:
        return None
    return Vectors(features, np.asarray(rows.labels, dtype=np.int64))


def require_kept(fitted: FittedPolicy, settings: PolicyConfig) -> None:
    """Raise DataError where the target cannot be promised on so many validation rows."""
    record = fitted.policy.record
    if record.thresholds is not None:
        return

    rows = record.fitted_on["validation_rows"]
    wanted = settings.target.model_dump(exclude_none=True)
    named = ", ".join(f"{key} {value:g}" for key, value in wanted.items())
    raise DataError(
        f"no threshold promises {named} at confidence {settings.confidence:g} on {rows:,}"
        " validation rows",
        "Ask for a lower precision, or bring more validation rows (val_split in data.yaml)",
    )
