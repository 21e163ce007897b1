"""Add predictions to every row of a table.

python -m bankintent score messages.csv scored.parquet --model-dir artifacts/models/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, process
from bankintent.config import ScoreConfig
from bankintent.configfile import load

InputTable = Annotated[
    Path | None,
    typer.Argument(
        metavar="IN",
        help="A Parquet, CSV, TSV, JSON, JSON lines or .xlsx file, also gzipped; or a folder.",
        show_default=False,
    ),
]
OutputTable = Annotated[
    Path | None,
    typer.Argument(
        metavar="OUT",
        help="The file to write, in the format of its ending.",
        show_default=False,
    ),
]


def score(
    source: InputTable = None,
    output: OutputTable = None,
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
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="local or ray: what computes.", show_default="local"),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Add a label, its score, a decision, its reason, a margin and the second label to every row.

    Rows stay in order and keep their columns; a row without a text gets no answer.
    After an interruption the same command continues with the rows that are not scored yet.
    """
    flags = {"input": source, "output": output, "model_dir": model_dir, "text_column": text_column}
    flags["engine"] = engine
    settings = load(ScoreConfig, config, overrides or (), **flags)

    process.keep_products_on_one_thread()
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.scoring import score as scoring

    if settings.engine == "ray":
        from bankintent.on_ray import scoring as on_ray

        summary = on_ray.score(settings, overwrite)
    else:
        summary = scoring.score(settings, overwrite=overwrite)
    scoring.show(summary)
