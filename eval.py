"""Evaluate a checkpoint on a split: accuracy, macro-F1, calibration, confusions, 95 % intervals.

python -m eval --checkpoint_path artifacts/models/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --split val --data-dir data/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import EvalConfig
from bankintent.configfile import load

CheckpointPath = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint-path",
        "--checkpoint_path",
        help="A bundle, its merged/, or a checkpoint folder.",
    ),
]


def main(
    checkpoint_path: CheckpointPath = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="ETL's output; by default the one the model was trained on."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test.", show_default="test")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", help="Folder of the report.", show_default="artifacts/evals/<run>"
        ),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Evaluate a checkpoint: its merged model if present, otherwise its adapter on the base.

    A plain checkpoint folder with labels is taken too. Writes metrics.json, report.md,
    confusion.png, reliability.png and predictions.parquet, and logs them to MLflow.
    """
    flags = {
        "checkpoint_path": checkpoint_path,
        "data_dir": data_dir,
        "split": split,
        "output_dir": output_dir,
    }
    settings = load(EvalConfig, config, overrides or (), **flags)
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.bundle.layout import open_checkpoint
    from bankintent.inference import evaluation

    checkpoint = open_checkpoint(settings.checkpoint_path)
    data = evaluation.find_data(checkpoint, settings.data_dir)
    rows = data.read(settings.split)
    logits = evaluation.predict(checkpoint, rows, settings.batch_size)
    result = evaluation.evaluate(logits, rows, checkpoint, data, settings)

    folder = settings.output_dir or evaluation.default_folder(checkpoint, settings.split)
    evaluation.write(folder, result, logits, rows, checkpoint.labels)
    evaluation.log(result, folder, settings)
    evaluation.show(result, folder)


if __name__ == "__main__":
    cli.run(main)
