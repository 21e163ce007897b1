"""What a bundle needs to answer, refuse and explain: its policy, and the index of its sentences.

Both are made of one pass of the published model over the training sentences.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bankintent import console
from bankintent.bundle import index, layout
from bankintent.config.decision import DecisionSection
from bankintent.corpus.dataset import SplitData
from bankintent.decision.fitting import fit
from bankintent.decision.material import LabelledRows, Material, NearResult, Rows, Vectors
from bankintent.decision.policy import PolicyRecord
from bankintent.decision.scope_fit import near_results
from bankintent.decision.wording import CROSS_FITTED, describe
from bankintent.export import policy, steps
from bankintent.inference.predictor import Predictor
from bankintent.inference.runtime import Outputs
from bankintent.training.cross_fitting import CrossFit
from bankintent.training.cross_validation import CrossValidation
from bankintent.training.features import Features
from bankintent.training.fit import Fitted, TrainingRun


@dataclass(frozen=True)
class Answering:
    """What was written."""

    policy: PolicyRecord | None
    no_policy: str | None
    """Why there is none; None where there is one, or where none was asked for."""

    def describe(self) -> list[str]:
        """When the model answers, in lines for a terminal or a card."""
        if self.policy is not None:
            return describe(self.policy)
        why = "" if self.no_policy is None else f": {self.no_policy}"
        return [f"no policy{why}; it answers everything, and its scores are not calibrated"]


def count_steps(run: TrainingRun, cross: CrossValidation | None, extra: CrossFit | None) -> int:
    """How many steps of a publication `write` has."""
    fits_policy = _fits_policy(run, cross, extra)
    return (fits_policy or run.config.explain.index) + fits_policy


def write(
    staging: Path,
    run: TrainingRun,
    fitted: Fitted,
    cross: CrossValidation | None,
    extra: CrossFit | None,
) -> Answering:
    """Write the policy and the index of a bundle that is not yet sealed, as the settings ask.

    `extra` are answers out of fold to training rows, where validation rows alone are too few.
    """
    config = run.config
    reason = _why_no_policy(run, cross, extra)
    fits_policy = _fits_policy(run, cross, extra)
    if not fits_policy and not config.explain.index:
        return Answering(None, reason)

    steps.begin("reading the training sentences with the published model")
    predictor = Predictor.load(staging / layout.MERGED)
    known = _rows_to_know(run)
    train = predictor.outputs(known.texts, config.eval_batch_size)
    if config.explain.index:
        _write_index(staging, run, known, train)
    if not fits_policy:
        return Answering(None, reason)

    assert config.decision is not None
    steps.begin("finding out when to answer")
    # One policy decides for every published format.
    comparable = train if policy.formats_give_features(staging) else Outputs(train.logits, None)
    known_vectors = _vectors(known, comparable)
    material = _gather(run, cross, predictor, known_vectors, config.decision)
    if extra is not None and extra.rows is not None:
        material = _joined(material, extra.rows)
    near = _hold_intents_out(run, fitted.frozen, material, config.decision)
    made = fit(replace(material, near=near), config.decision, run.data.labels)
    policy.write(staging, made)
    return Answering(made.policy.record, None)


def _rows_to_know(run: TrainingRun) -> SplitData:
    """The training rows, or of many as many of each intent as an index may have."""
    train = run.rows.train
    return train.take(index.choose(train.labels))


def _vectors(rows: SplitData, outputs: Outputs) -> Vectors | None:
    """What the model makes of its training rows; None where that is no vector of each."""
    if outputs.features is None:
        return None
    return Vectors(outputs.features, np.asarray(rows.labels, dtype=np.int64))


def _hold_intents_out(
    run: TrainingRun, frozen: Features | None, material: Material, settings: DecisionSection
) -> dict[str, NearResult] | None:
    """How scores tell intents that the encoder has not learned; None without its own vectors."""
    rows = len(run.rows.train)
    validation = material.validation
    if frozen is None or len(frozen.val) != len(validation) or run.rows.train.is_mapped:
        return None

    # Sentences that the run labelled itself come after its own rows.
    labels = np.asarray(run.rows.train.labels, dtype=np.int64)
    known = Vectors(frozen.train[:rows].numpy(), labels)
    seen = LabelledRows(validation.logits, frozen.val.numpy(), validation.labels)
    return near_results(seen, known, len(run.data.labels), settings.prototypes)


def _fits_policy(run: TrainingRun, cross: CrossValidation | None, extra: CrossFit | None) -> bool:
    return run.config.decision is not None and _why_no_policy(run, cross, extra) is None


def _why_no_policy(
    run: TrainingRun, cross: CrossValidation | None, extra: CrossFit | None
) -> str | None:
    if run.config.decision is None:
        return None
    if extra is not None:
        return extra.why_none
    return policy.why_not(len(run.rows.val) if cross is None else len(cross.true))


def _write_index(staging: Path, run: TrainingRun, known: SplitData, outputs: Outputs) -> None:
    """Write the index of the known sentences; a model without vectors of texts has none."""
    if outputs.features is None:
        console.say("note: no index of training sentences: the model has no one vector of a text")
        return

    chosen = index.choose(known.labels)
    index.write(
        staging,
        run.data.labels,
        known.take(chosen),
        outputs.features[chosen],
        trained_on=len(run.rows.train),
        with_texts=run.config.explain.texts,
    )


def _gather(
    run: TrainingRun,
    cross: CrossValidation | None,
    predictor: Predictor,
    train: Vectors | None,
    settings: DecisionSection,
) -> Material:
    outside = policy.find_outside(run.data, settings)
    batch_size = run.config.eval_batch_size
    if cross is not None:
        return _out_of_fold(cross, predictor, outside, batch_size)

    validation = run.rows.val
    answers = predictor.outputs(validation.texts, batch_size)
    return policy.gather(predictor, validation, answers, outside, train, batch_size)


def _out_of_fold(
    cross: CrossValidation, predictor: Predictor, outside: policy.Outside, batch_size: int
) -> Material:
    """The answers of the folds' models, which have no features that the published model shares."""
    kinds = {}
    for kind, texts in outside.texts.items():
        kinds[kind] = Rows(predictor.outputs(texts, batch_size).logits, None)
    return Material(
        validation=LabelledRows(cross.logits[0], None, cross.true),
        outside=kinds,
        about=outside.about | {"validation": "answers out of fold"},
    )


def _joined(material: Material, extra: LabelledRows) -> Material:
    """The material with more rows to fit on, of which the logits alone are comparable."""
    validation = material.validation
    outside = {kind: Rows(rows.logits, None) for kind, rows in material.outside.items()}
    return Material(
        validation=LabelledRows(
            np.concatenate([validation.logits, extra.logits]),
            None,
            np.concatenate([validation.labels, extra.labels]),
        ),
        outside=outside,
        about=material.about | {CROSS_FITTED: len(extra)},
    )
