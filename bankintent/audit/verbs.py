"""The commands below `audit`: a page to decide on its rows, and the patch of the decisions."""

from pathlib import Path
from typing import Annotated

import typer

from bankintent.config.audit import AGREEMENT, CONFIDENCE

AuditFolder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The folder of an audit.", show_default=False),
]


def review(
    folder: AuditFolder,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")
    ] = 8090,
) -> None:
    """Open a page on this machine to decide on the rows of an audit, until Ctrl+C.

    Each decision is written to the audit's review.csv at once.
    """
    from bankintent.audit.page import serve

    serve.serve(folder, port)


def apply(
    folder: AuditFolder,
    automatic: Annotated[
        bool,
        typer.Option(
            "--automatic",
            help="Take the surest suggestions without a person, whatever review.csv says.",
        ),
    ] = False,
    confidence: Annotated[
        float, typer.Option(min=0, max=1, help="With --automatic: least confidence.")
    ] = CONFIDENCE,
    agreement: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="With --automatic: least share of neighbours of the suggested intent.",
        ),
    ] = AGREEMENT,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder of the patch.")] = Path(
        "patches"
    ),
) -> None:
    """Make the patch of the decisions of an audit, for `patch:` in data.yaml.

    The patch has hashes of the sentences, not the sentences. Undecided rows stay as they are.
    """
    from bankintent.audit import applying

    if automatic:
        applying.apply_automatically(folder, output_dir, applying.Rule(confidence, agreement))
    else:
        applying.apply_review(folder, output_dir)
