"""The simulation of servers agrees with what queueing theory says of simple ones."""

import statistics

import pytest

from benchmarks.simulation import ReplicaCosts, simulate

SECONDS = 0.01


def costs(**more: float) -> ReplicaCosts:
    """A replica whose only cost is a batch of one text."""
    return ReplicaCosts(
        batch_seconds=[[SECONDS]], request_seconds=0.0, **{"cores": 1, "workers": 1, **more}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_the_mean_wait_of_one_worker_is_that_of_an_md1_queue(load: float) -> None:
    waits = simulate(costs(), rate=load / SECONDS, requests=40_000)
    # Pollaczek and Khinchine, for services that all take the same time.
    expected = SECONDS + SECONDS * load / (2 * (1 - load))
    assert statistics.fmean(waits.latencies) == pytest.approx(expected, rel=0.05)


def test_replicas_that_are_drawn_at_random_wait_as_one_with_its_share_of_the_load() -> None:
    one = simulate(costs(), rate=60)
    four = simulate(costs(), rate=240, replicas=4, requests=80_000)
    assert statistics.fmean(four.latencies) == pytest.approx(
        statistics.fmean(one.latencies), rel=0.05
    )


def test_what_waits_becomes_one_batch() -> None:
    batched = ReplicaCosts([[SECONDS]] * 4, 0.0, cores=1, workers=1)
    # Three times what single texts could be answered at.
    waits = simulate(batched, rate=3 / SECONDS, requests=5_000)
    assert 2 < waits.mean_batch <= 4
    assert waits.percentile(0.99) < 10 * SECONDS


def test_the_event_loop_takes_one_request_at_a_time() -> None:
    loop = ReplicaCosts([[1e-9]], SECONDS, cores=4, workers=4)
    waits = simulate(loop, rate=0.5 / SECONDS, requests=40_000)
    expected = SECONDS + SECONDS * 0.5 / (2 * (1 - 0.5))
    assert statistics.fmean(waits.latencies) == pytest.approx(expected, rel=0.05)


def test_work_beyond_the_cores_waits_for_one() -> None:
    costs_of = {"batch_seconds": [[SECONDS]], "request_seconds": 0.0, "workers": 2}
    alone = simulate(ReplicaCosts(cores=1, **costs_of), rate=70)  # type: ignore[arg-type]
    beside = simulate(ReplicaCosts(cores=2, **costs_of), rate=70)  # type: ignore[arg-type]
    assert statistics.fmean(alone.latencies) > 1.5 * statistics.fmean(beside.latencies)


def test_the_event_loop_does_not_wait_for_a_batch() -> None:
    """Its requests come in while a batch runs, so that the next batch is of several."""
    busy = ReplicaCosts([[SECONDS]] * 4, SECONDS / 20, cores=1, workers=1)
    waits = simulate(busy, rate=2 / SECONDS, requests=10_000)
    assert waits.mean_batch > 1.5
    # A batch that is running, the own one, and what the event loop takes from them.
    assert waits.percentile(0.99) < 4 * SECONDS


def test_work_that_is_interrupted_takes_as_long_as_it_would_have() -> None:
    """At little load, an answer takes its batch and its request, whoever had the core between."""
    shared = ReplicaCosts([[SECONDS]], SECONDS / 10, cores=1, workers=1)
    waits = simulate(shared, rate=0.02 / SECONDS, requests=20_000)
    assert statistics.fmean(waits.latencies) == pytest.approx(1.1 * SECONDS, rel=0.03)


def test_times_that_differ_make_the_wait_longer_as_queueing_theory_says() -> None:
    """Pollaczek and Khinchine: with the mean and the mean square of two times, drawn alike."""
    load = 0.6
    times = [0.5 * SECONDS, 1.5 * SECONDS]
    waits = simulate(
        ReplicaCosts([times], 0.0, cores=1, workers=1), load / SECONDS, requests=60_000
    )
    square = statistics.fmean(time * time for time in times)
    expected = SECONDS + load / SECONDS * square / (2 * (1 - load))
    assert statistics.fmean(waits.latencies) == pytest.approx(expected, rel=0.05)
