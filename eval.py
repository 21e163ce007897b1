"""Evaluate a checkpoint on a split: accuracy, macro-F1, calibration, confusions, 95 % intervals.

python -m eval --checkpoint_path artifacts/models/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --split val --data-dir data/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --data last-month.csv
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
        help="A bundle, its merged/, or a checkpoint folder.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        "--data",
        help="ETL's output, a labelled table or a folder of tables; by default the data that"
        " the model was trained on.",
    ),
]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        "--map",
        metavar="YAML",
        help="Intents that the table calls otherwise: `name in the table: name in the model`.",
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder of the report, `<run>-<table>` for a table.",
        show_default="artifacts/evals/<run>",
    ),
]


def main(
    checkpoint_path: CheckpointPath = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    data_dir: DataDir = None,
    label_map: LabelMap = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test.", show_default="test")
    ] = None,
    output_dir: OutputDir = None,
    overrides: cli.Overrides = None,
) -> None:
    """Evaluate a checkpoint: its merged model if present, otherwise its adapter on the base.

    A plain checkpoint folder with labels is taken too. Writes metrics.json, report.md,
    confusion.png, reliability.png and predictions.parquet, and logs them to MLflow.
    """
    flags = {
        "checkpoint_path": checkpoint_path,
        "data_dir": data_dir,
        "label_map": label_map,
        "split": split,
        "output_dir": output_dir,
    }
    settings = load(EvalConfig, config, overrides or (), **flags)
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent import tracking_store
    from bankintent.baselines import trivial
    from bankintent.bundle.layout import open_checkpoint
    from bankintent.inference import evaluation, evaluation_report, labelled

    tracking_store.require_usable(settings.tracking)
    checkpoint = open_checkpoint(settings.checkpoint_path)
    data = labelled.find_data(checkpoint, settings)
    train = labelled.trained_rows(checkpoint, data.source)
    logits = evaluation.predict(checkpoint, data, settings.batch_size)
    result = evaluation.evaluate(logits, data, checkpoint, settings, train)
    result = trivial.beside(result, logits, data, train)

    folder = settings.output_dir or evaluation.report_folder(checkpoint.name, data.source)
    evaluation_report.write(folder, result, logits, data)
    evaluation.log(result, folder, settings)
    evaluation_report.show(result, data, folder)


if __name__ == "__main__":
    cli.run(main)
