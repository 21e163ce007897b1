"""Check whether this machine is ready for a run.

python -m bankintent doctor
python -m bankintent doctor --config configs/banking77/lora.yaml
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import TrainConfig
from bankintent.configfile import load


def doctor(
    config: Annotated[
        Path | None,
        cli.config_option(
            help="A train.yaml: its encoder, places, precision and tracking are checked. By default"
            " those of configs/recommended/lora.yaml."
        ),
    ] = None,
    regime: Annotated[
        str | None,
        typer.Option(
            "--regime", metavar="REGIME", help="The regime of that run, where the file has none."
        ),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Check this machine: packages, processor, memory, disks, ports, tracking, the Hub.

    Prints a line for each check: ok, a note (something to know; nothing fails by it) or a problem
    (a run would stop there), and what to do. It takes some seconds and changes nothing. The exit
    code is 1 where there is a problem, otherwise 0.
    """
    from bankintent.first_steps import doctor as first_steps

    settings = load(TrainConfig, config or first_steps.QUICKSTART, overrides or (), regime=regime)
    if not first_steps.examine(settings):
        raise typer.Exit(1)
