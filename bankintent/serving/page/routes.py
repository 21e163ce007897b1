"""Routes of the pages, which use the same service under the same limits as the API."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from bankintent.distribution import command
from bankintent.serving import info_bodies, wire
from bankintent.serving.addresses import base_of
from bankintent.serving.admission import check_key, classify, key_guards, served_by, using
from bankintent.serving.bounded import read_form
from bankintent.serving.error_bodies import openapi_responses
from bankintent.serving.explaining import explain
from bankintent.serving.page import card, wording
from bankintent.serving.page.shading import pieces_of
from bankintent.serving.refusals import Invalid, Refusal
from bankintent.serving.service import Answer, Service
from bankintent.texts import is_blank

HERE = Path(__file__).parent

MOST_NAMES = 1000
"""Names of models that the page offers; another one is typed into the address."""

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
    **openapi_responses(401, 404, 422, 503),
}
"""The second form of the answer of `/card`, which FastAPI cannot tell from its type."""

ModelName = Annotated[str | None, Query(alias="model", max_length=100)]
"""The name of a model in an address."""

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


def render_page(
    request: Request, name: str, status: int = 200, model: str | None = None, **values: Any
) -> Response:
    """A template with the values of every page: the model, and whether a key is needed.

    `model` is the name of the model, where there are several.
    """
    models = served_by(request)
    # The form is shown also while a model is loading, with a note: nothing is loaded for it.
    service = models.peek(model)
    values["model"] = None if service is None else service.facts
    values["has_policy"] = service is not None and service.policy is not None

    needs_key = request.app.state.key is not None
    # The names of intents and models are behind the key, where there is one.
    shows_labels = values["model"] is not None and not needs_key
    labels = values["model"].labels if shows_labels else ()

    settings = models.settings if service is None else service.settings
    values["base"] = base_of(request)
    values["can_explain"] = settings.limits.max_explained > 0
    values["placeholder"] = wording.placeholder(labels)
    values["needs_key"] = needs_key
    values["has_several"] = models.settings.has_several
    values["names"] = [] if needs_key else models.names()[:MOST_NAMES]
    values["chosen"] = model or ("" if needs_key else models.default or "")
    return templates.TemplateResponse(request, name, values, status_code=status, headers=HEADERS)


@page_router.get("/")
async def page(request: Request) -> Response:
    """The empty form, for the model that the address names."""
    return render_page(request, "page.html", model=request.query_params.get("model"))


@page_router.post("/")
async def page_answer(request: Request) -> Response:
    """The form with its answer or with the reason of a refusal, under the API's status."""
    body = await request.body()
    text = ""
    model = None

    try:
        form = read_form(body, served_by(request).settings.limits)
        text = form.get("text", "")
        model = form.get("model") or None
        # A form cannot send the Authorization header, so the key comes as one of its fields.
        check_key(request.app.state.key, form.get("key", ""))
        if is_blank(text):
            raise Invalid("Type a sentence first.")
        why = form.get("why") == "true"
        async with using(request, model) as service:
            answer, reasons = await _answer(service, request, text, why)
            result = wire.make_prediction(answer, service.facts, TOP_K)
    except Refusal as refusal:
        return render_page(
            request, "page.html", refusal.status, model, text=text, problem=str(refusal)
        )

    return render_page(request, "page.html", 200, model, text=text, result=result, why=reasons)


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


@card_router.get(
    "/card", response_model=info_bodies.Card, responses=CARD_RESPONSES, tags=["operations"]
)
async def model_card(request: Request, model: ModelName = None) -> Response:
    """The model card and the addresses of its plots; of several models, of the one that is named.

    An HTML page for browsers (Accept: text/html), otherwise JSON.
    """
    async with using(request, model) as service:
        facts = service.facts
        # In threads: file access delays no request.
        markdown = await run_in_threadpool(card.read_card, facts.folder)
        plots = await run_in_threadpool(plots_of, service)

    query = "" if model is None else f"?{urlencode({'model': model})}"
    if "text/html" in request.headers.get("accept", ""):
        html = await run_in_threadpool(card.to_html, markdown)
        return render_page(
            request,
            "card.html",
            model=model,
            card=html,
            plots=plots,
            titles=card.PLOTS,
            query=query,
            eval_command=command("eval"),
        )

    base = base_of(request) or "/"
    addresses = {name: f"{base}card/{name}.png{query}" for name in plots}
    body = info_bodies.Card(
        name=facts.name, version=facts.version, markdown=markdown, plots=addresses
    )
    return JSONResponse(body.model_dump())


@card_router.get("/card/{name}.png", include_in_schema=False)
async def plot(request: Request, name: str, model: ModelName = None) -> Response:
    """One plot of the model's evaluation."""
    async with using(request, model) as service:
        plots = await run_in_threadpool(plots_of, service)

    # The name only selects a known file: it never becomes part of a path.
    path = plots.get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, media_type="image/png")


def plots_of(service: Service) -> dict[str, Path]:
    """The plots of the model's evaluation on test, or without one, of that on validation."""
    facts = service.facts

    # `python -m eval` names its folders so.
    for folder_name in (service.folder_name, f"{service.folder_name}-val"):
        plots = card.find_plots(service.settings.evals_dir / folder_name, facts.labels_hash)
        if plots:
            return plots

    return {}
