"""The HTTP API over one bundle: POST /predict/, health, metrics, a page at /.

MODEL_DIR=artifacts/models/quickstart uvicorn backend:app
python -m backend --config configs/serve.yaml

Under uvicorn the variable SERVE_CONFIG may name a config file; BANKINTENT_API_KEY, where set, is the key to send.
"""

import functools
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli
from bankintent.config import ServeConfig
from bankintent.configfile import load
from bankintent.errors import UserError


def settings(config: Path | None, overrides: list[str] | None = None, **flags: Any) -> ServeConfig:
    """The file, the overrides, MODEL_DIR, the flags: each wins over those before it."""
    model_dir = flags.pop("model_dir", None) or os.environ.get("MODEL_DIR") or None
    return load(ServeConfig, config, overrides or (), model_dir=model_dir, **flags)


def main(
    config: Annotated[
        Path | None, cli.config_option(help="For example configs/serve.yaml; defaults without it.")
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option("--model-dir", help="A bundle, its merged/, or a classifier's folder."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen on.", show_default="8000")
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Serve a model over HTTP until SIGTERM; what was admitted by then is still answered.

    The environment variable MODEL_DIR names the model where --model-dir does not.
    """
    chosen = settings(config, overrides, model_dir=model_dir, port=port)
    import uvicorn

    from bankintent.serving.app import create_app

    app = create_app(chosen)
    # Longer than the idle time of the usual load balancers, which would else meet connections that are just closing.
    uvicorn.run(app, host=chosen.host, port=chosen.port, access_log=False, timeout_keep_alive=75)


@functools.cache
def _app() -> Any:
    from bankintent.serving.app import create_app

    config = os.environ.get("SERVE_CONFIG")
    try:
        return create_app(settings(Path(config) if config else None))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def __getattr__(name: str) -> Any:
    """`backend:app`, built when a server asks for it: importing this file imports no framework and loads nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module backend has no attribute {name}")


if __name__ == "__main__":
    cli.run(main)
