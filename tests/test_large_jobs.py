"""The inputs of docs/explanation/scale.md can be measured again; nothing here is timed."""

import re
from pathlib import Path

import pytest

from benchmarks import large_jobs
from benchmarks.simulation import ReplicaCosts


def test_batches_between_the_measured_ones_lie_on_a_line() -> None:
    costs = large_jobs.costs_of((8.0, 22.0), request_ms=1.5, client_ms=0.5)
    expected = [0.008, 0.010, 0.012, 0.014, 0.016, 0.018, 0.020, 0.022]
    assert [times[0] for times in costs.batch_seconds] == pytest.approx(expected)
    assert costs.request_seconds == pytest.approx(0.0015)
    assert costs.client_seconds == pytest.approx(0.0005)


def test_a_point_says_what_all_servers_get_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_jobs, "REQUESTS", 2000)
    monkeypatch.setattr(large_jobs, "EACH", 500)
    row = large_jobs.servers(ReplicaCosts([[0.01]], 0.0), replicas=4, load=20)
    assert row[:3] == ["4", "20", "80"]
    assert 10 <= float(row[3]) <= float(row[4])


def test_the_driver_puts_all_rows_together(tmp_path: Path) -> None:
    lines = large_jobs.driver(9000, tmp_path)  # two chunks
    sizes = {name: float(size.split()[0]) for name, _, size in lines[-3:]}
    assert list(sizes) == ["input", "parts", "output"]
    assert sizes["output"] > max(sizes["input"], sizes["parts"]) > 0


def test_every_tenant_adds_as_many_series() -> None:
    counts = []
    for tenants in (0, 1, 2):
        series = large_jobs.tenants(tenants)[1]
        assert re.fullmatch(r"[\d,]+", series)
        counts.append(int(series.replace(",", "")))
    assert counts[2] - counts[1] == counts[1] - counts[0] > large_jobs.INTENTS
