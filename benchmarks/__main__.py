"""Every CPU benchmark in one go, on an otherwise idle machine: tables, one results.json, and report.md made from it.

python -m benchmarks
python -m benchmarks --model-dir artifacts/models/teacher --student artifacts/models/student \
  --infinity ~/infinity/bin/python
python -m benchmarks --only serving --only request      # the other parts are taken from the last run
python -m benchmarks --smoke                            # sees that everything works, in a few minutes; no figures

Each benchmark is a process of its own; one that fails is named at the end and does not stop the others. About 15
minutes on two cores, 5 more with infinity-emb.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.corpus import dataset
from bankintent.errors import ConfigError, UserError
from benchmarks.machine import ROOT
from benchmarks.report import TABLES, render

LIMIT_SECONDS = 3600
SIZES = {
    "training": ["--sentences", "2304", "--epochs", "1"],
    "serving": ["--rounds", "2", "--seconds", "8"],
}
SMOKE = {
    "training": ["--sentences", "64", "--epochs", "1"],
    "steps": ["--steps", "1"],
    "head_only": ["--epochs", "1"],
    "serving": ["--rounds", "1", "--seconds", "1", "--requests", "20", "--sentences", "100"],
    "request": ["--requests", "100"],
    "scoring": ["--rows", "64", "--rounds", "1"],
}
"""Options of each benchmark here; without an entry its defaults."""
NEEDS_DATA = ("training", "steps", "head_only")


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
    if unknown := [name for name in only or [] if name not in TABLES]:
        raise ConfigError(
            f'there is no benchmark "{unknown[0]}"', f"Name one of {', '.join(TABLES)}"
        )
    chosen = [name for name in TABLES if not only or name in only]
    if set(chosen) & set(NEEDS_DATA):
        dataset.load(data_dir)
    if set(chosen) - set(NEEDS_DATA):
        open_checkpoint(model_dir)
    failed = {}
    for number, name in enumerate(chosen, 1):
        console.say(f"\n[{number}/{len(chosen)}] benchmarks.{name}")
        given = {"--data-dir": data_dir} if name in NEEDS_DATA else {"--model-dir": model_dir}
        if name == "serving":
            given |= {
                option: path
                for option, path in (("--student", student), ("--infinity", infinity))
                if path
            }
        if reason := run(name, given, (SMOKE if smoke else SIZES).get(name, []), output_dir):
            failed[name] = reason
    collect(output_dir, failed)
    if failed:
        raise UserError(
            f"{', '.join(failed)} failed", "Its error stands above; run it again with --only"
        )


def run(name: str, given: dict[str, Path], words: list[str], output_dir: Path) -> str:
    """Run one benchmark; its JSON file is new or gone afterwards. Returns why it failed, or nothing."""
    output = output_dir / f"{name}.json"
    output.unlink(missing_ok=True)
    paths = [
        word
        for option, path in {**given, "--output": output}.items()
        for word in (option, str(path.absolute()))
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *paths, *words], cwd=ROOT
    )
    try:
        code = process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # unlike a kill, it lets the benchmark end its servers
        process.wait()
        return f"it took more than {LIMIT_SECONDS} seconds"
    return f"it ended with code {code}" if code else ""


def collect(output_dir: Path, failed: dict[str, str]) -> None:
    """Put the records that there are into results.json, and its tables into report.md."""
    parts: dict[str, Any] = {}
    for name in TABLES:
        path = output_dir / f"{name}.json"
        if path.is_file():
            parts[name] = json.loads(path.read_text(encoding="utf-8"))
    results, report = output_dir / "results.json", output_dir / "report.md"
    files.write_text(results, files.json_text({"parts": parts, "failed": failed}))
    files.write_text(report, render(parts, failed))
    console.say(f"Written to {console.show_path(results)} and {console.show_path(report)}.")


if __name__ == "__main__":
    cli.run(main)
