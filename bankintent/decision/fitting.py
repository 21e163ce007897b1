"""Fit a policy: a temperature, a rule for what is out of scope, thresholds, and its promise."""

from dataclasses import asdict, dataclass, replace

import numpy as np
from safetensors.numpy import save

from bankintent.config.decision import DecisionSection
from bankintent.decision import operating_point
from bankintent.decision.deciding import Decisions, count_reasons, decide
from bankintent.decision.material import Material, NearResult
from bankintent.decision.operating_point import Judged
from bankintent.decision.policy import FORMAT, Policy, PolicyRecord, ScopeRule, Thresholds
from bankintent.decision.scope_fit import (
    NEAR,
    Candidate,
    Contest,
    Geometries,
    balanced_share,
    far_contests,
    find_geometries,
    find_rule,
    judge,
    near_results,
)
from bankintent.decision.scope_scores import Geometry, gather
from bankintent.decision.temperature_fit import fit_temperature, held_out_scores
from bankintent.decision.vectors import to_arrays
from bankintent.files import JsonObject, sha256_bytes
from bankintent.labels import LabelSchema
from bankintent.measures import calibration, selective
from bankintent.measures.proportions import clopper_pearson, lower_bound

FEWEST_ROWS = 100
"""Validation rows below which no policy is fitted: a temperature of fewer is a guess, and no
threshold of interest can be promised."""

CURVE_POINTS = 20
"""Points of the risk-coverage curve that a policy keeps."""

SEED = 0
"""Of the simulation behind the noise floor of a calibration error."""


@dataclass(frozen=True)
class FittedPolicy:
    """A policy, and the file of its arrays where it has any."""

    policy: Policy
    arrays: bytes | None


def fit(material: Material, settings: DecisionSection, labels: LabelSchema) -> FittedPolicy:
    """Fit a policy on at least FEWEST_ROWS validation rows."""
    validation = material.validation
    scope = fit_scope(material, settings, len(labels))
    geometry = scope.geometry
    near = gather(validation.logits, validation.features, geometry).nearness

    arrays = None if geometry is None else save(to_arrays(geometry))
    record = PolicyRecord(
        format=FORMAT,
        labels_hash=labels.hash,
        temperature=fit_temperature(validation, near),
        out_of_scope=scope.rule,
        thresholds=None,
        vectors=None if arrays is None else sha256_bytes(arrays),
        target=settings.target.model_dump(exclude_none=True) | {"confidence": settings.confidence},
        promise={},
        fitted_on=_describe(material),
    )

    record = replace(record, thresholds=_thresholds(record, geometry, material, settings, labels))
    policy = Policy(record, labels.names, geometry)
    decisions = decide(validation.logits, validation.features, policy)
    record = replace(
        record,
        promise=_promise(decisions, material, settings),
        figures=_figures(decisions, material, scope),
    )
    return FittedPolicy(Policy(record, labels.names, geometry), arrays)


@dataclass(frozen=True)
class Scope:
    """How texts of no intent are told."""

    candidates: list[Candidate]
    near: dict[str, NearResult]
    rule: ScopeRule | None
    geometry: Geometry | None
    """What the rule and the temperature are computed from beside the logits."""


def fit_scope(material: Material, settings: DecisionSection, num_labels: int) -> Scope:
    """Choose a score by its mean area under the ROC curve, and find its threshold."""
    validation = material.validation
    train = None if validation.features is None else material.train
    geometries = find_geometries(train, num_labels, settings.prototypes)
    plain = geometries["max_logit"]
    if settings.out_of_scope is None:
        return Scope([], material.near or {}, None, plain)

    near = material.near
    if near is None:
        near = near_results(validation, train, num_labels, settings.prototypes)
    far = far_contests(material, geometries)
    if not far and not near:
        return Scope([], {}, None, plain)

    candidates = _candidates(geometries, near, far)
    best = max(candidates, key=lambda candidate: candidate.mean_auroc).name
    # Without features a score that needs them gives way to the best of the others.
    name = settings.out_of_scope if settings.out_of_scope in geometries else best
    share = _share_to_keep(name, near, far, settings)
    rule = find_rule(name, geometries[name], validation, share)
    return Scope(candidates, near, rule, geometries[name])


def _candidates(
    geometries: Geometries, near: dict[str, NearResult], far: list[Contest]
) -> list[Candidate]:
    candidates = []
    for name in geometries:
        aurocs = judge(name, far).aurocs
        if name in near:
            aurocs[NEAR] = near[name].auroc
        candidates.append(Candidate(name, aurocs))
    return candidates


def _share_to_keep(
    name: str, near: dict[str, NearResult], far: list[Contest], settings: DecisionSection
) -> float:
    if settings.keep_in_scope != "balanced":
        return settings.keep_in_scope
    # A threshold that refuses what is near refuses what is far too.
    return near[name].share if name in near else balanced_share(name, far)


def _thresholds(
    record: PolicyRecord,
    geometry: Geometry | None,
    material: Material,
    settings: DecisionSection,
    labels: LabelSchema,
) -> Thresholds | None:
    """The thresholds of the target; None where it cannot be promised."""
    rows = material.validation
    decisions = decide(rows.logits, rows.features, Policy(record, labels.names, geometry))
    inside = decisions.in_scope
    near = gather(rows.logits, rows.features, geometry).nearness
    scores = held_out_scores(rows, near)
    judged = Judged(scores[inside], rows.right[inside], int((~inside).sum()))
    target = settings.target
    if target.precision is None:
        shared = operating_point.find_threshold(judged, target, settings.confidence)
        return None if shared is None else Thresholds(shared)

    answers = decisions.labels[inside]
    own = operating_point.own_thresholds(judged, answers, target.precision, settings.confidence)
    rest = judged.take(~np.isin(answers, list(own)))
    shared = operating_point.find_threshold(rest, target, settings.confidence)
    if shared is None:
        # The rows without the intents that have their own may be too few to promise anything.
        shared = operating_point.find_threshold(judged, target, settings.confidence)
    if shared is None:
        return None
    return Thresholds(shared, {labels.names[intent]: value for intent, value in own.items()})


def _describe(material: Material) -> JsonObject:
    outside = {kind: len(rows) for kind, rows in material.outside.items()}
    train = 0 if material.train is None else len(material.train.labels)
    return {
        "validation_rows": len(material.validation),
        "out_of_scope_rows": outside,
        "train_rows": train,
        **material.about,
    }


def _promise(decisions: Decisions, material: Material, settings: DecisionSection) -> JsonObject:
    """What the policy does with the validation rows."""
    answered = decisions.answered
    rows = len(decisions)
    count = int(answered.sum())
    right = int(material.validation.right[answered].sum())
    return {
        "confidence": settings.confidence,
        "rows": rows,
        "answered": count,
        "right": right,
        "coverage": count / rows,
        "coverage_interval": clopper_pearson(count, rows).ends(),
        "precision": right / count if count else None,
        "precision_interval": clopper_pearson(right, count).ends(),
        "precision_at_least": float(lower_bound(right, count, settings.confidence)),
        "refused": {str(reason): int(n) for reason, n in count_reasons(decisions).items()},
    }


def _figures(decisions: Decisions, material: Material, scope: Scope) -> JsonObject:
    """Measures of the fit on the rows that it was fitted on."""
    rows = material.validation
    plain = decide(rows.logits, None, None)
    before = calibration.calibration_error(plain.scores, rows.right, SEED)
    after = calibration.calibration_error(decisions.scores, rows.right, SEED)
    ranking = selective.rank(decisions.scores, rows.right)
    return {
        "calibration": {"before": asdict(before), "after": asdict(after)},
        "out_of_scope": {
            candidate.name: candidate.aurocs | {"mean": candidate.mean_auroc}
            for candidate in scope.candidates
        },
        "near": {name: asdict(result) for name, result in scope.near.items()},
        "risk_coverage": [asdict(point) for point in selective.curve(ranking, CURVE_POINTS)],
    }
