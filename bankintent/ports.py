"""The port that a command listens on: taken before anything else, or refused in one line."""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any

from bankintent.errors import UserError

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, canonical name and address, as getaddrinfo gives them."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that hold a port of this machine, one for each address of a host.

    Nobody can connect before a server listens on them. Raises UserError where the port is in use or
    must not be opened, or where the host is no address of this machine.
    """
    sockets: list[socket.socket] = []
    try:
        _bind_all(host, port, sockets)
    except OSError as error:
        close(sockets)
        raise refused(error, host, port) from None
    return sockets


def require_free(host: str, port: int) -> None:
    """Raise UserError as `bind` does, and hold nothing: for a server that opens the port itself."""
    close(bind(host, port))


def close(sockets: Iterable[socket.socket]) -> None:
    """Close each of them."""
    for opened in sockets:
        opened.close()


def _bind_all(host: str, port: int, sockets: list[socket.socket]) -> None:
    """Add a socket for each address of the host; OSError where none can be had or one is in use."""
    absent = None
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A host may have an address twice.
    for found in dict.fromkeys(infos):
        try:
            sockets.append(_bind_one(found))
        except OSError as error:
            # `localhost` has an address of IPv6 also where the machine has none.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            absent = error
    if absent is not None and not sockets:
        raise absent


def _bind_one(found: AddressInfo) -> socket.socket:
    family, kind, protocol, _, address = found
    opened = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # The port of a server that has just ended is free.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The same port of IPv4 is a socket of its own.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def refused(error: OSError, host: str, port: int) -> UserError:
    """The error of a port that cannot be opened, in one line."""
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} is in use", "Name another one with --port")
    if error.errno == errno.EACCES:
        return UserError(
            f"port {port} cannot be used ({error.strerror})", "Name one from 1024 on with --port"
        )
    return UserError(
        f"port {port} of {host} cannot be used ({error.strerror})",
        "Name another host with --set host=..., or another port with --port",
    )
