"""Before the router: the prefix that a proxy adds to addresses, and HEAD."""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Prefix:
    """Middleware that finds the path of a route whatever a proxy in front does with its prefix.

    The prefix is `root_path`, from the settings or from the server (`uvicorn --root-path`). A proxy
    may strip it or keep it, and uvicorn puts it before a path that may have it already: inside,
    `path` has it exactly once, as ASGI says.
    """

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = self.root_path or scope.get("root_path", "")
        if scope["type"] == "http" and given:
            root = given.rstrip("/")
            rest = without_prefix(without_prefix(scope["path"], root), root)
            # A prefix with a slash at its end makes two of them.
            scope["path"] = f"{root}/{rest.lstrip('/')}"
            scope["root_path"] = root
        await self.app(scope, receive, send)


class HeadAsGet:
    """Middleware that routes HEAD as GET: the same status and headers.

    The server leaves out the body, as ASGI asks of it; logs and metrics count a HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_as_head(message: Message) -> None:
            # The route is found by now, and the server reads the method when it sends.
            scope["method"] = "HEAD"
            await send(message)

        scope["method"] = "GET"
        try:
            await self.app(scope, receive, send_as_head)
        finally:
            scope["method"] = "HEAD"


def without_prefix(path: str, root: str) -> str:
    """A path without a prefix of whole segments."""
    if path == root or path.startswith(f"{root}/"):
        return path[len(root) :]
    return path


def route_path(scope: Scope) -> str:
    """The path of a request as the routes have it, without the prefix of a proxy."""
    return without_prefix(scope["path"], scope.get("root_path", ""))


def base_of(request: Request) -> str:
    """What a link of a page begins with: the prefix and a slash, empty where none is known.

    A link without it is relative. So it also works behind a proxy that strips a prefix of which
    this process knows nothing, as long as the page's own address ends in a slash.
    """
    root = request.scope.get("root_path", "")
    return f"{root}/" if root else ""
