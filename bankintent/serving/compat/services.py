"""The services whose clients the API can answer, by their names in serve.yaml."""

from collections.abc import Sequence

from fastapi import FastAPI

from bankintent.config import CompatName
from bankintent.serving.compat import clu, luis, rasa
from bankintent.serving.compat.dialect import Dialect, ErrorBodies

DIALECTS: dict[CompatName, Dialect] = {
    "rasa": rasa.DIALECT,
    "clu": clu.DIALECT,
    "luis": luis.DIALECT,
}
"""The name in serve.yaml -> the services whose requests are answered."""


def add(app: FastAPI, names: Sequence[CompatName]) -> None:
    """Add the routes of these services to an app, and the form of their errors.

    To be called after the app's own middleware is added: errors that it gives get the form too.
    """
    dialects = [DIALECTS[name] for name in names]

    for dialect in dialects:
        dialect.add_routes(app)

    app.add_middleware(ErrorBodies, dialects=dialects)
