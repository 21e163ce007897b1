"""Train a classifier (its head only, with LoRA, or all weights) and publish it as a bundle.

python -m multiregime --config configs/train.yaml --regime lora
python -m multiregime --config configs/banking77/full-ft.yaml --set lr=5e-5 --set output_dir=out
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, distribution
from bankintent.config import TrainConfig
from bankintent.configfile import load


def train(
    config: Annotated[
        Path,
        cli.config_option(
            help="The run's settings, e.g. configs/train.yaml; --train-config is the same."
        ),
    ],
    regime: Annotated[
        str | None,
        typer.Option(
            "--regime",
            metavar="REGIME",
            help="Which weights learn: head-only, lora or full-ft; wins over the config.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a bundle, or discard an interrupted run, that has other settings.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Train a classifier on ETL's output and publish it as a bundle.

    The same command continues an interrupted run from its newest complete checkpoint, and leaves a
    finished one as it is.
    """
    run(load(TrainConfig, config, overrides or (), regime=regime), overwrite)


def run(settings: TrainConfig, overwrite: bool = False) -> Path:
    """Train and publish; returns the path of the bundle."""
    distribution.require("torch", "transformers", what="training")
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.corpus import dataset
    from bankintent.training import processes
    from bankintent.training import run as training

    with processes.joined(settings.batch_size):
        data = dataset.load(settings.data_dir)
        return training.train(settings, data, overwrite=overwrite)
