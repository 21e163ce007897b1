"""Routes of the pages. They ask the same service under the same limits as the API does."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Request, Response
from starlette.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from bankintent.serving import wire
from bankintent.serving.admission import check_key, classify, need_key, the_service
from bankintent.serving.limits import Invalid, NotReady, Refusal
from bankintent.serving.page import card
from bankintent.serving.wire import refusals

HERE = Path(__file__).parent
TOP_K = 5
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
templates = Jinja2Templates(HERE)
ASKS_FOR_HTML = {"content": {"text/html": {"schema": {"type": "string"}}}}
router, guarded = APIRouter(include_in_schema=False), APIRouter()


def add(app: FastAPI) -> None:
    """Add the pages and what they load to an app."""
    app.include_router(router)
    app.include_router(guarded, dependencies=[Depends(need_key)] if app.state.key else [])
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")


def render(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """A template with what every page shows: the model's name and whether a key is needed."""
    try:
        values["model"] = the_service(request).facts
    except NotReady:
        values["model"] = None
    values["needs_key"] = request.app.state.key is not None
    return templates.TemplateResponse(request, name, values, status_code=status, headers=HEADERS)


@router.get("/")
async def page(request: Request) -> Response:
    """The empty form."""
    return render(request, "page.html")


@router.post("/")
async def page_answer(
    request: Request, text: Annotated[str, Form()] = "", key: Annotated[str, Form()] = ""
) -> Response:
    """The form with its answer, or with what is wrong; the status is the API's."""
    try:
        check_key(request.app.state.key, key)
        if not text.strip():
            raise Invalid("Type a sentence first.")
        answer = (await classify(request, [text]))[0]
    except Refusal as refusal:
        return render(request, "page.html", refusal.status, text=text, problem=str(refusal))
    facts = the_service(request).facts
    result = wire.prediction(answer.logits, answer.truncated, facts, TOP_K)
    return render(request, "page.html", text=text, result=result)


@guarded.get(
    "/card",
    response_model=wire.Card,
    responses={200: ASKS_FOR_HTML, **refusals(401, 503)},
    tags=["operations"],
)
def model_card(request: Request) -> Response:
    """The model card and the addresses of its plots: as a page for browsers (Accept: text/html), else as JSON."""
    facts, markdown = the_service(request).facts, card.read_card(the_service(request).facts.folder)
    plots = {name: f"/card/{name}.png" for name in the_plots(request)}
    if "text/html" in request.headers.get("accept", ""):
        return render(
            request, "card.html", card=card.to_html(markdown), plots=plots, titles=card.PLOTS
        )
    return JSONResponse(
        {"name": facts.name, "version": facts.version, "markdown": markdown, "plots": plots}
    )


@guarded.get("/card/{name}.png", include_in_schema=False)
def plot(request: Request, name: str) -> Response:
    """One plot of the model's evaluation."""
    path = the_plots(request).get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, media_type="image/png")


def the_plots(request: Request) -> dict[str, Path]:
    """The plots of the model's evaluation on test, else on validation."""
    service = the_service(request)
    folders = (
        service.settings.evals_dir / service.facts.name,
        service.settings.evals_dir / f"{service.facts.name}-val",
    )
    return next(
        filter(None, (card.find_plots(folder, service.facts.labels_hash) for folder in folders)), {}
    )
