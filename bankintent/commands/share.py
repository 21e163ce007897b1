"""Export the base of a LoRA bundle, which serves many adapters without torch.

bankintent share artifacts/models/cards artifacts/bases/small
bankintent serve --set models_dir=artifacts/models --set base=artifacts/bases/small
"""

from pathlib import Path
from typing import Annotated

import typer

from bankintent import console


def share(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE",
            help="A bundle that was trained with LoRA, such as artifacts/models/quickstart.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", help="The folder to write: the exported base.", show_default=False
        ),
    ],
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank",
            min=1,
            help="Largest rank of adapters that it takes.",
            show_default="that of BUNDLE",
        ),
    ] = None,
) -> None:
    """Export the base of a LoRA bundle, which serves many adapters without torch.

    The base takes the adapter of every bundle that was trained on the same encoder and on the same
    layers, up to a rank. Name it as `base` in serve.yaml, or in `bankintent.load_adapters`: it is
    loaded once, in ONNX Runtime, for all of them. Before it is written, its answers are compared
    with those of torch, for texts with BUNDLE's adapter and without.
    """
    # Late imports, so that --help answers at once.
    from bankintent.export import shared_base

    console.say("Loading the base in torch, and exporting it ...")
    exported = shared_base.export(bundle, output, rank)
    record = exported.record
    console.say(
        f"{console.show_path(output)} takes adapters of {len(record.layers)} layers up to rank"
        f" {record.rank}; it differs from torch by at most {exported.difference:.1e}."
    )
    console.say(f"Serve with it: --set base={output}")
