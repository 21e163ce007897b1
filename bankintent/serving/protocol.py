"""uvicorn's HTTP/1.1 protocol with bounds.

uvicorn bounds neither the size of headers nor the time for them, nor how many requests are sent
ahead of their answers. Its `limit_concurrency` would refuse probes too, and a connection that sends
nothing would keep its place.
"""

import asyncio
import json
import socket
import struct
import sys
import time
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from bankintent.serving import telemetry
from bankintent.serving.connections import (
    FRAMING,
    FULL,
    INVALID,
    LONG_HEAD,
    PIPELINED,
    SLOW_HEAD,
    UNREAD,
    Closing,
    Connections,
    Place,
)

CONNECTIONS = "bankintent.connections"
"""The key of the server's Connections in the state that its lifespan gives to protocols."""

LAG_SECONDS = 0.02
"""An event loop that is later than this is busy."""

TCP_INFO_BYTES = 56
"""Of the kernel's record of a connection (struct tcp_info in linux/tcp.h), what is read."""

LAST_DATA_RECEIVED = 52
"""Where in it the milliseconds since the last bytes came are."""

PART = 65536
"""Most bytes that are parsed before the next look at the bounds."""

MOST_HEADERS = 200
"""Headers of a request."""

MOST_AHEAD = 8
"""Requests that a client may send ahead of an answer. Browsers and clients of today send none."""

FRAMING_BYTES = 16
"""Bytes of chunk framing for each byte of a body, so that chunks of one byte are taken."""


class Breach(Exception):
    """A request that the server does not go on to read."""

    def __init__(self, closing: Closing) -> None:
        super().__init__(closing.reason)
        self.closing = closing


class BoundedProtocol(HttpToolsProtocol):
    """One connection within the bounds of a `Connections`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.bounds: Connections = app_state[CONNECTIONS]
        # As the register's: uvicorn's own is a whole number of seconds.
        self.timeout_keep_alive = self.bounds.limits.keep_alive_s
        self.place = Place.CLOSING
        self.drops = False
        """Whether everything that still comes is thrown away."""
        self.refused = False

        self.arrived = 0.0
        """When the first byte of the request came that is being read; 0 between two requests."""
        self.in_head = True
        self.messages = 0
        """Requests that were read to their end."""
        self.head_bytes = 0
        self.body_bytes = 0
        self.framing_bytes = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or say that there is none."""
        super().connection_made(transport)
        if self.bounds.admit(self):
            return

        self.bounds.count(FULL)
        self.bounds.linger(self)
        self._answer_and_drop(FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.bounds.forget(self)
        # Otherwise the timer would hold this object until it ends.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in parts between which the bounds are looked at."""
        if self.drops or self.transport.is_closing():
            return

        self._unset_keepalive_if_required()
        if not self.arrived:
            self.arrived = self._arrival()
        if self.place is Place.IDLE:
            self._settle()

        try:
            while data:
                part = data[: self._room()]
                data = data[len(part) :]
                self._parse(part)
        except Breach as breach:
            self.refuse(breach.closing)
        except httptools.HttpParserUpgrade:
            # Answered as plain HTTP/1.1. What comes after it may be of another protocol.
            self.cycle.keep_alive = False
            self.drops = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause.closing if isinstance(cause, Breach) else INVALID)

    def pause_writing(self) -> None:
        """The client does not read as fast as the answer comes."""
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        """The client has read most of what was buffered."""
        super().resume_writing()
        self._settle()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request, perhaps in the middle of what came."""
        super().on_message_begin()
        if not self.arrived:
            self.arrived = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; raises Breach for too many."""
        # A trailer, after the body, would change headers that were already looked at.
        if not self.in_head:
            return

        if len(self.headers) >= MOST_HEADERS:
            raise Breach(LONG_HEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request's task. Raises Breach where others may read the headers differently."""
        if len(self.pipeline) >= MOST_AHEAD:
            raise Breach(PIPELINED)
        self._check_head()

        self.in_head = False
        self.scope[telemetry.ARRIVED] = self.arrived  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body. Raises Breach for a long one that waits for other answers."""
        super().on_body(body)
        self.body_bytes += len(body)
        if self.pipeline and self.body_bytes > PART:
            raise Breach(PIPELINED)

    def on_message_complete(self) -> None:
        """The whole request has come."""
        super().on_message_complete()
        self.messages += 1
        self.arrived = 0.0
        self.in_head = True
        self.head_bytes = 0
        self.body_bytes = 0
        self.framing_bytes = 0
        self._settle()

    # What uvicorn calls.

    def on_response_complete(self) -> None:
        """The whole answer was given to the transport."""
        super().on_response_complete()
        self._settle()

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection."""
        super().timeout_keep_alive_handler()
        self._settle()

    def shutdown(self) -> None:
        """Close as soon as the answer that is under way has been sent."""
        self.bounds.draining = True
        super().shutdown()
        self._settle()

    def _should_upgrade_to_ws(self) -> bool:
        # The API has no WebSocket, and uvicorn's would have none of these bounds.
        return False

    # What the register of connections calls.

    def cut(self) -> None:
        """Close at once; whoever still works for this connection learns that the client is gone."""
        self.transport.abort()

    def expire(self) -> None:
        """End the wait of this place, which took too long."""
        if self.place is Place.SENDING:
            self._expire_sending()
        elif self.place is Place.STALLED:
            self.bounds.count(UNREAD)
            self.cut()
        elif self.place is Place.IDLE:
            self.transport.close()
            self._settle()
        else:
            self.cut()

    def refuse(self, closing: Closing) -> None:
        """Tell the client why the connection ends, where no other answer is under way."""
        self.bounds.count(closing)
        if not self._answers():
            self._answer_and_drop(closing)
        elif self.pipeline or self.cycle.response_started:
            self.cut()
        else:
            # To the app the client has gone: what it answers is not sent.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answer_and_drop(closing)

    # Parts of the above.

    def _arrival(self) -> float:
        """When the bytes came that were just read.

        The kernel is asked only where they may have waited: before the connection was accepted, or
        while the event loop was busy.
        """
        if self.cycle is None or self.bounds.lag > LAG_SECONDS:
            return arrival(self.transport)
        return time.monotonic()

    def _room(self) -> int:
        """Bytes that may be parsed before the next look at the bounds."""
        if self.in_head:
            return min(self.bounds.limits.max_header_bytes - self.head_bytes, PART)
        return PART

    def _parse(self, part: bytes) -> None:
        """Parse a part and count it. Raises Breach, or what the parser raises."""
        messages = self.messages
        was_in_head = self.in_head
        body_bytes = self.body_bytes
        self.parser.feed_data(part)

        # Where a request ended in this part, its successor is counted from the next part on.
        if self.messages != messages:
            return

        if self.in_head:
            self.head_bytes += len(part)
            if self.head_bytes >= self.bounds.limits.max_header_bytes:
                raise Breach(LONG_HEAD)
        elif not was_in_head:
            self.framing_bytes += len(part) - (self.body_bytes - body_bytes)
            allowed = self.bounds.limits.max_header_bytes + FRAMING_BYTES * self.body_bytes
            if self.framing_bytes > allowed:
                raise Breach(FRAMING)

    def _check_head(self) -> None:
        """Raise Breach for headers that RFC 9112 refuses and the parser takes."""
        version = self.parser.get_http_version()
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")

        if version == "1.0":
            # Section 6.1: nobody knows where such a body ends.
            valid = hosts <= 1 and b"transfer-encoding" not in names
        else:
            # Section 3.2: one Host, no more and no less.
            valid = version == "1.1" and hosts == 1
        if not valid or not self._has_plain_target():
            raise Breach(INVALID)

    def _has_plain_target(self) -> bool:
        """Whether the target is a path, or a whole address of the host that Host names."""
        if self.url.startswith(b"/") or self.url == b"*":
            return True

        target = self.url.partition(b"://")[2].partition(b"/")[0]
        return (b"host", target) in self.headers

    def _answers(self) -> bool:
        """Whether a request has come, whole or in part, whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _settle(self) -> None:
        """Tell the register what this connection waits for now."""
        if self.transport.is_closing() or self.refused:
            place = Place.CLOSING
        elif self.flow.write_paused:
            place = Place.STALLED
        elif self._answers() and self.in_head:
            place = Place.ANSWERING
        elif self._answers() or self.arrived:
            place = Place.SENDING
        else:
            place = Place.IDLE
        self.bounds.move(self, place)

    def _expire_sending(self) -> None:
        # The deadline of the request bounds the body of one that has no answer.
        if self._answers():
            return

        if self.in_head and self.arrived:
            self.refuse(SLOW_HEAD)
        else:
            # Nothing was asked, or a body goes on after its answer.
            self.bounds.count(SLOW_HEAD)
            self.cut()

    def _answer_and_drop(self, closing: Closing) -> None:
        """Send a refusal, and drop what comes: a client that still sends would not see it."""
        self.drops = True
        self.refused = True
        self._settle()
        self.transport.write(answer_bytes(closing))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


def arrival(transport: asyncio.Transport) -> float:
    """When the bytes came that were just read from a connection, by `time.monotonic`.

    Those of a new connection may have waited since before the server accepted it, and those of any
    other while the event loop was busy. Linux says for how long; other systems do not.
    """
    now = time.monotonic()
    if sys.platform != "linux":
        return now

    connection = transport.get_extra_info("socket")
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    except OSError:
        # A Unix socket has no such information.
        return now

    milliseconds: int = struct.unpack_from("=I", info, LAST_DATA_RECEIVED)[0]
    return now - milliseconds / 1000


def answer_bytes(closing: Closing) -> bytes:
    """The answer to a connection that is closed: a status, and the body of all errors."""
    body = json.dumps({"error": closing.message, "error_type": closing.reason}).encode()
    lines = [
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]
    if closing is FULL:
        lines.append(b"retry-after: 1")
    return STATUS_LINE[closing.status] + b"\r\n".join(lines) + b"\r\n\r\n" + body
