"""One training run: head-only, LoRA or full fine-tuning, through one Trainer path, to one published bundle.

python -m multiregime --config configs/train.yaml --regime lora
python -m multiregime --config configs/banking77/full-ft.yaml --set lr=5e-5 --set output_dir=artifacts/models/mine
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import TrainConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError


def main(
    config: Annotated[
        Path,
        cli.config_option("--train-config", help="The run's settings, e.g. configs/train.yaml."),
    ],
    regime: Annotated[
        str | None,
        typer.Option(
            "--regime",
            metavar="head-only|lora|full-ft",
            help="Which weights learn; wins over the config.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a bundle, or discard an interrupted run, of other settings.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Train a classifier on ETL's output and publish it as a bundle.

    An interrupted run continues from its newest complete checkpoint when the same command is given again; a finished
    one is left as it is.
    """
    settings = load(TrainConfig, config, overrides or (), regime=regime)
    if settings.regime is None:
        raise ConfigError(
            "no regime is given",
            "Add --regime head-only, lora or full-ft, or regime: to the config",
        )
    from bankintent.corpus import dataset
    from bankintent.training import run

    data = dataset.load(settings.data_dir)
    run.train(settings, settings.regime, data, overwrite=overwrite)


if __name__ == "__main__":
    cli.run(main)
