"""Compare recipes over seeds, sizes and backbones, and write one report.

python -m bankintent compare --config configs/compare.yaml
python -m bankintent compare --config configs/compare.yaml --report-only
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, distribution
from bankintent.config import CompareConfig
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
        # Each run imports them in a process of its own.
        distribution.require("torch", "transformers", what="training")
        run_on_engine(settings)


def run_on_engine(settings: CompareConfig) -> None:
    """Run the comparison where its `engine` says."""
    if settings.engine == "ray":
        from bankintent.on_ray import studies

        studies.run_comparison(settings)
    else:
        from bankintent.studies import comparison

        comparison.run_comparison(settings)
