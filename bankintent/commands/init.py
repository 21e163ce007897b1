"""Look at sentences and write a data.yaml and a train.yaml for them, with reasons.

python -m bankintent init my.csv
python -m bankintent init my.csv --set label_column=Topic
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent.config import DataConfig
from bankintent.configfile import load

UserSource = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Your sentences: a table (CSV, Excel, JSON, Parquet, ...), a folder with train and"
        " test files, an export of another tool, a Hub name, or `bundled`.",
        show_default=False,
    ),
]

ConfigFolder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        help="Folder for the two files.",
        show_default="configs/<name>",
    ),
]


def init(
    source: UserSource,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the configs, the data and the model.", show_default="after PATH"
        ),
    ] = None,
    output_dir: ConfigFolder = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a data.yaml and train.yaml that are there."),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of data.yaml, for example --set label_column=Topic. Repeatable.",
        ),
    ] = None,
) -> None:
    """Look at your sentences and write data.yaml and train.yaml for them, with reasons.

    Reads the source as ETL would and chooses a split and a regime. Measures the encoder on some of
    the sentences, to estimate time and memory of each regime. The two files say it all in comments
    and run as they are; nothing is trained. It takes half a minute for some thousand sentences.

    A source that ETL would refuse is refused with ETL's own line, and nothing is written.
    """
    from bankintent.first_steps import init as first_steps

    name = first_steps.name_of(source, name)
    # Before the user's own, which win: errors of a source advise --set dataset_name=... too.
    places = [f"dataset_name={source}", f"output_dir={first_steps.DATA / name}"]
    given = load(DataConfig, None, [*places, *(overrides or ())])
    first_steps.init(given, name, output_dir, overwrite)
