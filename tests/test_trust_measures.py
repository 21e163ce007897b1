"""Measures of trust against known values: calibration, selective answers, out of scope, intervals."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bankintent.measures import calibration, out_of_scope, proportions, selective
from bankintent.measures.arrays import Bools, Floats
from bankintent.measures.metrics import Bootstrap

FEW = Bootstrap(200, seed=1)


def calibrated_answers(rows: int, seed: int) -> tuple[Floats, Bools]:
    """Scores, and answers that are right as often as these say."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(8, 1, rows)
    return scores, rng.random(rows) < scores


def rounded(rows: int, mean: float, seed: int) -> NDArray[np.float64]:
    """Scores of which many are equal."""
    return np.round(np.random.default_rng(seed).normal(mean, 1.0, rows), 1)


def test_equal_mass_bins_hold_as_many_rows_each_and_equal_scores_together() -> None:
    scores = np.random.default_rng(0).random(300)
    right = scores > 0.5
    bins = calibration.reliability(scores, right, "equal-mass")
    assert [one.rows for one in bins] == [20] * 15
    confidences = [one.confidence for one in bins]
    assert confidences == sorted(confidences)
    assert confidences[0] == pytest.approx(np.sort(scores)[:20].mean())

    tied = np.array([0.2] * 7 + [1.0] * 93)
    bins = calibration.reliability(tied, tied > 0.5, "equal-mass")
    assert [(one.rows, one.accuracy) for one in bins] == [(7, 0.0), (93, 1.0)]


def test_bins_do_not_depend_on_the_order_of_rows() -> None:
    scores = np.round(np.random.default_rng(0).random(97), 1)
    right = np.random.default_rng(1).random(97) < scores
    order = np.random.default_rng(2).permutation(97)
    error = calibration.expected_calibration_error
    expected = error(scores, right, "equal-mass")
    assert error(scores[order], right[order], "equal-mass") == pytest.approx(expected)


@pytest.mark.parametrize("binning", ["equal-mass", "equal-width"])
def test_the_noise_floor_is_the_error_of_calibrated_models(binning: calibration.Binning) -> None:
    scores, _ = calibrated_answers(500, seed=0)
    floor = calibration.noise_floor(scores, seed=3, binning=binning)

    errors = []
    for seed in range(400):
        right = np.random.default_rng(100 + seed).random(500) < scores
        errors.append(calibration.expected_calibration_error(scores, right, binning))
    assert floor.mean == pytest.approx(np.mean(errors), rel=0.05)
    assert floor.high == pytest.approx(np.quantile(errors, 0.95), rel=0.08)
    assert calibration.noise_floor(scores, seed=3, binning=binning) == floor


def test_the_noise_floor_falls_with_rows_but_not_with_repeated_answers() -> None:
    scores, _ = calibrated_answers(400, seed=0)
    floor = calibration.noise_floor(scores, seed=3)
    fourfold = calibration.noise_floor(np.tile(scores, 4), seed=3)
    repeated = calibration.noise_floor(np.tile(scores, 4), seed=3, repeats=4)
    assert fourfold.mean == pytest.approx(floor.mean / 2, rel=0.1)
    assert repeated.mean == pytest.approx(floor.mean, rel=0.1)


def test_a_timid_model_is_above_its_noise_floor() -> None:
    scores, right = calibrated_answers(1000, seed=0)
    measured = calibration.calibration_error(scores, right, seed=1)
    assert measured.ece < measured.noise_floor_high
    timid = calibration.calibration_error(scores - 0.2, right, seed=1)
    assert timid.ece > timid.noise_floor_high


def test_brier_score_and_likelihood_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 60)
    true = rng.integers(0, 4, 60)
    expected = log_loss(true, probabilities, labels=range(4))
    assert calibration.negative_log_likelihood(probabilities, true) == pytest.approx(expected)
    brier = calibration.brier_score(probabilities, true)
    assert brier == pytest.approx(brier_score_loss(true, probabilities, labels=range(4)))
    assert calibration.brier_score(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(2)


def test_out_of_scope_figures_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    inside = rounded(150, 1.0, seed=0)
    outside = rounded(90, 0.0, seed=1)
    figures = out_of_scope.measure_out_of_scope(inside, outside, FEW)

    is_inside = np.array([1] * 150 + [0] * 90)
    scores = np.concatenate([inside, outside])
    fpr, tpr, _ = roc_curve(is_inside, scores, drop_intermediate=False)
    expected = {
        "auroc": roc_auc_score(is_inside, scores),
        "aupr_in": average_precision_score(is_inside, scores),
        "aupr_out": average_precision_score(1 - is_inside, -scores),
        "fpr_at_95_tpr": fpr[np.argmax(tpr >= 0.95)],
    }
    for name, value in expected.items():
        estimate = getattr(figures, name)
        assert estimate.value == pytest.approx(value), name
        assert estimate.interval[0] < value < estimate.interval[1]
    assert (figures.in_scope, figures.out_of_scope) == (150, 90)

    shuffled = np.random.default_rng(2).permutation(inside)
    assert out_of_scope.measure_out_of_scope(shuffled, outside, FEW) == figures


def test_perfect_and_useless_scores() -> None:
    perfect = out_of_scope.measure_out_of_scope(np.array([2.0, 3.0]), np.array([1.0]), FEW)
    assert perfect.auroc.value == perfect.aupr_in.value == perfect.aupr_out.value == 1
    assert perfect.fpr_at_95_tpr.value == 0
    equal = out_of_scope.measure_out_of_scope(np.ones(5), np.ones(3), FEW)
    assert equal.auroc.value == 0.5
    assert equal.fpr_at_95_tpr.value == 1


def test_risk_and_coverage_of_a_known_case() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([True, True, False, True])
    ranking = selective.rank(scores, right)
    assert selective.risk_coverage_area(ranking) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert selective.coverage_at_precision(ranking, 0.99) == 0.5
    assert selective.coverage_at_precision(ranking, 0.75) == 1.0
    point = selective.point_at_precision(ranking, 0.99)
    assert point == selective.OperatingPoint(0.8, 2, 2, 0.5, 1.0)
    assert selective.precision_at_coverage(ranking, 0.6) == pytest.approx(2 / 3)
    assert [one.coverage for one in selective.curve(ranking)] == [0.25, 0.5, 0.75, 1.0]


def test_a_threshold_does_not_divide_equal_scores() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.1])
    ranking = selective.rank(scores, np.array([True, True, False, True]))
    assert selective.point_at_precision(ranking, 0.99).threshold is None
    assert selective.coverage_at_precision(ranking, 0.99) == 0
    assert selective.point_at_coverage(ranking, 0.3).coverage == 0.75
    # The one error among three equal scores is spread over their three places.
    area = (1 / 3 + 1 / 3 + 1 / 3 + 1 / 4) / 4
    assert selective.risk_coverage_area(ranking) == pytest.approx(area)


def test_intervals_of_selective_figures_cover_and_ignore_row_order() -> None:
    scores, right = calibrated_answers(400, seed=5)
    figures = selective.measure_selective(scores, right, FEW)
    for estimate in figures.coverage_at:
        assert estimate.interval[0] <= estimate.coverage <= estimate.interval[1]
    for share in figures.precision_at:
        assert share.interval[0] < share.precision < share.interval[1]
    assert figures.aurc.interval[0] < figures.aurc.value < figures.aurc.interval[1]

    order = np.random.default_rng(0).permutation(400)
    assert selective.measure_selective(scores[order], right[order], FEW) == figures


def test_repeated_answers_are_drawn_with_their_sentence() -> None:
    scores, right = calibrated_answers(300, seed=5)
    once = selective.measure_selective(scores, right, FEW)
    thrice = selective.measure_selective(
        np.tile(scores, 3), np.tile(right, 3), Bootstrap(200, seed=1, repeats=3)
    )
    width = np.diff(once.precision_at[0].interval)
    assert np.diff(thrice.precision_at[0].interval) == pytest.approx(width, rel=0.2)


def test_intervals_of_a_share_are_those_of_scipy() -> None:
    from scipy.stats import binomtest

    for hits, rows in ((0, 9), (3, 9), (9, 9), (970, 1000)):
        test = binomtest(hits, rows)
        exact = test.proportion_ci(method="exact")
        assert proportions.clopper_pearson(hits, rows).ends() == pytest.approx(list(exact))
        score = test.proportion_ci(method="wilson")
        assert proportions.wilson(hits, rows).ends() == pytest.approx(list(score))

    assert proportions.clopper_pearson(0, 0).ends() == [0, 1]
    assert proportions.wilson(0, 0).ends() == [0, 1]
    many = proportions.lower_bound(np.array([0, 98]), np.array([5, 100]))
    one_sided = binomtest(98, 100, alternative="greater").proportion_ci()
    assert many == pytest.approx([0, one_sided.low])
