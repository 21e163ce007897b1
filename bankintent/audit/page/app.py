"""The application behind the review page: its HTML, the rows as JSON, and one write at a time."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from bankintent import console
from bankintent.audit.page.book import Book
from bankintent.audit.review import Decision
from bankintent.config import ServeConfig
from bankintent.distribution import command
from bankintent.errors import UserError
from bankintent.serving.body_limit import BodyLimit
from bankintent.serving.error_bodies import error_response
from bankintent.serving.hosts import HostCheck

HERE = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Sentences may be customers' words: no copy stays in the browser.
    "Cache-Control": "no-store",
}
"""The page loads from this server only and runs no script but its own: sentences are data."""

MOST_BODY_BYTES = 20_000
"""Longest request body: an intent, and a note of some thousand characters."""

BODY_SECONDS = 10.0
"""Most seconds until a body has arrived."""

templates = Jinja2Templates(HERE)
router = APIRouter()


class Choice(BaseModel):
    """What is decided of a row."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(max_length=500)]
    decision: Annotated[str, Field(max_length=5000)]
    note: Annotated[str, Field(max_length=2000)] = ""


def create_app(book: Book, settings: ServeConfig) -> FastAPI:
    """The application for one audit; `settings` say on which host it listens."""
    app = FastAPI(title="bankintent label review", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.book = book
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")

    app.add_exception_handler(UserError, handle_mistake)
    app.add_exception_handler(RequestValidationError, handle_invalid)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=MOST_BODY_BYTES, seconds=BODY_SECONDS)
    return app


async def handle_mistake(request: Request, error: Exception) -> Response:
    """Exception handler: what a person can mend, such as a table that a spreadsheet has spoilt."""
    return error_response(409, "conflict", str(error))


async def handle_invalid(request: Request, error: Exception) -> Response:
    """Exception handler: an invalid body; nothing of it is repeated."""
    return error_response(422, "validation", "the decision is not of the expected form")


def book_of(request: Request) -> Book:
    """The book of the app that answers this request."""
    book = request.app.state.book
    assert isinstance(book, Book)
    return book


@router.get("/")
def page(request: Request) -> Response:
    """The page; its script fetches the rows."""
    book = book_of(request)
    values = {
        "name": book.name,
        "folder": console.show_path(book.folder),
        "apply_command": command("audit apply"),
    }
    return templates.TemplateResponse(request, "page.html", values, headers=HEADERS)


@router.get("/rows")
def rows(request: Request) -> Response:
    """Every row, the intents, and what is decided."""
    book = book_of(request)
    content = {
        "name": book.name,
        "intents": book.intents,
        "rows": [
            {
                "id": row.id,
                "text": row.text,
                "given": row.given,
                "suggested": row.suggested,
                "confidence": row.confidence,
                "given_confidence": row.given_confidence,
                "kind": row.kind,
                "split": row.split,
                "neighbours": [vars(near) for near in row.neighbours],
            }
            for row in book.rows
        ],
        "decisions": plain(book.read()),
    }
    return JSONResponse(content, headers=HEADERS)


# Not async: FastAPI runs it in a thread, and the file access delays no other request.
@router.post("/decide")
def decide(choice: Choice, request: Request) -> Response:
    """Write one decision; the answer has all decisions as they are on disk."""
    decisions = book_of(request).decide(choice.id, choice.decision, choice.note)
    return JSONResponse({"decisions": plain(decisions)}, headers=HEADERS)


def plain(decisions: dict[str, Decision]) -> dict[str, dict[str, str]]:
    """Decisions as JSON values."""
    return {row_id: vars(decided) for row_id, decided in decisions.items()}
