"""The HTTP API of one model: POST /predict/, health, metrics, a page at /.

MODEL_DIR=artifacts/models/quickstart uvicorn backend:app
python -m backend --config configs/serve.yaml

Under uvicorn the variable SERVE_CONFIG may name a config file. Where BANKINTENT_API_KEY is set,
clients must send that key.
"""

import functools
from typing import Any

from bankintent import cli
from bankintent.commands.serve import create_app
from bankintent.commands.serve import serve as main

# A server may read the attribute more than once.
_app = functools.cache(create_app)


def __getattr__(name: str) -> Any:
    """Make `backend:app` when a server reads it, so that importing this file loads no framework."""
    if name == "app":
        return _app()
    raise AttributeError(f"module backend has no attribute {name}")


if __name__ == "__main__":
    cli.run(main)
