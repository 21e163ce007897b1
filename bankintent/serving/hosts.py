"""Which hosts and which web pages a request may name: a check against pages of other sites.

A page may have its own name resolved to this machine (DNS rebinding), or post a form here. Programs
name the host that they were told to ask, and no origin.
"""

import functools
import ipaddress
import logging
import re
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from bankintent.config import ServeConfig
from bankintent.serving import telemetry
from bankintent.serving.bound_server import SERVER
from bankintent.serving.error_bodies import refusal_response
from bankintent.serving.refusals import Foreign

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")
"""A Host header: a name or an address, the port after a colon."""

READING = ("GET", "HEAD", "OPTIONS")
"""Methods whose answers a browser keeps from pages of other origins."""

PROBES = "/health/"
"""Paths that may be asked by any name: probes name the address of a container."""

PORTS = {"http": "80", "https": "443"}
"""Ports that an origin need not name."""

FOREIGN_HOST = (
    "this API is not known by the host that the request names; where it is, add the host to"
    " allowed_hosts in serve.yaml"
)
FOREIGN_ORIGIN = (
    "a web page of another origin may not post here; where it may, add its origin to"
    " allowed_origins in serve.yaml"
)


class HostCheck:
    """Middleware that answers 403 to foreign hosts, and to posts of foreign web pages.

    Without `allowed_hosts` any host may be named where the server listens on more than loopback, or
    on a Unix socket: only what is in front of it knows its names.
    """

    def __init__(self, app: ASGIApp, settings: ServeConfig) -> None:
        self.app = app
        self.named = settings.allowed_hosts
        self.origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        self.local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._learn_address(scope)

        if scope["type"] == "http" and not scope["path"].startswith(PROBES):
            problem = self._problem(scope)
            if problem is not None:
                response = refusal_response(Foreign(problem))
                await response(scope, receive, send)
                return

        await self.app(scope, receive, send)

    def _learn_address(self, scope: Scope) -> None:
        """Learn where the server listens, which the command line of uvicorn may have set."""
        config = scope.get(SERVER)
        if config is None:
            return

        passed_on = config.uds is not None or config.fd is not None
        self.local = not passed_on and is_loopback(config.host)
        if self.named is None and not self.local:
            telemetry.start_logging()
            telemetry.log_event(
                "requests may name any host: set allowed_hosts to the names of this API",
                logging.WARNING,
            )

    def _problem(self, scope: Scope) -> str | None:
        """Why the request is refused; None where it is not."""
        # Of several the server has refused the request.
        headers = dict(scope["headers"])
        host = headers.get(b"host")

        # HTTP/1.0 needs none, and every browser sends one.
        checks_host = host is not None and self._checks_hosts(scope)
        named = (host or b"").decode("latin-1").lower()
        if checks_host and not self._may_name(named):
            return FOREIGN_HOST

        origin = headers.get(b"origin")
        checks_origin = origin is not None and scope["method"] not in READING
        posting = (origin or b"").decode("latin-1").lower()
        if checks_origin and not self._may_post(posting, named):
            return FOREIGN_ORIGIN
        return None

    def _checks_hosts(self, scope: Scope) -> bool:
        if self.named is not None:
            return "*" not in self.named

        # A server that was given its socket by another process may be reached from elsewhere too.
        address = scope.get("server")
        return self.local and address is not None and is_loopback(address[0])

    def _may_name(self, host: str) -> bool:
        match = HOST.fullmatch(host)
        if match is None:
            return False

        name = match[1].removesuffix(".")
        if is_loopback(name):
            return True
        return any(matches(name, allowed.lower()) for allowed in self.named or ())

    def _may_post(self, origin: str, host: str) -> bool:
        return origin in self.origins or is_own(origin, host)


# Every request asks it of the same few names.
@functools.lru_cache(maxsize=256)
def is_loopback(name: str | None) -> bool:
    """Whether a host, without its port, is this machine itself."""
    if not name:
        return False
    if name.lower() == "localhost":
        return True

    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def matches(name: str, allowed: str) -> bool:
    """Whether a host is an allowed one, or below one that begins with `*.`."""
    if allowed.startswith("*."):
        return name.endswith(allowed[1:])
    return name.strip("[]") == allowed.strip("[]")


def is_own(origin: str, host: str) -> bool:
    """Whether an origin is that of the Host header; both in lower case.

    The scheme is not compared: behind a proxy only the proxy speaks https.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False

    default = PORTS.get(parts.scheme)
    if default is None or not parts.netloc:
        return False
    return with_port(parts.netloc, default) == with_port(host, default)


def with_port(host: str, default: str) -> str:
    """A host with its port, also where that is the default."""
    match = HOST.fullmatch(host)
    if match is None:
        return host
    return f"{match[1]}:{match[2] or default}"
