"""Check every file of a bundle against what was published.

python -m bankintent verify artifacts/models/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE",
            help="A published bundle, such as artifacts/models/quickstart.",
            show_default=False,
        ),
    ],
) -> None:
    """Check every file of a bundle against what was published.

    A line for each fault, and exit code 2, where

    - a file is missing, or has another size or SHA-256 than `manifest.json` lists;
    - a file was added, or something is a link and no file;
    - the labels and the config of a model do not agree;
    - an exported format has no record of its gate.

    Otherwise one line says that the bundle is as published, and the exit code is 0. An edited model
    card (README.md) is a note: people may fill in what it cannot know. Nothing is loaded or
    changed; it takes as long as reading the files. It cannot tell whether manifest.json itself was
    made by somebody else: keep its SHA-256 where you trust it.
    """
    # Late imports, so that --help answers at once.
    from bankintent.bundle import verification

    verdict = verification.verify(bundle)
    verification.show(verdict)
    if verdict.faults:
        raise typer.Exit(2)
