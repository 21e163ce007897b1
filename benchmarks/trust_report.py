"""Tables and pictures of the records that `benchmarks/trust.py` writes.

python -m benchmarks.trust_report
python -m benchmarks.trust_report docs/results/trust/records.json --output-dir docs/results/trust
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bankintent import cli, console, files
from bankintent.errors import DataError
from bankintent.measures.calibration import ConfidenceBin
from bankintent.measures.selective import OperatingPoint
from bankintent.measures.trust_plots import (
    Calibration,
    SelectiveCurve,
    draw_calibrations,
    draw_risk_coverage,
    draw_scores,
)
from benchmarks import tables, trust_runs, trust_tables
from benchmarks.tables import Record, Table
from benchmarks.trust import RECORDS
from benchmarks.trust_tables import (
    DATA,
    PROMISES,
    REGIMES,
    SHARES,
    Figure,
    Runs,
    closed,
    coverage_at,
    each,
    ece,
    is_met,
    mean,
    open_accuracy,
    open_auroc,
    partly_known,
    rotations,
)

REPORT = "report.md"

COMMANDS = (
    "python -m benchmarks.trust_runs",
    "python -m benchmarks.trust",
    "python -m benchmarks.trust_prototypes",
    "python -m benchmarks.trust_report",
)

SCORES_OF = "full-ft"
"""The regime whose histograms are drawn."""

OPEN_GOALS = {25: 86.1, 50: 83.8, 75: 84.4}
"""Per cent of known intents -> the accuracy to reach."""


def main(
    records: Annotated[Path, typer.Argument(help="The records.")] = RECORDS,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where report.md and its pictures go; beside the records.")
    ] = None,
) -> None:
    """Write report.md and its pictures."""
    if not records.is_file():
        raise DataError(
            f"{console.show_path(records)} does not exist", "Run python -m benchmarks.trust first"
        )
    content = json.loads(records.read_text(encoding="utf-8"))
    folder = output_dir or records.parent
    folder.mkdir(parents=True, exist_ok=True)

    pictures = draw(content["runs"], folder)
    files.write_text(folder / REPORT, render(content, pictures))
    tables.show([goals_table(content["runs"])])
    console.say(f"Written to {console.show_path(folder / REPORT)}, with {len(pictures)} pictures.")


# Goals


@dataclass(frozen=True)
class Goal:
    """A figure to reach, as a mean over the runs of a regime."""

    name: str
    value: float
    is_least: bool
    """Whether the value is the least; otherwise it is the most."""
    decimals: int
    runs: Callable[[Runs, str], Runs]
    """(all runs, regime) -> those that it is the mean of."""
    figure: Figure

    def is_reached(self, group: Runs) -> bool:
        """Whether the mean reaches it."""
        found = mean(group, self.figure)
        return found >= self.value if self.is_least else found <= self.value


def goals() -> list[Goal]:
    """Every goal, in the order of the table."""

    def of(data: str) -> Callable[[Runs, str], Runs]:
        return lambda runs, regime: closed(runs, data, regime)

    def known(share: int) -> Callable[[Runs, str], Runs]:
        return lambda runs, regime: partly_known(runs, share, regime)

    def far(run: Record) -> float:
        return float(run["out_of_scope"]["auroc"]["value"])

    banking = of("banking77")
    clinc = of("clinc150")
    found = [
        Goal("BANKING77, ECE %, at most 1.5", 1.5, False, 2, banking, ece("after")),
        Goal("CLINC150, ECE %, at most 0.94", 0.94, False, 2, clinc, ece("after")),
        Goal("BANKING77, coverage % at 99 %, 80", 80, True, 1, banking, coverage_at(0.99)),
        Goal("BANKING77, coverage % at 98 %, 90", 90, True, 1, banking, coverage_at(0.98)),
    ]
    for promise in PROMISES:
        name = f"BANKING77, promise of {100 * float(promise):.0f} %, % of seeds within, 100"
        found.append(Goal(name, 100, True, 0, banking, _met(promise)))
    found.append(Goal("CLINC150, far AUROC, .975", 0.975, True, 4, clinc, far))
    found.append(Goal("BANKING77, far AUROC, .98", 0.98, True, 4, banking, far))
    for share in SHARES:
        value = OPEN_GOALS[share]
        name = f"BANKING77, {share} % known, accuracy %, {value}"
        found.append(Goal(name, value, True, 1, known(share), open_accuracy))
    name = "BANKING77, a third held out, AUROC, .93"
    found.append(Goal(name, 0.93, True, 4, rotations, open_auroc))
    return found


def _met(promise: str) -> Figure:
    return lambda run: 100.0 * is_met(run, promise)


def goals_table(runs: Runs) -> Table:
    """Each goal, the mean of each regime, and which of them reach it."""
    rows = []
    for goal in goals():
        cells = [goal.name]
        verdicts = {}
        for regime in REGIMES:
            group = goal.runs(runs, regime)
            if not group:
                cells.append("-")
                continue
            cells.append(f"{mean(group, goal.figure):.{goal.decimals}f}")
            verdicts[regime] = goal.is_reached(group)
        rows.append([*cells, _verdict(verdicts)])
    note = "Means over seeds, on test. -: not trained or not measured."
    return Table("Goals", ["goal", *REGIMES, "reached"], rows, note)


def _verdict(verdicts: dict[str, bool]) -> str:
    if not verdicts:
        return "not measured"
    reached = [regime for regime, is_reached in verdicts.items() if is_reached]
    if len(reached) == len(verdicts):
        return "yes"
    return f"by {', '.join(reached)} alone" if reached else "no"


def missed(runs: Runs) -> list[str]:
    """A line for each goal that some regime does not reach."""
    lines = []
    for goal in goals():
        parts = []
        for regime in REGIMES:
            group = goal.runs(runs, regime)
            if group and not goal.is_reached(group):
                figures = each(group, goal.figure, goal.decimals)
                average = f"{mean(group, goal.figure):.{goal.decimals}f}"
                parts.append(f"{regime} has {average} ({figures})")
        if parts:
            lines.append(f"- {goal.name}: {'; '.join(parts)}.")
    return lines


# Pictures


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows."""

    file: str
    title: str


def draw(runs: Runs, folder: Path) -> list[Picture]:
    """Draw what the records of the first seed hold."""
    pictures = []
    for data, title in DATA.items():
        drawn = []
        for regime in REGIMES:
            drawn += [run for run in closed(runs, data, regime) if "drawn" in run]
        if not drawn:
            continue
        pictures.append(_draw_curves(drawn, f"risk-coverage-{data}.png", title, folder))
        for when in ("before", "after"):
            name = f"reliability-{when}-{data}.png"
            pictures.append(_draw_bins(drawn, when, Picture(name, title), folder))
        for run in drawn:
            if run["regime"] == SCORES_OF:
                pictures.append(_draw_scores(run, f"scores-{data}.png", title, folder))
    return pictures


def _draw_curves(drawn: Runs, file: str, title: str, folder: Path) -> Picture:
    curves = []
    for run in drawn:
        points = [OperatingPoint(**point) for point in run["drawn"]["curve"]]
        curves.append(SelectiveCurve(run["regime"], points))
    draw_risk_coverage(curves, folder / file)
    return Picture(file, f"{title}: wrong answers against coverage, with policies, test")


def _draw_bins(drawn: Runs, when: str, picture: Picture, folder: Path) -> Picture:
    calibrations = []
    for run in drawn:
        bins = [ConfidenceBin(**group) for group in run["drawn"]["bins"][when]]
        calibrations.append(Calibration(run["regime"], bins, run["calibration"][when]["ece"]))
    draw_calibrations(calibrations, folder / picture.file)
    return Picture(picture.file, f"{picture.title}: reliability {when} a policy, test")


def _draw_scores(run: Record, file: str, title: str, folder: Path) -> Picture:
    drawn = run["drawn"]
    edges = np.asarray(drawn["edges"])
    # A row at the middle of its bin falls into the same bin of a new histogram.
    middles = (edges[:-1] + edges[1:]) / 2
    inside = np.repeat(middles, drawn["in_scope"])
    outside = np.repeat(middles, drawn["out_of_scope"])
    draw_scores(inside, outside, drawn["threshold"], folder / file)
    against = "test rows against CLINC150's out-of-scope test sentences"
    return Picture(file, f"{title}, {run['regime']}: {against}")


# The page


def render(content: Record, pictures: list[Picture]) -> str:
    """The content of report.md."""
    runs = content["runs"]
    lines = [
        "# Calibrated models that may refuse, on test",
        "",
        f"Made of records.json by `{COMMANDS[-1]}`. {_origin(content)} Every policy was fitted"
        " by the project's own code on validation rows; test rows were read for the figures alone.",
        "",
        tables.markdown(goals_table(runs)),
        *_missed_lines(content),
    ]
    for table in make_tables(content):
        lines.append(tables.markdown(table))
    if pictures:
        lines += ["### Pictures", "", "Seed 1 of each regime.", ""]
        for picture in pictures:
            lines += [f"![{picture.title}]({picture.file})", "", f"{picture.title}.", ""]
    if "about" in content:
        lines += ["### How these records were made", ""]
        lines += [f"- {line}" for line in content["about"]]
        lines.append("")
    lines.append(f"Commands: {', '.join(f'`{command}`' for command in COMMANDS)}.")
    return "\n".join(lines).rstrip() + "\n"


def make_tables(content: Record) -> list[Table]:
    """All tables but that of the goals; those without rows are left out."""
    runs = content["runs"]
    made = [
        trust_tables.accuracy_table(runs),
        trust_tables.coverage_table(runs),
        trust_tables.mistake_table(content.get("mistakes", {})),
        trust_tables.promise_table(runs),
        trust_tables.far_table(runs),
        trust_tables.open_table(runs),
        trust_tables.score_table(runs),
        trust_tables.prototype_table(content.get("prototypes", [])),
        trust_tables.seeds_table(runs),
    ]
    return [table for table in made if table.rows]


def _origin(content: Record) -> str:
    runs = content["runs"]
    hardware = ", ".join(sorted({run["hardware"] for run in runs}))
    precision = ", ".join(sorted({run["precision"] for run in runs}))
    versions = ", ".join(f"{name} {number}" for name, number in runs[0]["versions"].items())
    date = f", {content['date']}" if "date" in content else ""
    missing = {plan.name for plan in trust_runs.plans()} - {run["name"] for run in runs}
    gap = f" {len(missing)} runs of the experiment are not measured." if missing else ""
    return (
        f"{len(runs)} runs on {hardware}{date}: trained in {precision}, answers in float32;"
        f" {versions}.{gap}"
    )


def _missed_lines(content: Record) -> list[str]:
    lines = missed(content["runs"])
    if not lines:
        return ["Every goal is reached by every regime that was measured.", ""]
    bounds = content.get("bounds")
    return [
        "Not reached, with each run in brackets:",
        "",
        *lines,
        "",
        *([bounds, ""] if bounds else []),
    ]


if __name__ == "__main__":
    cli.run(main)
