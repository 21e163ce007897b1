"""Every CPU benchmark in one go: tables, one results.json, and report.md made from it.

python -m benchmarks
python -m benchmarks --model-dir artifacts/models/teacher --student artifacts/models/student \
  --infinity ~/infinity/bin/python
python -m benchmarks --only serving --only request   # the other parts are those of the last run
python -m benchmarks --smoke     # shows that everything works, in a few minutes; no figures

Each benchmark is a process of its own; one that fails is named at the end and does not stop the
others. The machine should be idle otherwise. About 15 minutes on two cores, 5 more with
infinity-emb.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.corpus import dataset
from bankintent.errors import ConfigError, UserError
from benchmarks.machine import ROOT
from benchmarks.report import TABLES, render
from benchmarks.tables import Record

LIMIT_SECONDS = 3600
"""A benchmark that takes longer is stopped and counts as failed."""

SIZES = {
    "training": ["--sentences", "2304", "--epochs", "1"],
    "serving": ["--rounds", "2", "--seconds", "8"],
}
"""Options of each benchmark; those without an entry have their defaults."""

SMOKE = {
    "training": ["--sentences", "64", "--epochs", "1"],
    "steps": ["--steps", "1"],
    "head_only": ["--epochs", "1"],
    "serving": ["--rounds", "1", "--seconds", "1", "--requests", "20", "--sentences", "100"],
    "request": ["--requests", "100"],
    "scoring": ["--rows", "64", "--rounds", "1"],
}
"""The same with `--smoke`."""

NEEDS_DATA = ("training", "steps", "head_only")
"""Benchmarks that train, and so need ETL's output; the others need a bundle."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")] = Path(
        "artifacts/models/quickstart"
    ),
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    student: Annotated[
        Path | None, typer.Option(help="A second bundle to serve, such as a distilled one.")
    ] = None,
    infinity: Annotated[Path | None, typer.Option(help="The Python that has infinity-emb.")] = None,
    output_dir: Annotated[
        Path, typer.Option(help="Where the JSON files and the report go.")
    ] = Path("artifacts/benchmarks"),
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A benchmark to run. Repeatable.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Tiny sizes; the figures mean nothing.")
    ] = False,
) -> None:
    """Run the benchmarks one after the other and write results.json and report.md."""
    names = choose(only or [])
    require_inputs(names, data_dir, model_dir)
    sizes = SMOKE if smoke else SIZES

    failures = {}
    for number, name in enumerate(names, 1):
        console.say(f"\n[{number}/{len(names)}] benchmarks.{name}")
        paths = {"--output": output_dir / f"{name}.json"}
        if name in NEEDS_DATA:
            paths["--data-dir"] = data_dir
        else:
            paths["--model-dir"] = model_dir
        if name == "serving" and student:
            paths["--student"] = student
        if name == "serving" and infinity:
            paths["--infinity"] = infinity

        failure = run(name, paths, sizes.get(name, []))
        if failure is not None:
            failures[name] = failure

    collect(output_dir, failures)
    if failures:
        raise UserError(
            f"{', '.join(failures)} failed", "Its error is above; run it again with --only"
        )


def choose(only: list[str]) -> list[str]:
    """The named benchmarks, or all, in their order. Raises ConfigError for an unknown name."""
    for name in only:
        if name not in TABLES:
            raise ConfigError(f'there is no benchmark "{name}"', f"Name one of {', '.join(TABLES)}")
    return [name for name in TABLES if not only or name in only]


def require_inputs(names: list[str], data_dir: Path, model_dir: Path) -> None:
    """Open what the benchmarks need, so that a wrong path fails at once."""
    if set(names) & set(NEEDS_DATA):
        dataset.load(data_dir)
    if set(names) - set(NEEDS_DATA):
        open_checkpoint(model_dir)


def run(name: str, paths: dict[str, Path], options: list[str]) -> str | None:
    """Run one benchmark; returns None, or why it failed.

    Its JSON file, at `--output` of the paths, is new or gone afterwards.
    """
    paths["--output"].unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    for option, path in paths.items():
        command += [option, str(path.absolute())]

    process = subprocess.Popen([*command, *options], cwd=ROOT)
    try:
        code = process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # unlike a kill, it lets the benchmark end its servers
        process.wait()
        return f"it took more than {LIMIT_SECONDS} seconds"

    if code == 0:
        return None
    return f"it ended with code {code}"


def collect(output_dir: Path, failures: dict[str, str]) -> None:
    """Gather the existing records into results.json, and their tables into report.md."""
    parts: dict[str, Record] = {}
    for name in TABLES:
        path = output_dir / f"{name}.json"
        if path.is_file():
            parts[name] = json.loads(path.read_text(encoding="utf-8"))

    results = output_dir / "results.json"
    report = output_dir / "report.md"
    files.write_text(results, files.json_text({"parts": parts, "failed": failures}))
    files.write_text(report, render(parts, failures))
    console.say(f"Written to {console.show_path(results)} and {console.show_path(report)}.")


if __name__ == "__main__":
    cli.run(main)
