"""Find labels that are likely wrong, decide on them, and make a patch of the decisions.

python -m bankintent audit --config configs/audit.yaml
python -m bankintent audit review artifacts/audits/audit
python -m bankintent audit apply artifacts/audits/audit
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import AuditConfig
from bankintent.config.audit import AGREEMENT, CONFIDENCE
from bankintent.configfile import load

AuditFolder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The folder of an audit.", show_default=False),
]


def audit(
    context: typer.Context,
    config: Annotated[
        Path | None,
        cli.config_option(help="The audit's settings, e.g. configs/audit.yaml; defaults without."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an audit that holds decisions.")
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Find labels that are likely wrong, near duplicates that disagree, and confusable intents.

    Looks at train and val, never at test. Writes review.csv, which a person fills in, report.md and
    pairs.md to artifacts/audits/NAME. `audit review FOLDER` opens a page to decide on the rows,
    and `audit apply FOLDER` makes the patch that ETL applies.
    """
    if context.invoked_subcommand is not None:
        return

    settings = load(AuditConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.audit import run

    run.run(settings, overwrite)
    run.say_next(settings.folder)


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
