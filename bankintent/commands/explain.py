"""Say why a text gets its answer, or none.

python -m bankintent explain "my card has not arrived" --model-dir artifacts/models/quickstart
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, process
from bankintent.config import ExplainConfig
from bankintent.configfile import load


def explain(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="One or more sentences in quotes.", show_default=False),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="A bundle, its merged/, or a classifier's folder."),
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the decisions alone.")] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Say why a text gets its answer.

    Prints the decision, the weight of each word (what the answer loses without it), and the
    training sentences that lie nearest to the text, by the index in the bundle.
    """
    flags = {"texts": texts or None, "model_dir": model_dir, "brief": brief or None}
    settings = load(ExplainConfig, None, overrides or (), **flags)
    process.keep_products_on_one_thread()
    # Late imports, so that --help and a wrong option answer at once.
    from bankintent.explanation import showing

    showing.explain_and_show(settings)
