"""Routes of the pages, which use the same service under the same limits as the API."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from bankintent.distribution import command
from bankintent.serving import wire
from bankintent.serving.addresses import base_of
from bankintent.serving.admission import check_key, classify, key_guards, service_of
from bankintent.serving.bounded import read_form
from bankintent.serving.error_bodies import openapi_responses
from bankintent.serving.explaining import explain
from bankintent.serving.page import card, wording
from bankintent.serving.page.shading import pieces_of
from bankintent.serving.refusals import Invalid, NotReady, Refusal
from bankintent.serving.service import Answer, Service
from bankintent.texts import is_blank

HERE = Path(__file__).parent

TOP_K = 5
"""Intents that the page shows for a text."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers would call the origin of a posted form null.
    "Referrer-Policy": "same-origin",
}
"""A page loads from this server only, and runs no script but its own: labels and cards are data."""

CARD_RESPONSES = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}},
    **openapi_responses(401, 503),
}
"""The second form of the answer of `/card`, which FastAPI cannot tell from its type."""

templates = Jinja2Templates(HERE)
templates.env.filters["breakable"] = wording.breakable
templates.env.filters["percent"] = wording.percent

page_router = APIRouter(include_in_schema=False)
card_router = APIRouter()


def add(app: FastAPI) -> None:
    """Add the pages and what they load to an app."""
    app.include_router(page_router)
    app.include_router(card_router, dependencies=key_guards(app))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")


def render_page(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """A template with the values of every page: the model, and whether a key is needed."""
    try:
        values["model"] = service_of(request).facts
        values["has_policy"] = service_of(request).policy is not None
    except NotReady:
        # The form is shown while the model is loading, with a note.
        values["model"] = None

    needs_key = request.app.state.key is not None
    # The names of intents are behind the key, where there is one.
    shows_labels = values["model"] is not None and not needs_key
    labels = values["model"].labels if shows_labels else ()

    values["base"] = base_of(request)
    values["can_explain"] = service_of(request).settings.limits.max_explained > 0
    values["placeholder"] = wording.placeholder(labels)
    values["needs_key"] = needs_key
    return templates.TemplateResponse(request, name, values, status_code=status, headers=HEADERS)


@page_router.get("/")
async def page(request: Request) -> Response:
    """The empty form."""
    return render_page(request, "page.html")


@page_router.post("/")
async def page_answer(request: Request) -> Response:
    """The form with its answer or with the reason of a refusal, under the API's status."""
    service = service_of(request)
    body = await request.body()
    text = ""

    try:
        form = read_form(body, service.settings.limits)
        text = form.get("text", "")
        # A form cannot send the Authorization header, so the key comes as one of its fields.
        check_key(request.app.state.key, form.get("key", ""))
        if is_blank(text):
            raise Invalid("Type a sentence first.")
        why = form.get("why") == "true"
        answer, reasons = await _answer(service, request, text, why)
    except Refusal as refusal:
        return render_page(request, "page.html", refusal.status, text=text, problem=str(refusal))

    result = wire.make_prediction(answer, service.facts, TOP_K)
    return render_page(request, "page.html", text=text, result=result, why=reasons)


async def _answer(
    service: Service, request: Request, text: str, why: bool
) -> tuple[Answer, dict[str, Any] | None]:
    """The answer to a text and, where they are asked for, the values of `why.html`."""
    if not why:
        answers = await classify(service, request, [text])
        return answers[0], None

    explained = await explain(service, request, [text])
    explanation = explained[0].explanation
    reasons = {
        "pieces": pieces_of(text, explanation.attributions),
        "neighbours": explanation.neighbours,
        "no_neighbours": explanation.no_neighbours,
    }
    return explained[0].answer, reasons


@page_router.get("/docs")
async def api_page(request: Request) -> Response:
    """The description of the API, to read and to try; it loads nothing from other servers."""
    base = base_of(request)
    # Where `FastAPIOffline` has its files.
    static = f"{base}static-offline-docs"
    return get_swagger_ui_html(
        openapi_url=f"{base}openapi.json",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=f"{static}/swagger-ui-bundle.js",
        swagger_css_url=f"{static}/swagger-ui.css",
        swagger_favicon_url=f"{static}/favicon.png",
    )


# This and `plot` are not async: FastAPI runs them in threads, and file access delays no request.
@card_router.get("/card", response_model=wire.Card, responses=CARD_RESPONSES, tags=["operations"])
def model_card(request: Request) -> Response:
    """The model card and the addresses of its plots.

    An HTML page for browsers (Accept: text/html), otherwise JSON.
    """
    service = service_of(request)
    facts = service.facts
    markdown = card.read_card(facts.folder)
    plots = plots_of(service)

    if "text/html" in request.headers.get("accept", ""):
        html = card.to_html(markdown)
        return render_page(
            request,
            "card.html",
            card=html,
            plots=plots,
            titles=card.PLOTS,
            eval_command=command("eval"),
        )

    base = base_of(request) or "/"
    addresses = {name: f"{base}card/{name}.png" for name in plots}
    body = wire.Card(name=facts.name, version=facts.version, markdown=markdown, plots=addresses)
    return JSONResponse(body.model_dump())


@card_router.get("/card/{name}.png", include_in_schema=False)
def plot(request: Request, name: str) -> Response:
    """One plot of the model's evaluation."""
    # The name only selects a known file: it never becomes part of a path.
    path = plots_of(service_of(request)).get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, media_type="image/png")


def plots_of(service: Service) -> dict[str, Path]:
    """The plots of the model's evaluation on test, or without one, of that on validation."""
    facts = service.facts

    # `python -m eval` names its folders so.
    for folder_name in (facts.name, f"{facts.name}-val"):
        plots = card.find_plots(service.settings.evals_dir / folder_name, facts.labels_hash)
        if plots:
            return plots

    return {}
