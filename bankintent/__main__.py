"""The commands of `python -m bankintent`: compare many training runs, score a whole table.

python -m bankintent compare --config configs/compare.yaml
python -m bankintent score messages.csv scored.parquet --model-dir artifacts/models/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import CompareConfig, ScoreConfig
from bankintent.configfile import load


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
    cli.run_verbs("Compare many training runs, or score a whole table.", compare, score)
