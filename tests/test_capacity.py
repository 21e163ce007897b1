"""What the capacity benchmark makes of measured costs."""

import pytest

from benchmarks import capacity
from benchmarks.capacity import CpuCosts, find_costs, find_rate, plan
from benchmarks.open_load import OpenMeasurement
from benchmarks.simulation import ReplicaCosts

COSTS = ReplicaCosts(
    batch_seconds=[[0.002], [0.003], [0.004], [0.005]], request_seconds=0.001, cores=2, workers=2
)


def test_what_is_not_the_models_time_is_the_event_loops() -> None:
    costs = find_costs([[0.001, 0.003], [0.003]], CpuCosts(server=0.0035, client=0.0004))
    assert costs.request_seconds == pytest.approx(0.0015)
    assert costs.client_seconds == 0.0004


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SEARCH_STEPS", 5)
    monkeypatch.setattr(capacity, "SEARCH_REQUESTS", 1500)


def test_the_rate_found_is_sustained_and_a_higher_one_is_not() -> None:
    rate = find_rate(COSTS)
    assert (
        capacity.simulate(COSTS, 0.9 * rate, requests=3000).percentile(0.99)
        <= capacity.P99_LIMIT * 1.2
    )
    assert capacity.simulate(COSTS, 1.3 * rate, requests=3000).percentile(0.99) > capacity.P99_LIMIT


def test_more_servers_sustain_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SHOWN_REPLICAS", (1, 2))
    one, two = plan(COSTS)
    assert 1.6 < two["rate"] / one["rate"] < 2.4


def test_a_measured_point_stands_beside_a_simulated_one() -> None:
    measured = OpenMeasurement(
        rate=100, latencies=[0.003] * 99 + [0.009], errors=1, seconds=1, client_cpu_seconds=0.1
    )
    point = capacity.compare(measured, COSTS)
    assert point["measured"] == {"p50": 0.003, "p99": 0.009}
    assert 0.002 < point["simulated"]["p50"] < point["simulated"]["p99"]
    assert point["errors"] == 1
