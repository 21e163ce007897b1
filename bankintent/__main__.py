"""The commands of `python -m bankintent`: compare many training runs or two models, score a table.

python -m bankintent compare --config configs/compare.yaml
python -m bankintent compare-models artifacts/models/old artifacts/models/new --data test.csv
python -m bankintent score messages.csv scored.parquet --model-dir artifacts/models/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import CompareConfig, CompareModelsConfig, ScoreConfig
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


def compare(
    config: Annotated[
        Path,
        cli.config_option(help="The comparison's settings, e.g. configs/compare.yaml."),
    ],
    report_only: Annotated[
        bool,
        typer.Option(
            "--report-only",
            help="Write the report from the finished runs, without training.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Run recipes x backbones x training sizes x seeds and write one report of them.

    A finished run is never repeated, and the same command continues an interrupted comparison. The
    exit code is 2 if a run failed; the report then holds the others.
    """
    settings = load(CompareConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.studies import comparison

    if report_only:
        comparison.report_only(settings)
    else:
        comparison.run_comparison(settings)


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


def score(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="IN",
            help="A Parquet, CSV or TSV file; .csv.gz too.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="The file to write, in the format of its ending.",
            show_default=False,
        ),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="A bundle, its merged/, or a classifier's folder."),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option("--text-column", help="Column of the sentences; by default found by name."),
    ] = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace OUT, or discard an unfinished run of another model or input.",
        ),
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Add a label and a score to every row of a table.

    Rows stay in order and keep their columns; a row without a text gets neither label nor score.
    After an interruption the same command continues with the rows that are not scored yet.
    """
    flags = {"input": source, "output": output, "model_dir": model_dir, "text_column": text_column}
    settings = load(ScoreConfig, config, overrides or (), **flags)

    from bankintent.scoring import score as scoring

    summary = scoring.score(settings, overwrite=overwrite)
    scoring.show(summary)


if __name__ == "__main__":
    cli.run_verbs(
        "Compare many training runs or two models, or score a whole table.",
        compare,
        compare_models,
        score,
    )
