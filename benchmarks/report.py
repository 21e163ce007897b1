"""One Markdown report of all benchmarks, made from their JSON records alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import head_only, request, scoring, serving, steps, training
from benchmarks.servers import INFINITY, NAIVE, STUDENT
from benchmarks.tables import Table, markdown

Record = dict[str, Any]

TABLES: dict[str, Callable[[Record], list[Table]]] = {
    "training": training.make_tables,
    "steps": steps.make_tables,
    "head_only": head_only.make_tables,
    "serving": serving.make_tables,
    "request": request.make_tables,
    "scoring": scoring.make_tables,
}
"""The benchmarks in the order in which they run and are shown."""


@dataclass(frozen=True)
class Target:
    """What a benchmark is meant to reach: at least, or at most."""

    what: str
    part: str
    measured: Callable[[Record], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    def row(self, record: Record) -> list[str]:
        """The target, what was measured, and whether it was reached."""
        value = self.measured(record)
        bound = (
            f"at least {self.at_least:g}"
            if self.at_least is not None
            else f"at most {self.at_most:g}"
        )
        reached = (
            value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0)
        )
        shown = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        return [
            self.what,
            f"{bound} {self.unit}",
            f"{shown} {self.unit}",
            "yes" if reached else "no",
        ]


def _trains(one: str, other: str) -> Callable[[Record], float]:
    return lambda record: training.rate(record, one) / training.rate(record, other)


def _serves(server: str, other: str) -> Callable[[Record], float]:
    return lambda record: serving.ratio(record, 32, server, other)


def _starts(key: str) -> Callable[[Record], float]:
    return lambda record: next(one[key] for one in record["starts"] if one["server"] == "auto")


def _latency(record: Record) -> float:
    ours, naive = (serving.median(record, 1, name) for name in ("auto", NAIVE))
    return ours["p99_ms"] / naive["p50_ms"]


TARGETS = (
    Target(
        "full-ft: rate of a stock Trainer",
        "training",
        _trains("ours, full-ft", training.STOCK),
        at_least=12,
    ),
    Target(
        "full-ft: rate of a tuned stock Trainer",
        "training",
        _trains("ours, full-ft", "stock, tuned"),
        at_least=1,
    ),
    Target("LoRA: rate of full-ft", "training", _trains("ours, LoRA", "ours, full-ft"), at_least=1),
    Target(
        "head-only: a pass and ten epochs over a pass", "head_only", head_only.ratio, at_most=1.2
    ),
    Target(
        "head-only: second run to its first step",
        "head_only",
        lambda record: record["runs"]["second"]["start_seconds"],
        at_most=3,
        unit="s",
    ),
    Target("API, 32 clients: rate of the naive app", "serving", _serves("auto", NAIVE), at_least=8),
    Target(
        "student, 32 clients: rate of the naive app",
        "serving",
        _serves(STUDENT, NAIVE),
        at_least=12,
    ),
    Target(
        "API, 32 clients: rate of infinity-emb", "serving", _serves("auto", INFINITY), at_least=3
    ),
    Target("API, one client: p99 over the naive app's p50", "serving", _latency, at_most=1),
    Target(
        "API, 32 clients: of bulk on the cores left",
        "serving",
        lambda record: 100 * (serving.bulk_share(record, 32, "auto") or 0),
        at_least=75,
        unit="%",
    ),
    Target("API: start to ready", "serving", _starts("ready_seconds"), at_most=2, unit="s"),
    Target("API: memory at start", "serving", _starts("memory_mb"), at_most=300, unit="MB"),
    Target(
        "score: of its bulk rate",
        "scoring",
        lambda record: 100 * scoring.rate(record, ".parquet") / scoring.rate(record, "bulk"),
        at_least=90,
        unit="%",
    ),
)


def targets(parts: dict[str, Record]) -> Table:
    """Every target of which the records hold the figures; what was not measured is not shown."""
    rows = []
    for target in TARGETS:
        if target.part in parts:
            try:
                rows.append(target.row(parts[target.part]))
            except (KeyError, IndexError, StopIteration):
                continue
    return Table("Targets", ["what", "target", "measured", "reached"], rows)


def render(parts: dict[str, Record], failed: dict[str, str]) -> str:
    """The report: the machine, the targets, then every table; parts that failed are named."""
    sections = ["# Performance\n", *(_machines(parts))]
    sections += [f"**{name} failed:** {reason}\n" for name, reason in failed.items()]
    sections += [markdown(targets(parts))] if parts else []
    for name, make in TABLES.items():
        if name in parts:
            sections += [markdown(table) for table in make(parts[name])]
    return "\n".join(sections)


def _machines(parts: dict[str, Record]) -> list[str]:
    """A line for each machine and date that the parts were measured on; usually one."""
    lines: dict[str, list[str]] = {}
    for name, record in parts.items():
        facts = record["machine"]
        libraries = ", ".join(
            f"{library} {number}" for library, number in facts["libraries"].items()
        )
        where = f"{facts['date']}, {facts['processor'] or facts['machine']}, {facts['cores']} cores, {facts['system']}"
        lines.setdefault(f"{where}, Python {facts['python']}, {libraries}.", []).append(name)
    peaks: dict[str, float] = next(
        (record["peak"] for record in parts.values() if "peak" in record), {}
    )
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in peaks.items())
    rate_line = [
        f"Measured rate of large matrix products: {rates}. It is what the floor is reckoned with.\n"
    ]
    if len(lines) == 1:
        return [f"{next(iter(lines))}\n", *rate_line]
    return [f"{', '.join(names)}: {line}\n" for line, names in lines.items()] + (
        rate_line if rates else []
    )
