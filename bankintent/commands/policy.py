"""Choose anew when a bundle answers and when it says that it does not know.

python -m bankintent policy --model-dir artifacts/models/quickstart --set target.precision=0.9
python -m bankintent policy --model-dir artifacts/models/quickstart --restore 7fbdfb7cb2c3
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli
from bankintent.config import PolicyConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError

Restore = Annotated[
    str | None,
    typer.Option(
        "--restore",
        metavar="VERSION",
        help="Take a former policy again, by its version; nothing is fitted.",
    ),
]


def policy(
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="The bundle, such as artifacts/models/quickstart."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="ETL's output that it was trained on.",
            show_default="the folder that the bundle records",
        ),
    ] = None,
    restore: Restore = None,
    config: Annotated[
        Path | None,
        cli.config_option(help="The same settings as a file; the command line wins over it."),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Choose anew when a bundle answers and when it says that it does not know.

    Fits the policy of the bundle on its validation rows for another promise: `--set
    target.precision=0.98`, `--set target.coverage=0.9`, or costs with `--set target.wrong=10 --set
    target.handover=1`. Nothing is trained and no answer changes its intent. The former policy is
    kept in the bundle, and `--restore VERSION` takes it again. Where the validation rows are too
    few for the promise, nothing is changed.
    """
    flags = {"model_dir": model_dir, "data_dir": data_dir}
    settings = load(PolicyConfig, config, overrides or (), **flags)
    if restore is not None and settings.model_fields_set != {"model_dir"}:
        raise ConfigError("--restore takes no other settings than --model-dir")

    # Late imports, so that --help and a wrong config answer at once. A former policy is put back
    # without what fits one.
    from bankintent.export import policy_swap

    if restore is not None:
        policy_swap.show(policy_swap.restore(settings.model_dir, restore))
        return

    from bankintent.export import policy_change

    policy_swap.show(policy_change.change(settings))
