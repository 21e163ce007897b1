"""Commands that cannot write a file beyond a number of bytes, as on a disk that is full.

Held: one line and exit code 2 with no output, or the whole result; and the same command, run again
with space, gives its result.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from faults.tally import Tally

ROOT = Path(__file__).parents[2]

SIZES = (0, 100, 1_000, 4_000, 20_000, 60_000, 100_000, 300_000)
"""Largest file in bytes, from nothing at all to all but the largest."""

SECONDS = 200
"""Longest run of a command."""


@dataclass(frozen=True)
class Command:
    """A command line, and what it writes."""

    words: tuple[str, ...]
    output: str


COMMANDS = (
    Command(("etl", "--config", "data.yaml", "--set", "output_dir=new"), "new"),
    Command(
        ("multiregime", "--config", "train.yaml", "--regime", "lora", "--set", "output_dir=new"),
        "new",
    ),
    Command(("eval", "--checkpoint-path", "bundle", "--output-dir", "new"), "new"),
    Command(("bankintent", "score", "texts.csv", "new.csv", "--model-dir", "bundle"), "new.csv"),
)


def run(count: int) -> Tally:
    """Try each command with at most `count` sizes."""
    tally = Tally("full disks")
    with tempfile.TemporaryDirectory() as folder:
        start = _prepare(Path(folder) / "start")
        for size in SIZES[:: max(1, len(SIZES) // count)][:count]:
            for command in COMMANDS:
                place = Path(folder) / "place"
                shutil.copytree(start, place)
                tally.add(f"{command.words[0]}, {size} bytes", _fault(command, place, size))
                shutil.rmtree(place)
    return tally


def _prepare(folder: Path) -> Path:
    """A folder with data and a small bundle, and the configs that made them."""
    from conftest import checked_in_this_process, train_in, write_csv
    from tiny_models import rows, tiny_encoder

    from bankintent.corpus import division

    folder.mkdir(parents=True)
    encoder = tiny_encoder("bert", folder / "encoder")
    # Small data would be judged by cross-validation, which trains many times.
    with checked_in_this_process(), patch.object(division, "CROSS_BELOW", 0):
        train_in(folder, rows(), encoder, epochs=2)
    write_csv(folder / "texts.csv", [(text, "") for text, _ in rows()], header="text,note")
    return folder


def _fault(command: Command, place: Path, size: int) -> str | None:
    limited = _call(command, place, size)
    error = limited.stderr.strip()
    output = place / command.output

    if limited.returncode == 0:
        return None if output.exists() else "ended well without its output"
    if output.exists():
        return f"failed and left {command.output}"
    last_line = error.splitlines()[-1]
    if limited.returncode != 2 or not last_line.startswith("error: ") or "Traceback" in error:
        return f"code {limited.returncode}: {error[-200:]!r}"

    again = _call(command, place, None)
    if again.returncode != 0:
        return f"a second run ended with {again.returncode}: {again.stderr.strip()[-200:]!r}"
    return None if output.exists() else "a second run gave no output"


def _call(command: Command, place: Path, size: int | None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", *command.words]
    return subprocess.run(
        words,
        cwd=place,
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
