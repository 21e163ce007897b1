"""Evaluate a checkpoint on a split: accuracy, macro-F1, calibration, confusions, 95 % intervals.

python -m eval --checkpoint_path artifacts/models/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --split val --data-dir data/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --data may.csv --by channel --by length
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bankintent import cli
from bankintent.config import EvalConfig
from bankintent.configfile import load

if TYPE_CHECKING:
    from bankintent.inference.evaluation import Evaluation

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
By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Figures for each value of a column of the data, or of length, language or intent,"
        " which are found; may be repeated.",
    ),
]
Config = Annotated[
    Path | None,
    cli.config_option(help="The same settings as a file; the command line wins over it."),
]
Split = Annotated[
    str | None, typer.Option("--split", help="train, val or test.", show_default="test")
]
WithTexts = Annotated[
    bool | None,
    typer.Option("--with-texts", help="Write the sentences into predictions.parquet too."),
]
Without = Annotated[
    Path | None,
    typer.Option(
        "--without",
        metavar="FILE",
        help="The suspected_test.json of an audit: a second figure, marked, without those rows.",
    ),
]


def evaluate(
    checkpoint_path: CheckpointPath = None,
    config: Config = None,
    data_dir: DataDir = None,
    label_map: LabelMap = None,
    split: Split = None,
    by: By = None,
    without: Without = None,
    with_texts: WithTexts = None,
    output_dir: OutputDir = None,
    overrides: cli.Overrides = None,
) -> None:
    """Evaluate a checkpoint: its merged model if present, otherwise its adapter on the base.

    A plain checkpoint folder with labels is taken too. Writes metrics.json, report.md,
    confusion.png, reliability.png, risk-coverage.png and predictions.parquet, and logs them to
    MLflow.
    """
    flags = {
        "checkpoint_path": checkpoint_path,
        "data_dir": data_dir,
        "label_map": label_map,
        "split": split,
        # None was given: the file's list holds.
        "by": by or None,
        "without": without,
        "with_texts": with_texts,
        "output_dir": output_dir,
    }
    run(load(EvalConfig, config, overrides or (), **flags))


@dataclass(frozen=True)
class Report:
    """A finished evaluation."""

    result: "Evaluation"
    folder: Path
    """Where it was written."""


def run(settings: EvalConfig) -> Report:
    """Evaluate, write the report, track and show it."""
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent import tracking_store
    from bankintent.baselines import trivial
    from bankintent.bundle.layout import open_checkpoint
    from bankintent.explanation import wrong_words
    from bankintent.inference import (
        cleaned,
        evaluation,
        evaluation_report,
        labelled,
        slicing,
        trained_on,
        wrong_rows,
    )

    tracking_store.require_usable(settings.tracking)
    checkpoint = open_checkpoint(settings.checkpoint_path)
    data = labelled.find_data(checkpoint, settings)
    train = trained_on.trained_rows(checkpoint, data.source)
    slicings = slicing.find_slicings(data, settings.by)
    suspected = cleaned.find_suspected(settings.without, data)
    background = wrong_rows.find_background(checkpoint, settings.with_texts)
    predicted = evaluation.predict(checkpoint, data, settings.batch_size)
    result = evaluation.evaluate(predicted, data, checkpoint, settings, train, slicings)
    result = trivial.beside(result, predicted.logits, data, train)
    result = wrong_rows.beside(result, predicted, data, background)
    if data.source.folds is None:
        result = wrong_words.beside(result, checkpoint)
    result = cleaned.beside(result, predicted, data, suspected, settings)

    folder = settings.output_dir or evaluation.report_folder(checkpoint.name, data.source)
    evaluation_report.write(folder, result, predicted, data, settings.with_texts)
    evaluation.log(result, folder, settings)
    evaluation_report.show(result, data, folder)
    return Report(result, folder)
