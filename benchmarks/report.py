"""One Markdown report of all benchmarks, made from their JSON records alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks import head_only, request, scoring, serving, steps, training
from benchmarks.servers import INFINITY, NAIVE, STUDENT
from benchmarks.tables import Record, Table, markdown

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
    """A figure that a benchmark should reach."""

    title: str
    part: str
    """The benchmark whose record holds the figure."""
    measured: Callable[[Record], float]
    bound: Literal["at least", "at most"]
    limit: float
    unit: str = "x"

    def is_reached(self, value: float) -> bool:
        """Whether a figure is within the limit."""
        if self.bound == "at least":
            return value >= self.limit
        return value <= self.limit

    def row(self, record: Record) -> list[str]:
        """The target, the measured figure, and whether it was reached."""
        value = self.measured(record)
        figure = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        return [
            self.title,
            f"{self.bound} {self.limit:g} {self.unit}",
            f"{figure} {self.unit}",
            "yes" if self.is_reached(value) else "no",
        ]


def _training_ratio(trainer: str, reference: str) -> Callable[[Record], float]:
    def measure(record: Record) -> float:
        return training.rate(record, trainer) / training.rate(record, reference)

    return measure


def _serving_ratio(server: str, reference: str) -> Callable[[Record], float]:
    def measure(record: Record) -> float:
        return serving.ratio(record, 32, server, reference)

    return measure


def _at_start(key: str) -> Callable[[Record], float]:
    def measure(record: Record) -> float:
        return next(start[key] for start in record["starts"] if start["server"] == "auto")

    return measure


def _latency_ratio(record: Record) -> float:
    ours = serving.median(record, 1, "auto")
    naive = serving.median(record, 1, NAIVE)
    return ours["p99_ms"] / naive["p50_ms"]


def _serving_of_bulk(record: Record) -> float:
    return 100 * (serving.bulk_share(record, 32, "auto") or 0)


def _scoring_of_bulk(record: Record) -> float:
    return 100 * scoring.rate(record, ".parquet") / scoring.rate(record, "bulk")


def _second_start(record: Record) -> float:
    return record["runs"]["second"]["start_seconds"]


TARGETS = (
    Target(
        "full-ft: rate of a stock Trainer",
        "training",
        _training_ratio("ours, full-ft", training.STOCK),
        "at least",
        12,
    ),
    Target(
        "full-ft: rate of a tuned stock Trainer",
        "training",
        _training_ratio("ours, full-ft", "stock, tuned"),
        "at least",
        1,
    ),
    Target(
        "LoRA: rate of full-ft",
        "training",
        _training_ratio("ours, LoRA", "ours, full-ft"),
        "at least",
        1,
    ),
    Target(
        "head-only: a pass and ten epochs over a pass",
        "head_only",
        head_only.ratio,
        "at most",
        1.2,
    ),
    Target(
        "head-only: second run to its first step",
        "head_only",
        _second_start,
        "at most",
        3,
        unit="s",
    ),
    Target(
        "API, 32 clients: rate of the naive app",
        "serving",
        _serving_ratio("auto", NAIVE),
        "at least",
        8,
    ),
    Target(
        "student, 32 clients: rate of the naive app",
        "serving",
        _serving_ratio(STUDENT, NAIVE),
        "at least",
        12,
    ),
    Target(
        "API, 32 clients: rate of infinity-emb",
        "serving",
        _serving_ratio("auto", INFINITY),
        "at least",
        3,
    ),
    Target(
        "API, one client: p99 over the naive app's p50",
        "serving",
        _latency_ratio,
        "at most",
        1,
    ),
    Target(
        "API, 32 clients: of bulk on the cores left",
        "serving",
        _serving_of_bulk,
        "at least",
        75,
        unit="%",
    ),
    Target("API: start to ready", "serving", _at_start("ready_seconds"), "at most", 2, unit="s"),
    Target("API: memory at start", "serving", _at_start("memory_mb"), "at most", 300, unit="MB"),
    Target("score: of its bulk rate", "scoring", _scoring_of_bulk, "at least", 90, unit="%"),
)


def targets(parts: dict[str, Record]) -> Table:
    """Every target of which the records hold the figures."""
    rows = []
    for target in TARGETS:
        if target.part not in parts:
            continue
        try:
            rows.append(target.row(parts[target.part]))
        except (KeyError, IndexError, StopIteration):
            # A server or trainer that was not among the contenders of that run.
            continue
    return Table("Targets", ["what", "target", "measured", "reached"], rows)


def render(parts: dict[str, Record], failures: dict[str, str]) -> str:
    """The report: the machine, the targets, then every table; parts that failed are named."""
    sections = ["# Performance\n", *_machines(parts)]
    for name, reason in failures.items():
        sections.append(f"**{name} failed:** {reason}\n")
    if parts:
        sections.append(markdown(targets(parts)))

    for name, make_tables in TABLES.items():
        if name in parts:
            sections += map(markdown, make_tables(parts[name]))
    return "\n".join(sections)


def _machines(parts: dict[str, Record]) -> list[str]:
    """A line for each machine and date that the parts were measured on, and its peak rates.

    Usually it is one; otherwise each names its parts.
    """
    names_by_machine: dict[str, list[str]] = {}
    for name, record in parts.items():
        machine = _describe_machine(record["machine"])
        names_by_machine.setdefault(machine, []).append(name)

    lines = []
    for machine, names in names_by_machine.items():
        prefix = "" if len(names_by_machine) == 1 else f"{', '.join(names)}: "
        lines.append(f"{prefix}{machine}\n")

    peaks = [record["peak"] for record in parts.values() if "peak" in record]
    if peaks:
        lines.append(_describe_peak(peaks[0]))
    return lines


def _describe_machine(facts: Record) -> str:
    libraries = [f"{name} {version}" for name, version in facts["libraries"].items()]
    parts = [
        facts["date"],
        facts["processor"] or facts["machine"],
        f"{facts['cores']} cores",
        facts["system"],
        f"Python {facts['python']}",
        *libraries,
    ]
    return ", ".join(parts) + "."


def _describe_peak(peak: dict[str, float]) -> str:
    rates = [f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in peak.items()]
    return (
        f"Measured rate of large matrix products: {', '.join(rates)}. "
        "It is what the floor is reckoned with.\n"
    )
