"""The policy of a model: what is decided, how it is fitted, what it promises."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from bankintent.config import DecisionSection, TargetSection
from bankintent.decision import operating_point
from bankintent.decision.deciding import Reason, Verdict, decide, temperatures_of
from bankintent.decision.fitting import fit
from bankintent.decision.material import LabelledRows, Material, Rows, Vectors
from bankintent.decision.operating_point import Judged
from bankintent.decision.policy import (
    FORMAT,
    Policy,
    PolicyRecord,
    ScopeRule,
    Temperature,
    Thresholds,
)
from bankintent.decision.prototypes import Nearness
from bankintent.decision.scope_scores import Evidence, energy, max_logit, max_softmax
from bankintent.decision.temperature_fit import fit_temperature
from bankintent.decision.vectors import from_arrays, to_arrays
from bankintent.labels import LabelSchema
from bankintent.measures.calibration import expected_calibration_error, negative_log_likelihood
from bankintent.measures.metrics import softmax

INTENTS = 8
WIDTH = 16
LABELS = LabelSchema(tuple(f"intent_{number}" for number in range(INTENTS)))
NO_TARGET = {"precision": 0.9, "confidence": 0.9}


def make_record(**values):
    """A policy that does nothing but what the values say."""
    settings = {
        "format": FORMAT,
        "labels_hash": LABELS.hash,
        "temperature": Temperature(0.0),
        "out_of_scope": None,
        "thresholds": None,
        "vectors": None,
        "target": NO_TARGET,
        "promise": {},
        "fitted_on": {},
    }
    return PolicyRecord(**(settings | values))


def make_policy(**values):
    return Policy(make_record(**values), LABELS.names)


class World:
    """Intents as directions, sentences around them, and a head that is too sure of itself."""

    def __init__(self, seed=0, spread=0.33):
        self.rng = np.random.default_rng(seed)
        self.spread = spread
        self.centres = np.linalg.qr(self.rng.normal(size=(WIDTH, WIDTH)))[0][: INTENTS + 3]

    def features(self, centres):
        noise = self.rng.normal(scale=self.spread, size=(len(centres), WIDTH))
        return (centres + noise).astype(np.float32)

    def logits(self, features):
        return (12 * features @ self.centres[:INTENTS].T).astype(np.float32)

    def labelled(self, rows):
        labels = self.rng.integers(INTENTS, size=rows)
        features = self.features(self.centres[labels])
        return LabelledRows(self.logits(features), features, labels)

    def outside(self, rows):
        features = self.features(self.centres[INTENTS + self.rng.integers(3, size=rows)])
        return Rows(self.logits(features), features)

    def material(self, rows=600):
        train = self.labelled(800)
        return Material(
            self.labelled(rows),
            {"general": self.outside(200)},
            Vectors(train.features, train.labels),
        )


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def material(world):
    return world.material()


@pytest.fixture(scope="module")
def fitted(material):
    return fit(material, DecisionSection(target=TargetSection(precision=0.95)), LABELS)


# --- deciding


def test_without_a_policy_every_text_is_answered_with_its_softmax():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.1, 0.0]], dtype=np.float32)
    decisions = decide(logits, None, None)
    assert decisions.answered.all()
    np.testing.assert_allclose(decisions.probabilities, softmax(logits))
    assert decisions.seconds.tolist() == [1, 0]


def test_a_low_score_is_refused_and_a_close_call_names_both_intents():
    policy = make_policy(thresholds=Thresholds(0.7, {"intent_3": 0.2}))
    logits = np.full((4, INTENTS), -9.0, dtype=np.float32)
    logits[0, 1] = 0.0  # sure
    logits[1, [1, 2]] = [0.1, 0.0]  # one of two
    logits[2, :] = 0.0  # anything
    logits[3, :] = [0, 0, 0, 1, 0, 0, 0, 0]  # an intent that needs little

    decisions = decide(logits, None, policy)
    reasons = [decisions.of(row).reason for row in range(4)]
    assert reasons == [Reason.NONE, Reason.CLOSE_CALL, Reason.BELOW_THRESHOLD, Reason.NONE]
    close = decisions.of(1)
    assert (close.label, close.second, close.verdict) == (1, 2, Verdict.ABSTAIN)
    assert close.in_scope


def test_out_of_scope_is_the_reason_whatever_the_score():
    policy = make_policy(out_of_scope=ScopeRule({"max_logit": 1.0}, 3.0))
    logits = np.zeros((2, INTENTS), dtype=np.float32)
    logits[0, 0] = 2.9
    logits[1, 0] = 3.0
    decisions = decide(logits, None, policy)
    assert decisions.in_scope.tolist() == [False, True]
    assert decisions.of(0).reason is Reason.OUT_OF_SCOPE
    assert decisions.of(0).verdict is Verdict.ABSTAIN


def test_labels_do_not_change_with_the_policy(world, fitted):
    rows = world.labelled(500)
    with_policy = decide(rows.logits, rows.features, fitted.policy)
    assert with_policy.labels.tolist() == decide(rows.logits, None, None).labels.tolist()
    # Nor does the order of the others: a temperature keeps it.
    order = np.argsort(-rows.logits, axis=1, kind="stable")
    sorted_scores = np.take_along_axis(with_policy.probabilities, order, axis=1)
    assert (np.diff(sorted_scores, axis=1) <= 1e-12).all()


def test_the_answer_to_a_text_does_not_depend_on_its_batch(world, fitted):
    rows = world.labelled(50)
    together = decide(rows.logits, rows.features, fitted.policy)
    for row in range(50):
        own = slice(row, row + 1)
        alone = decide(rows.logits[own], rows.features[own], fitted.policy).of(0)
        assert alone.reason == together.of(row).reason
        assert alone.score == pytest.approx(together.of(row).score, abs=1e-6)


def test_one_intent_has_no_second():
    decision = decide(np.ones((1, 1), dtype=np.float32), None, None).of(0)
    assert (decision.second, decision.margin) == (0, 0.0)


# --- scores of scope


def test_scores_of_logits_have_their_known_values():
    evidence = Evidence(np.array([[1.0, 0.0], [3.0, 3.0]], dtype=np.float32))
    np.testing.assert_allclose(max_logit(evidence), [1, 3])
    np.testing.assert_allclose(energy(evidence), [np.log(np.e + 1), 3 + np.log(2)])
    np.testing.assert_allclose(max_softmax(evidence), softmax(evidence.logits).max(axis=1))


def test_the_best_score_is_chosen_and_refuses_what_is_far(world, fitted):
    record = fitted.policy.record
    areas = record.figures["out_of_scope"]
    chosen = "+".join(record.out_of_scope.weights)
    assert areas[chosen]["mean"] == max(figures["mean"] for figures in areas.values())

    inside = world.labelled(1000)
    outside = world.outside(1000)
    kept = decide(inside.logits, inside.features, fitted.policy).in_scope.mean()
    refused = 1 - decide(outside.logits, outside.features, fitted.policy).in_scope.mean()
    # It was asked to keep 97 % of validation rows.
    assert 0.94 < kept < 0.995
    assert refused > 0.5


@pytest.mark.parametrize("name", ["max_logit", "nearest", "relative_mahalanobis_normalised"])
def test_a_named_score_is_used(material, name):
    fitted = fit(material, DecisionSection(out_of_scope=name), LABELS)
    assert list(fitted.policy.record.out_of_scope.weights) == [name]
    rows = material.validation
    assert decide(rows.logits, rows.features, fitted.policy).in_scope.mean() >= 0.97


def test_nothing_is_out_of_scope_where_the_rule_is_off(material):
    fitted = fit(material, DecisionSection(out_of_scope=None), LABELS)
    rows = material.outside["general"]
    assert decide(rows.logits, rows.features, fitted.policy).in_scope.all()


def test_balanced_refuses_more_of_what_is_outside(world, material, fitted):
    balanced = fit(material, DecisionSection(keep_in_scope="balanced"), LABELS)
    outside = world.outside(1000)
    usual = decide(outside.logits, outside.features, fitted.policy).in_scope.mean()
    assert decide(outside.logits, outside.features, balanced.policy).in_scope.mean() <= usual


def test_without_features_the_policy_has_logits_alone(material):
    rows = material.validation
    plain = Material(
        LabelledRows(rows.logits, None, rows.labels),
        {"general": Rows(material.outside["general"].logits, None)},
    )
    fitted = fit(plain, DecisionSection(), LABELS)
    assert fitted.arrays is None
    assert not fitted.policy.needs_features
    assert decide(rows.logits, None, fitted.policy).in_scope.mean() >= 0.97


# --- temperature


def test_scores_are_calibrated_on_rows_that_were_not_fitted_on(world, fitted):
    rows = world.labelled(4000)
    before = expected_calibration_error(decide(rows.logits, None, None).scores, rows.right)
    decisions = decide(rows.logits, rows.features, fitted.policy)
    after = expected_calibration_error(decisions.scores, rows.right)
    assert after < min(0.03, before)


def separable_rows(rows, scale, wrong=0, intents=24):
    """Logits that are right by far, but for some rows; `scale` multiplies them."""
    rng = np.random.default_rng(3)
    labels = rng.integers(intents, size=rows)
    logits = rng.normal(size=(rows, intents))
    logits[np.arange(rows), labels] = logits.max(axis=1) + 1 + rng.gamma(4, size=rows)
    # The label of a wrong row is one that its answer is not.
    labels[:wrong] = (labels[:wrong] + 1) % intents
    return LabelledRows((scale * logits).astype(np.float32), None, labels)


def near_rows(rows):
    """The nearness of texts that all are near to their own intent."""
    rng = np.random.default_rng(4)
    own = rng.uniform(0.7, 0.99, size=len(rows)).astype(np.float32)
    return Nearness(own, own - rng.uniform(0.2, 0.5, size=len(rows)).astype(np.float32))


@pytest.mark.parametrize("with_nearness", [False, True])
@pytest.mark.parametrize("scale", [0.05, 1, 30])
@pytest.mark.parametrize("count", [100, 145, 431])
def test_rows_without_a_mistake_do_not_make_every_score_one(count, scale, with_nearness):
    rows = separable_rows(count, scale)
    assert rows.right.all()
    near = near_rows(rows) if with_nearness else None
    fitted = fit_temperature(rows, near)

    temperatures = temperatures_of(fitted, near, count)
    scores = softmax(rows.logits / temperatures[:, np.newaxis]).max(axis=1)
    # By Laplace's rule of succession one more row is right with at most this probability.
    assert 0.9 < scores.mean() < 1 - 1 / (count + 2)
    assert scores.min() < 0.95
    assert np.abs(np.log(temperatures / scale)).max() < 2


def test_a_model_without_a_mistake_still_refuses_what_it_is_not_sure_of():
    rows = separable_rows(145, 5)
    labels = LabelSchema(tuple(f"intent_{number}" for number in range(24)))
    policy = fit(Material(rows), DecisionSection(), labels).policy
    unsure = rows.logits / 10
    in_scope = Policy(replace(policy.record, out_of_scope=None), labels.names)
    decisions = decide(unsure, None, in_scope)
    assert decisions.scores.max() < 0.9
    assert decisions.answered.mean() < 0.1


def test_temperatures_follow_the_scale_of_the_logits():
    plain = fit_temperature(separable_rows(145, 1), None).bias
    large = fit_temperature(separable_rows(145, 30), None).bias
    assert large - plain == pytest.approx(np.log(30), abs=1e-3)


def test_with_many_mistakes_the_fit_is_that_of_the_plain_likelihood():
    rows = separable_rows(3000, 1, wrong=300)
    fitted = fit_temperature(rows, None).bias

    def plain_loss(bias):
        probabilities = softmax(rows.logits / np.exp(bias))
        return negative_log_likelihood(probabilities, rows.labels)

    best = optimize.minimize_scalar(plain_loss, bounds=(-3, 3), method="bounded").x
    assert fitted == pytest.approx(best, abs=0.01)


def test_a_single_intent_leaves_the_temperature_at_one():
    rows = LabelledRows(np.ones((120, 1), np.float32), None, np.zeros(120, np.int64))
    assert fit_temperature(rows, None) == Temperature(0.0)


# --- thresholds


def judged_rows(rows=2000, seed=0):
    """Calibrated scores: each is the probability of being right."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(6, 1, size=rows)
    return Judged(scores, rng.random(rows) < scores)


@pytest.mark.parametrize("precision", [0.9, 0.95, 0.98])
def test_a_promised_precision_is_missed_no_oftener_than_allowed(precision):
    missed = []
    for seed in range(100):
        threshold = operating_point.for_precision(judged_rows(1000, seed), precision, 0.9)
        rows = judged_rows(20_000, seed + 1000)
        # No threshold is no promise.
        is_met = threshold is None or rows.right[rows.scores >= threshold].mean() >= precision
        missed.append(not is_met)
    assert np.mean(missed) <= 0.15  # 0.1 is allowed; 100 draws leave some noise


def test_a_precision_that_few_rows_cannot_promise_has_no_threshold():
    rows = Judged(np.linspace(0.5, 1, 100), np.ones(100, dtype=bool))
    assert operating_point.for_precision(rows, 0.98, 0.9) is None
    assert operating_point.for_precision(rows, 0.9, 0.9) is not None


def test_rows_of_one_score_are_answered_together():
    rows = Judged(np.full(300, 0.9), np.arange(300) % 2 == 0)
    assert operating_point.for_precision(rows, 0.9, 0.9) is None


def test_a_promised_coverage_counts_what_is_refused_as_out_of_scope():
    rows = judged_rows(1000)
    plain = operating_point.for_coverage(rows, 0.8, 0.9)
    with_refused = operating_point.for_coverage(
        Judged(rows.scores, rows.right, refused=100), 0.8, 0.9
    )
    assert (rows.scores >= plain).mean() >= 0.8
    assert with_refused < plain
    assert operating_point.for_coverage(rows, 0.9999, 0.9) == 0.0


def test_costs_choose_what_is_cheap():
    rows = judged_rows(4000)
    careful = operating_point.for_costs(rows, wrong=20, handover=1, confidence=0.9)
    bold = operating_point.for_costs(rows, wrong=2, handover=1, confidence=0.9)
    # Chow's rule for calibrated scores: answer from 1 - handover / wrong on.
    assert careful == pytest.approx(0.95, abs=0.04)
    assert bold == pytest.approx(0.5, abs=0.12)
    never = operating_point.for_costs(Judged(rows.scores, np.zeros(4000, dtype=bool)), 20, 1, 0.9)
    assert never > 1


def test_an_intent_with_many_rows_has_its_own_threshold():
    many = judged_rows(1500, seed=1)
    answers = np.zeros(1500, dtype=np.intp)
    answers[1450:] = 1
    own = operating_point.own_thresholds(many, answers, 0.95, 0.9)
    assert list(own) == [0]


# --- the promise and the record


def test_the_promise_holds_on_other_rows(world, fitted):
    record = fitted.policy.record
    rows = world.labelled(4000)
    decisions = decide(rows.logits, rows.features, fitted.policy)
    assert rows.right[decisions.answered].mean() >= record.target["precision"] - 0.005
    assert record.promise["precision_at_least"] >= record.target["precision"]
    refused = record.promise["refused"]
    assert sum(refused.values()) + record.promise["answered"] == record.promise["rows"]


def test_a_record_survives_its_file(fitted):
    text = fitted.policy.record.to_json()
    again = PolicyRecord.from_json(text)
    assert again.to_json() == text
    assert again.version == fitted.policy.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"bias"', '"bios"'),
        ('"max_logit"', '"min_logit"'),
    ],
)
def test_a_changed_record_is_refused(old, new):
    text = make_record(out_of_scope=ScopeRule({"max_logit": 1.0}, 3.0)).to_json()
    assert old in text
    with pytest.raises(ValueError):
        PolicyRecord.from_json(text.replace(old, new))


def test_arrays_survive_their_file(material):
    fitted = fit(material, DecisionSection(out_of_scope="mahalanobis"), LABELS)
    geometry = fitted.policy.geometry
    again = from_arrays(to_arrays(geometry), INTENTS)
    rows = material.validation
    expected = decide(rows.logits, rows.features, fitted.policy)
    policy = Policy(fitted.policy.record, LABELS.names, again)
    assert (decide(rows.logits, rows.features, policy).reasons == expected.reasons).all()


def test_arrays_of_other_labels_are_refused(fitted):
    arrays = to_arrays(fitted.policy.geometry)
    with pytest.raises(ValueError):
        from_arrays(arrays, INTENTS + 1)
    with pytest.raises(ValueError):
        from_arrays({}, INTENTS)
    with pytest.raises(ValueError):
        from_arrays(arrays | {"prototypes": arrays["prototypes"] * np.nan}, INTENTS)


@pytest.mark.parametrize(
    "target",
    [{}, {"precision": 0.9, "coverage": 0.9}, {"wrong": 10}, {"precision": 1.5}],
)
def test_a_target_is_one_of_three(target):
    with pytest.raises(ValueError):
        TargetSection(**target)
