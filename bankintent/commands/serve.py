"""The HTTP API of one model: POST /predict/, health, metrics, a page at /.

python -m backend --config configs/serve.yaml
MODEL_DIR=artifacts/models/quickstart uvicorn backend:app
MODEL_DIR=artifacts/models/quickstart uvicorn --factory bankintent.commands.serve:create_app

Under uvicorn the variable SERVE_CONFIG may name a config file. Where BANKINTENT_API_KEY is set,
clients must send that key.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, ports, process
from bankintent.config import ServeConfig
from bankintent.configfile import load
from bankintent.errors import UserError


def settings(
    config: Path | None,
    overrides: list[str] | None = None,
    model_dir: Path | None = None,
    port: int | None = None,
    engine: str | None = None,
) -> ServeConfig:
    """The config of the file, the overrides, MODEL_DIR and the flags.

    Each wins over those before it.
    """
    # An empty variable is the same as none.
    model = model_dir or os.environ.get("MODEL_DIR") or None
    return load(ServeConfig, config, overrides or (), model_dir=model, port=port, engine=engine)


def serve(
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
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="local or ray: what serves.", show_default="local"),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Serve a model over HTTP until SIGTERM; what was admitted by then is still answered.

    The environment variable MODEL_DIR names the model where --model-dir does not.
    """
    serve_config = settings(config, overrides, model_dir, port, engine)
    process.keep_products_on_one_thread()
    if serve_config.engine == "ray":
        from bankintent.on_ray import serving

        serving.serve_until_signal(serve_config)
    else:
        serve_here(serve_config)


def serve_here(serve_config: ServeConfig) -> None:
    """Serve in this process, until SIGTERM."""
    # Late imports, so that --help and a wrong config answer at once.
    import uvicorn

    from bankintent.serving import own_server
    from bankintent.serving.app import create_app
    from bankintent.serving.bound_server import BoundServer
    from bankintent.serving.protocol import BoundedProtocol

    # Before the model, which may take long to load.
    sockets = ports.bind(serve_config.host, serve_config.port)
    server_config = uvicorn.Config(
        BoundServer(create_app(serve_config)),
        host=serve_config.host,
        port=serve_config.port,
        http=BoundedProtocol,
        # The telemetry's log takes its place: lines of the access log hold query strings.
        access_log=False,
    )
    own_server.run(server_config, sockets)


def create_app() -> Any:
    """The app for another ASGI server: its settings are those of SERVE_CONFIG and MODEL_DIR.

    A wrong setting or model ends the process with one line.
    """
    process.keep_products_on_one_thread()
    from bankintent.serving import app
    from bankintent.serving.bound_server import BoundServer

    name = os.environ.get("SERVE_CONFIG")
    config = Path(name) if name else None
    try:
        return BoundServer(app.create_app(settings(config)))
    except UserError as error:
        # Under uvicorn no `cli.run` turns the error into one line.
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
