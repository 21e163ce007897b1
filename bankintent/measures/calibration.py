"""Whether scores are the shares of right answers that they claim to be.

Everything here is measured from the score of each answer and whether it is right, or from all
probabilities. A low error alone says little: even a perfectly calibrated model shows one, because
the rows of a bin are few. So each error has its noise floor beside it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bankintent.measures.arrays import Bools, Floats, Ints

ECE_BINS = 15
"""Bins of confidence, as in Guo et al. (2017)."""

Binning = Literal["equal-width", "equal-mass"]
"""How scores are divided: into intervals of one width (Guo et al., 2017), or into bins of as many
rows each (Nixon et al., 2019), which does not leave most rows in the last bin."""

SMALLEST_PROBABILITY = 1e-12
"""Floor of a probability in a logarithm, so that a certain mistake is no infinite loss."""

SIMULATIONS = 1000
"""Simulated models behind a noise floor."""

DRAWS_AT_ONCE = 1 << 21
"""Random numbers that are held in memory at the same time."""


@dataclass(frozen=True)
class ConfidenceBin:
    """The rows whose confidence falls into one bin."""

    rows: int
    confidence: float
    """Mean over the rows."""
    accuracy: float


@dataclass(frozen=True)
class NoiseFloor:
    """The expected calibration error that a perfectly calibrated model shows by chance."""

    mean: float
    high: float
    """95 of 100 such models show at most this."""


@dataclass(frozen=True)
class CalibrationError:
    """An expected calibration error beside what chance alone gives."""

    ece: float
    noise_floor: float
    """Mean of a perfectly calibrated model with the same scores."""
    noise_floor_high: float
    """95 of 100 such models show at most this."""


def expected_calibration_error(
    scores: Floats, right: Bools, binning: Binning = "equal-width", bins: int = ECE_BINS
) -> float:
    """Mean distance of confidence and accuracy over bins of confidence (Guo et al., 2017)."""
    weighted = 0.0
    for group in reliability(scores, right, binning, bins):
        weighted += group.rows * abs(group.confidence - group.accuracy)
    return weighted / len(right)


def reliability(
    scores: Floats, right: Bools, binning: Binning = "equal-width", bins: int = ECE_BINS
) -> list[ConfidenceBin]:
    """The bins of confidence that hold rows, lowest first.

    Both arrays are (rows,): the score of each answer from 0 to 1, and whether it is right.
    """
    bin_of_row = _bins_of_rows(scores, binning, bins)

    result = []
    for number in np.unique(bin_of_row):
        members = bin_of_row == number
        result.append(
            ConfidenceBin(
                rows=int(members.sum()),
                confidence=float(scores[members].mean()),
                accuracy=float(right[members].mean()),
            )
        )
    return result


def _bins_of_rows(scores: Floats, binning: Binning, bins: int) -> Ints:
    if binning == "equal-mass":
        return _equal_mass(scores, bins)
    # A confidence of exactly 1 belongs to the last bin, not to one after it.
    return np.minimum((scores * bins).astype(int), bins - 1)


def _equal_mass(scores: Floats, bins: int) -> Ints:
    """Bins of as many rows each, but rows of one score are in one bin.

    So the bins do not depend on the order of the rows.
    """
    ordered = np.sort(scores)
    ends = np.arange(1, bins) * len(scores) // bins
    highest = ordered[ends[ends > 0] - 1]
    return np.searchsorted(np.unique(highest), scores, side="left")


def noise_floor(
    scores: Floats, seed: int, binning: Binning = "equal-mass", repeats: int = 1
) -> NoiseFloor:
    """The calibration error of simulated models whose every score is true.

    `scores` are (rows,). In each simulation a row is right with the probability that its score
    claims, after Bröcker and Smith (2007) and Vaicenavicius et al. (2019). `repeats` are copies of
    the same sentences among the rows, one after the other: a sentence has one draw for all of them,
    since its answers are no independent rows.
    """
    bin_of_row = _bins_of_rows(scores, binning, ECE_BINS)
    sentences = len(scores) // repeats
    # Sorted by bin, so that the sums of all bins are taken at once.
    order = np.argsort(bin_of_row, kind="stable")
    claimed = scores[order]
    sentence_of_row = order % sentences
    _, starts = np.unique(bin_of_row[order], return_index=True)
    expected = np.add.reduceat(claimed, starts)

    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // len(scores))
    errors = []
    for start in range(0, SIMULATIONS, at_once):
        simulations = min(at_once, SIMULATIONS - start)
        draws = rng.random((simulations, sentences))[:, sentence_of_row]
        right = np.add.reduceat(draws < claimed, starts, axis=1, dtype=np.int64)
        errors.append(np.abs(right - expected).sum(axis=1) / len(scores))

    every_error = np.concatenate(errors)
    return NoiseFloor(float(every_error.mean()), float(np.quantile(every_error, 0.95)))


def calibration_error(
    scores: Floats, right: Bools, seed: int, binning: Binning = "equal-mass", repeats: int = 1
) -> CalibrationError:
    """The expected calibration error of answers and its noise floor."""
    floor = noise_floor(scores, seed, binning, repeats)
    ece = expected_calibration_error(scores, right, binning)
    return CalibrationError(ece, floor.mean, floor.high)


def negative_log_likelihood(probabilities: Floats, true: Ints) -> float:
    """Mean of minus the logarithm of the probability of the true label, in nats."""
    of_truth = probabilities[np.arange(len(true)), true]
    losses = -np.log(np.maximum(of_truth, SMALLEST_PROBABILITY))
    return float(losses.mean())


def brier_score(probabilities: Floats, true: Ints) -> float:
    """Mean squared distance of the probabilities and the truth, summed over labels (Brier, 1950).

    From 0, certain and right, to 2, certain and wrong.
    """
    of_truth = probabilities[np.arange(len(true)), true]
    # Without a second table of all squares.
    squares = np.einsum("ij,ij->i", probabilities, probabilities)
    return float((squares - 2 * of_truth + 1).mean())
