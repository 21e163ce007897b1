"""What is extra beyond the commands at the top: verbs of `python -m bankintent`.

python -m bankintent compare --config configs/compare.yaml
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import CompareConfig
from bankintent.configfile import load


def compare(
    config: Annotated[Path, cli.config_option(help="The comparison's settings, e.g. configs/compare.yaml.")],
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report anew from the finished runs; run nothing.")
    ] = False,
    overrides: cli.Overrides = None,
) -> None:
    """Run recipes x backbones x training sizes x seeds and write one report of them.

    A finished run is kept and never repeated; the same command continues an interrupted comparison. The exit code is 2
    where runs failed; the report then holds the others.
    """
    settings = load(CompareConfig, config, overrides or ())
    from bankintent.studies import comparison

    if report_only:
        comparison.report_only(settings)
    else:
        comparison.compare(settings)


if __name__ == "__main__":
    cli.run_verbs("More than one run: comparisons.", compare)
