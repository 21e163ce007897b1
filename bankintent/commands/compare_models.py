"""Hold two trained models against each other on the same rows.

python -m bankintent compare-models artifacts/models/old artifacts/models/new --data test.csv
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import CompareModelsConfig
from bankintent.configfile import load

OldModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="A",
        help="A model: a bundle, its merged/, or a checkpoint folder.",
        show_default=False,
    ),
]

NewModel = Annotated[
    Path | None,
    typer.Argument(metavar="B", help="The model that may take its place.", show_default=False),
]

SharedData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "--data-dir",
        help="A labelled table, a folder of tables or ETL's output; by default the data of both"
        " models, where it is the same.",
    ),
]

ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder of the report.",
        show_default="artifacts/comparisons/<A>-vs-<B>",
    ),
]


def compare_models(
    model_a: OldModel = None,
    model_b: NewModel = None,
    data_dir: SharedData = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="YAML", help="Intents that have other names: `old name: new name`."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, val or test.", show_default="test")
    ] = None,
    output_dir: ReportFolder = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Evaluate two trained models on the same rows: is B better than A, and what changes?

    Writes report.md, metrics.json and changed.csv, which lists every text that the two models
    answer differently.
    """
    flags = {
        "model_a": model_a,
        "model_b": model_b,
        "data_dir": data_dir,
        "label_map": label_map,
        "split": split,
        "output_dir": output_dir,
    }
    settings = load(CompareModelsConfig, config, overrides or (), **flags)
    from bankintent.inference import model_comparison, model_comparison_report

    pair = model_comparison.open_pair(settings)
    data = model_comparison.find_common_data(pair, settings)
    a = model_comparison.answer_rows(pair.a, pair, data, settings)
    b = model_comparison.answer_rows(pair.b, pair, data, settings)
    result = model_comparison.compare_answers(pair, data, a, b, settings)

    folder = settings.output_dir or model_comparison.pair_folder(pair, data)
    model_comparison_report.write(folder, result, data, a, b)
    model_comparison_report.show(result, data, folder)
