"""How small data is judged, and how long it takes from its files to the first served answer.

python -m benchmarks.small_data
python -m benchmarks.small_data --seeds 5 project owner/name=path/to/nlu.yml intents.json
python -m benchmarks.small_data --only path
python -m benchmarks.small_data --report-only --output-dir docs/results/small

A source is `project`, which is a Rasa project written from the embedded sentences, or a path in any
format that ETL reads, with a name before it or without one. Of the project the way from its files
to an answer is timed; of every source the figures of an 80/10/10 split and of cross-validation are
set side by side. Each has a JSON record, which holds no sentence; report.md is made of them.

With OMP_NUM_THREADS=1 a seed takes about ten seconds for each 300 sentences.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bankintent import cli, console, files
from bankintent.config import TrainConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError, DataError
from benchmarks import machine, small_project, small_spread, tables
from benchmarks.small_spread import OTHERS, RECIPE, REGRESSION, TFIDF, WITH_NAMES
from benchmarks.tables import Record, Table

PROJECT = "project"
"""The source that is written by the benchmark."""

PATH_RECORD = "path.json"
"""File of the times from the project's files to an answer."""

NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")

SHOWN = {
    RECIPE: "the recipe",
    TFIDF: "TF-IDF",
    REGRESSION: "regression",
    WITH_NAMES: "with names",
}
"""Methods as tables name them."""


def main(
    sources: Annotated[
        list[str] | None, typer.Argument(help="project, PATH or NAME=PATH; project by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each source.")] = 20,
    only: Annotated[
        str | None, typer.Option("--only", help="path or spread: leave the other part out.")
    ] = None,
    output_dir: Annotated[
        Path, typer.Option(help="Where the JSON records and report.md go.")
    ] = Path("artifacts/benchmarks/small"),
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make report.md of the records that are there.")
    ] = False,
) -> None:
    """Time the way to an answer, measure the spread of every source, and write records."""
    if only not in (None, "path", "spread"):
        raise ConfigError(f'--only {only} is neither "path" nor "spread"', "Name one of them")
    names = sources or [PROJECT]

    if not report_only and only != "spread" and PROJECT in names:
        time_path(output_dir)
    if not report_only and only != "path":
        for name in names:
            measure_source(name, seeds, output_dir)

    tables.show(make_tables(output_dir))
    report = output_dir / "report.md"
    files.write_text(report, render(output_dir))
    console.say(f"Written to {console.show_path(report)}, of the records beside it.")


def time_path(output_dir: Path) -> None:
    """Time the way from the project's files to an answer and write its record."""
    with tempfile.TemporaryDirectory() as folder:
        record = small_project.measure(Path(folder))
    files.write_text(output_dir / PATH_RECORD, files.json_text(record))


def measure_source(source: str, seeds: int, output_dir: Path) -> None:
    """Measure the spread of one source; its record is written after each seed."""
    recipe = load(TrainConfig, small_project.RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        if source == PROJECT:
            pairs = small_project.draw_pairs()
            path = small_project.write_project(Path(folder) / PROJECT, pairs)
            name = PROJECT
        else:
            name, path = parse_source(source)

        output = output_dir / record_name(name)
        facts = machine.describe()
        sentences = small_spread.read(name, path)
        for record in small_spread.measure(sentences, recipe, seeds):
            last = record["draws"][-1]
            console.say(
                f"{name}, seed {last['seed']} of {seeds}: split {100 * last['split'][RECIPE]:.1f},"
                f" folds {100 * last['cross'][RECIPE]:.1f}, {last['seconds']:.0f} s"
            )
            files.write_text(output, files.json_text({"machine": facts} | record))


def parse_source(source: str) -> tuple[str, Path]:
    """(name, path) of `NAME=PATH` or `PATH`; raises DataError where nothing is there."""
    before, equals, after = source.partition("=")
    name = before if equals else Path(source).name
    path = Path(after if equals else source)
    if not path.exists():
        raise DataError(f"{path} does not exist", "Name a file or folder, or NAME=PATH, or project")
    return name, path


def record_name(source: str) -> str:
    """The file name of the record of a source."""
    return f"{NOT_IN_NAMES.sub('-', source)}.json"


def read_records(folder: Path) -> list[Record]:
    """The records of sources in a folder: the project first, the others by their size."""
    records = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        # Other JSON files, such as that of the times, have none.
        if "draws" in record:
            records.append(record)
    return sorted(records, key=lambda record: (record["source"] != PROJECT, -record["sentences"]))


def make_tables(folder: Path) -> list[Table]:
    """Tables of the records in a folder."""
    made = []
    path = folder / PATH_RECORD
    if path.is_file():
        made.append(small_project.make_table(json.loads(path.read_text(encoding="utf-8"))))

    records = read_records(folder)
    if records:
        made += [spread_table(records), comparison_table(records)]
    return made


def render(folder: Path) -> str:
    """The Markdown of the records in a folder."""
    rendered = [tables.markdown(table) for table in make_tables(folder)]
    return "\n".join(["# Small data: the records\n", *rendered])


def spread_table(records: list[Record]) -> Table:
    """What the draw does to both figures, for each method."""
    header = ["source", "seeds", "method"]
    for way in ("80/10/10", "5 folds"):
        header += [f"{way}: least", "mean", "most", "deviation"]

    rows = []
    for record in records:
        for method, shown in SHOWN.items():
            cells = [record["source"], str(len(record["draws"])), shown]
            for way in ("split", "cross"):
                cells += _spread([draw[way][method] for draw in record["draws"]])
            rows.append(cells)
    note = (
        "Accuracy in per cent over the seeds, each of which draws both divisions and the training;"
        " the deviation is the standard deviation between seeds, in points."
    )
    return Table("Accuracy by a test split and by cross-validation", header, rows, note)


def _spread(shares: list[float]) -> list[str]:
    values = 100 * np.asarray(shares)
    deviation = ""
    if len(values) > 1:
        deviation = f"{values.std(ddof=1):.1f}"
    return [f"{values.min():.1f}", f"{values.mean():.1f}", f"{values.max():.1f}", deviation]


def comparison_table(records: list[Record]) -> Table:
    """The recipe beside the other methods, on the same folds."""
    header = ["source", "language", "sentences", "intents", "judged", "test rows"]
    header += SHOWN.values()
    header += [f"recipe - {SHOWN[other]}" for other in OTHERS]

    rows = []
    for record in records:
        draws = record["draws"]
        cells = [record[key] for key in ("source", "language")]
        cells += [str(record[key]) for key in ("sentences", "intents")]
        for key in ("judged_rows", "test_rows"):
            cells.append(f"{np.mean([draw[key] for draw in draws]):.0f}")
        for method in SHOWN:
            cells.append(f"{100 * np.mean([draw['cross'][method] for draw in draws]):.1f}")
        for other in OTHERS:
            cells.append(_points(record["recipe_minus"][other]))
        rows.append(cells)
    note = (
        "Mean accuracy of cross-validation in per cent over the seeds. Regression: logistic"
        " regression on the frozen encoder, alone and with the intents' names as further sentences,"
        " which the recipe has too. Differences in points, of the same sentences in the same folds,"
        " with the 95 % interval of resampled sentences."
    )
    return Table("The recipe beside simpler methods, out of fold", header, rows, note)


def _points(difference: Record) -> str:
    low, high = difference["interval"]
    return f"{100 * difference['accuracy']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    cli.run(main)
