"""Serves the review page on loopback until it is ended."""

import contextlib
from pathlib import Path

from bankintent import console, files, ports
from bankintent.audit.page.app import create_app
from bankintent.audit.page.book import Book
from bankintent.config import ServeConfig
from bankintent.distribution import command

HOST = "127.0.0.1"
"""The page is for the person at this machine: it shows customers' words and asks for no key."""


def serve(folder: Path, port: int) -> None:
    """Serve the page of an audit; DataError where the folder is none.

    Nobody else may write the folder meanwhile: not another page, and not a new audit.
    """
    # Late, because a wrong folder should be said at once.
    import uvicorn

    from bankintent.serving import own_server

    book = Book(folder)
    sockets = ports.bind(HOST, port)

    with files.exclusive(folder):
        decided = len(book.read())
        console.say(f"{len(book.rows):,} rows to review, {decided:,} decided so far.")
        console.say(f"The page is at http://{HOST}:{port}/ and Ctrl+C ends it.")
        app = create_app(book, ServeConfig(host=HOST, port=port))
        # Ctrl+C is how the page is ended, which is no interruption of anything.
        with contextlib.suppress(KeyboardInterrupt):
            own_server.run(
                uvicorn.Config(app, host=HOST, port=port, access_log=False, log_level="warning"),
                sockets,
            )
    console.say(f"Next: {command('audit apply')} {console.show_path(folder)}")
