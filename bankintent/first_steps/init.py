"""`init`: look at a source, propose, write two configs, and say what comes next."""

import re
import shlex
from pathlib import Path

from bankintent import console
from bankintent.config import DataConfig
from bankintent.corpus import out_of_scope
from bankintent.corpus.tables import find_ending
from bankintent.corpus.writing import LAYOUT
from bankintent.distribution import command
from bankintent.errors import ConfigError
from bankintent.first_steps import yaml_files
from bankintent.first_steps.estimate import about, gigabytes
from bankintent.first_steps.look import look
from bankintent.first_steps.proposal import Proposal, propose
from bankintent.first_steps.yaml_files import Written
from bankintent.progress import waiting

CONFIGS = Path("configs")
DATA = Path("data")
MODELS = Path("artifacts/models")

EMBEDDED_NAME = "embedded"
"""Name for the bundled dataset: `data/bundled` is the folder that it comes from."""

NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

FACT_WIDTH = 11
"""Columns of the name of a fact."""


def name_of(source: str, name: str | None) -> str:
    """The name of the configs, the data and the model: the given one, or one after the source.

    Raises ConfigError for a given name that can be no folder.
    """
    if name is not None:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f'--name "{name}" is no name of a folder',
                "Use letters, digits, dots, hyphens and underscores",
            )
        return name

    if source == "bundled":
        return EMBEDDED_NAME
    # The folder `.` has no name of its own.
    path = Path(source).expanduser()
    last = path.resolve().name if path.is_dir() else path.name
    ending = find_ending(path) or path.suffix
    stem = last[: len(last) - len(ending)] if path.is_file() and ending else last
    return NO_NAME.sub("-", stem).strip("-._") or "mine"


def init(given: DataConfig, name: str, output_dir: Path | None, overwrite: bool) -> Written:
    """Write data.yaml and train.yaml for a source into `output_dir`, by default `configs/<name>`.

    `given` are the keys that the user has set. Raises OutputError where a file of somebody else is
    in the way, and what ETL raises for the source; then nothing is written.
    """
    folder = output_dir or CONFIGS / name
    yaml_files.require_free(folder, overwrite)
    LAYOUT.require_replaceable(given.output_dir)

    with waiting(f"Reading {given.dataset_name}"):
        source = look(given)
    proposal = propose(source, given)
    written = yaml_files.write(folder, proposal, MODELS / name, overwrite)

    show(proposal)
    show_next(written)
    return written


def show(proposal: Proposal) -> None:
    """Print what the source is, what is proposed for it and why, and what that costs."""
    lines = [*yaml_files.facts(proposal.look)]
    lines.append(("Split", f"{proposal.look.config.split}: {proposal.split_reason}"))
    if proposal.rare_reason:
        lines.append(("", f"rare: {proposal.look.config.rare}: {proposal.rare_reason}"))
    lines.append(("Regime", f"{proposal.regime.name}: {proposal.regime.reason}"))
    for name, value in lines:
        console.say_beside(name.ljust(FACT_WIDTH), value)

    console.say("")
    _show_estimates(proposal)
    if proposal.look.encoder_note is not None:
        console.say(f"Note: {proposal.look.encoder_note}.")
    for note in out_of_scope.likely_notes(proposal.look.report.out_of_scope):
        console.say(f"Note: {note}")


def _show_estimates(proposal: Proposal) -> None:
    if proposal.estimates is None:
        console.say(proposal.measured_note)
        return

    rows = []
    for regime, estimate in proposal.estimates.items():
        memory = f"{proposal.at_least}{gigabytes(estimate.memory)}"
        proposed = "proposed" if regime == proposal.regime.name else ""
        rows.append([regime, about(estimate.seconds), memory, proposed])
    console.say(proposal.measured_note)
    console.say("")
    console.print_table("Training, without publishing", ["regime", "time", "memory", ""], rows)


def show_next(written: Written) -> None:
    """Print the written files and the commands that come next."""
    data_path = shlex.quote(console.show_path(written.data_path))
    train_path = shlex.quote(console.show_path(written.train_path))
    model_dir = written.train.output_dir
    model = shlex.quote(str(model_dir))

    console.say(f"Written: {data_path} and {train_path}. Next:")
    console.say(f"  {command('etl')} --config {data_path}")
    console.say(f"  {command('train')} --config {train_path}")
    console.say(f"  {command('eval')} --checkpoint_path {model}")

    if model_dir.exists():
        console.say(
            f"Note: {model_dir} is there already: take another --name, or train with --overwrite."
        )
