"""Paired statistics against independent calculations."""

import numpy as np
import pytest
from scipy import stats

from bankintent.measures import paired


def test_the_t_interval_is_students() -> None:
    values = np.array([0.931, 0.935, 0.928, 0.936, 0.933])
    interval = paired.t_interval(values)
    assert interval is not None
    low, high = interval
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)

    # By hand: 2.776 is the two-sided 5 % point of t with 4 degrees of freedom.
    width = 2 * 2.7764 * values.std(ddof=1) / np.sqrt(5)
    assert high - low == pytest.approx(width, rel=1e-4)


def test_the_t_interval_needs_two_values_and_stays_a_share() -> None:
    assert paired.t_interval(np.array([0.9])) is None
    low, high = paired.t_interval(np.array([0.9, 1.0])) or (0, 0)
    assert low == pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4)
    assert high == 1.0


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a = np.array([True] * 10 + [False] * 2 + [True] * 5 + [False] * 3)
    b = np.array([False] * 10 + [True] * 2 + [True] * 5 + [False] * 3)
    test = paired.mcnemar(a, b)
    assert (test.only_a, test.only_b) == (10, 2)
    assert test.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # at most 2 of 12 heads, twice
    assert paired.mcnemar(a, a).p == 1.0


def test_the_vote_of_seeds_breaks_ties_by_the_first() -> None:
    predicted = np.array([[0, 2, 1, 4], [1, 1, 1, 3], [1, 0, 2, 3]])
    assert paired.plurality(predicted).tolist() == [1, 2, 1, 3]


def test_the_bootstrap_resamples_rows_and_seeds() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((4, 300)) < 0.9
    b = rng.random((4, 300)) < 0.85
    difference = a.astype(int) - b.astype(int)
    means = []
    for _ in range(4000):
        rows = rng.integers(0, 300, 300)
        seeds = rng.integers(0, 4, 4)
        means.append(difference[seeds][:, rows].mean())

    interval = paired.bootstrap_difference(a, b, 20_000, 6)
    assert interval == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.004)
    assert paired.bootstrap_difference(a, a, 1000, 6) == [0.0, 0.0]

    # The interval does not depend on the order of the rows.
    order = rng.permutation(300)
    assert paired.bootstrap_difference(a[:, order], b[:, order], 20_000, 6) == interval


def test_seeds_that_differ_as_wholes_widen_the_bootstrap_interval() -> None:
    """With rows alone there would be no width at all."""
    a = np.array([[True] * 50, [False] * 50])
    b = np.zeros((2, 50), dtype=bool)
    assert paired.bootstrap_difference(a, b, 1000, 6) == [0.0, 1.0]
    assert paired.bootstrap_difference(a[:1], b[:1], 1000, 6) == [1.0, 1.0]
