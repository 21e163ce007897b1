"""Serve the built documentation on loopback, and open it where there is a desktop: make docs."""

import contextlib
import functools
import os
import sys
import webbrowser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parents[2] / "site"
PORT = 8001


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: who reads pages needs no log of it."""


def main() -> None:
    """Serve the site until Ctrl+C; another process on its port is said in one line."""
    handler = functools.partial(Quiet, directory=str(SITE))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        sys.exit(f"error: port {PORT} is in use. End what listens there, and run make docs again.")

    address = f"http://127.0.0.1:{PORT}"
    print(f"The documentation is at {address}. Ctrl+C ends it.", flush=True)
    if has_desktop():
        webbrowser.open(address)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def has_desktop() -> bool:
    """Whether a browser would open a window: one in the terminal would be in the way."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    main()
