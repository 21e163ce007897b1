"""Hostile connections to a server process: floods of headers, of connections and of requests, slow
and silent clients, forged framing, foreign hosts and origins.

What must hold: a good client is answered all the while, the server's memory grows by a bounded
amount, the attack ends by itself, and the server goes on.
"""

import contextlib
import json
import resource
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from servers import ROOT, Server, serving

from faults.tally import Tally

LIMITS = {
    "deadline_s": 4,
    "shutdown_s": 8,
    "header_s": 1,
    "keep_alive_s": 2,
    "answer_s": 1,
    "max_connections": 100,
}
"""Short, so that a situation takes seconds."""

DESCRIPTORS = 400
"""Of the server, so that a flood of a few hundred connections would shut others out."""

FLOOD = 500
"""Connections of a flood: more than the server's limit, and more than its descriptors."""

MOST_GROWTH = 60_000_000
"""Bytes by which an attack may make the server grow."""

GOOD_SECONDS = 5
"""Longest wait of the good client, generous for a busy machine."""

END_SECONDS = 6
"""Longest wait for the server to end what is limited to 1 or 2 s above."""

WAITING = ("--factory", "serving_fixtures:waiting_app")
WAITING_PATH = f"{ROOT}:{ROOT / 'tests'}"

Fault = str | None
Situation = Callable[[Server], Fault]
BODY = b'{"text": "yes"}'


def run(count: int) -> Tally:
    """Try at most `count` situations."""
    tally = Tally("connections")
    chosen = situations()[:count]

    with tempfile.TemporaryDirectory() as folder, attacked(Path(folder)) as server:
        for name, situation in chosen:
            tally.add(name, hold(server, situation))

    if count > len(chosen):
        for name, ending in ENDINGS.items():
            with tempfile.TemporaryDirectory() as folder, attacked(Path(folder)) as server:
                tally.add(name, end_of(server, ending))
    return tally


@contextlib.contextmanager
def attacked(folder: Path, **settings: object) -> Iterator[Server]:
    """A server with short limits and few descriptors."""
    config = {"limits": LIMITS, **settings}
    with serving(folder, *WAITING, config=config, PYTHONPATH=WAITING_PATH) as server:
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
        yield server


def hold(server: Server, situation: Situation) -> Fault:
    """What gave way in a situation, if anything did."""
    if server.process.poll() is not None:
        return "the server has ended"

    before = peak_or_now(server)
    fault: Fault
    with GoodClient(server) as good:
        try:
            fault = situation(server)
        except OSError as error:
            fault = f"{type(error).__name__}: {error}"

    growth = peak_or_now(server) - before
    if good.fault:
        return f"the good client: {good.fault}"
    if growth > MOST_GROWTH:
        return f"the server grew by {growth / 1e6:.0f} MB"
    return fault or after(server)


def after(server: Server) -> Fault:
    """What is wrong with the server after an attack."""
    if "Traceback" in server.log:
        return "the log has a traceback"
    return None if good_answer(server) else "no answer after the attack"


def peak_or_now(server: Server) -> int:
    """Bytes of the server's memory: the most since the last call."""
    folder = Path(f"/proc/{server.process.pid}")
    line = next(
        line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM")
    )
    (folder / "clear_refs").write_text("5")
    return int(line.split()[1]) * 1024


class GoodClient:
    """A client that asks every few moments, each time on a connection of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.fault: Fault = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def __enter__(self) -> "GoodClient":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()

    def ask(self) -> None:
        while not self.stop.is_set() and self.fault is None:
            started = time.monotonic()
            got = good_status(self.server)
            if got != 200:
                self.fault = f"status {got} after {time.monotonic() - started:.1f} s"
            self.stop.wait(0.05)


def good_answer(server: Server) -> bool:
    return good_status(server) == 200


def good_status(server: Server) -> int:
    """What a client gets that tries again where the server tells it to; 0 for no answer."""
    end = time.monotonic() + GOOD_SECONDS
    answer = b""
    while time.monotonic() < end:
        try:
            answer = ask(server, post(BODY, close=True), GOOD_SECONDS)
        except OSError:
            return 0
        if b"connections_full" not in answer:
            break
        time.sleep(0.2)
    return status(answer)


# Sockets


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=GOOD_SECONDS)


def ask(server: Server, data: bytes, seconds: float = END_SECONDS) -> bytes:
    """Send bytes and read until the server closes the connection or says nothing for `seconds`."""
    with connect(server) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        return read(client, seconds)


def read(client: socket.socket, seconds: float = END_SECONDS) -> bytes:
    """What the server sends until it closes; a reset counts as the end."""
    client.settimeout(seconds)
    received = b""
    with contextlib.suppress(OSError):
        while part := client.recv(65536):
            received += part
    return received


def ends(client: socket.socket, seconds: float = END_SECONDS) -> bool:
    """Whether the server closes a connection within these seconds."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def taken(client: socket.socket, piece: bytes, times: int) -> int:
    """Bytes that the server takes of these pieces before it ends the connection or stops reading."""
    client.settimeout(1)
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(times):
            sent += client.send(piece)
            readable, _, _ = select.select([client], [], [], 0)
            if readable:
                break
    return sent


def head(line: str, *headers: str, host: str | None = "127.0.0.1") -> bytes:
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([line, *hosts, *headers, "", ""]).encode("latin-1")


def post(body: bytes, *headers: str, close: bool = False, host: str = "127.0.0.1") -> bytes:
    more = ["Connection: close"] if close else []
    lines = ["Content-Type: application/json", f"Content-Length: {len(body)}", *more, *headers]
    return head("POST /predict/ HTTP/1.1", *lines, host=host) + body


def status(answer: bytes) -> int:
    """The status of an answer; 0 where there is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/1.1 ") else 0


# Heads


HEADS = {
    "one endless header": (b"A: ", b"a" * 65536),
    "endless headers": (b"", b"A: b\r\n" * 10_000),
    "an endless name of a header": (b"", b"a" * 65536),
    "empty lines before the request": (None, b"\r\n" * 30_000),
}


def endless_head(start: bytes | None, piece: bytes) -> Situation:
    def situation(server: Server) -> Fault:
        with connect(server) as client:
            if start is not None:
                client.sendall(b"GET /info HTTP/1.1\r\nHost: 127.0.0.1\r\n" + start)
            sent = taken(client, piece, 1000)
            answer = read(client)
        # What the kernel's buffers take is not read.
        if sent > 20_000_000:
            return f"{sent / 1e6:.0f} MB were taken"
        return None if status(answer) in (0, 431) else f"status {status(answer)}"

    return situation


def endless_line(server: Server) -> Fault:
    with connect(server) as client:
        client.sendall(b"GET /")
        sent = taken(client, b"a" * 65536, 1000)
    return f"{sent / 1e6:.0f} MB were taken" if sent > 20_000_000 else None


def long_head(server: Server) -> Fault:
    answer = ask(server, head("GET /info HTTP/1.1", "A: " + "a" * 100_000, "Connection: close"))
    return None if status(answer) == 431 else f"status {status(answer)}"


def usual_head(server: Server) -> Fault:
    """What browsers and proxies send: a few kilobytes of cookies."""
    answer = ask(server, head("GET /info HTTP/1.1", "Cookie: " + "a" * 12_000, "Connection: close"))
    return None if status(answer) == 200 else f"status {status(answer)}"


# Time


def silent(server: Server) -> Fault:
    with connect(server) as client:
        return None if ends(client) else "still open"


def trickle(start: bytes, piece: bytes) -> Situation:
    """A byte now and then, for ever."""

    def situation(server: Server) -> Fault:
        with connect(server) as client:
            client.sendall(start)
            end = time.monotonic() + END_SECONDS
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < end:
                    client.sendall(piece)
                    readable, _, _ = select.select([client], [], [], 0.2)
                    if readable:
                        return None
                return "still open"
        return None

    return situation


def idle(server: Server) -> Fault:
    with connect(server) as client:
        client.sendall(post(BODY))
        return None if ends(client) else "still open"


def unread(server: Server) -> Fault:
    """Clients that ask for much and read nothing must not be kept."""
    before = sockets_of(server)
    line = "GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1"
    request = head(line)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            stack.enter_context(client)
            client.sendall(request)
        time.sleep(0.5)
        end = time.monotonic() + END_SECONDS
        while time.monotonic() < end:
            if sockets_of(server) <= before + 2:
                return None
            time.sleep(0.1)
    return f"{sockets_of(server) - before} are still open"


def sockets_of(server: Server) -> int:
    folder = Path(f"/proc/{server.process.pid}/fd")
    found = 0
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            found += str(file.readlink()).startswith("socket")
    return found


# Numbers


def flood(request: bytes) -> Situation:
    """More connections than the server takes, each of which sends this and no more."""

    def situation(server: Server) -> Fault:
        with contextlib.ExitStack() as stack:
            for _ in range(FLOOD):
                client = socket.socket()
                stack.enter_context(client)
                client.settimeout(GOOD_SECONDS)
                with contextlib.suppress(OSError):
                    client.connect(("127.0.0.1", server.port))
                    client.sendall(request)
            time.sleep(0.3)
            return None if good_answer(server) else "no answer while they are open"

    return situation


def pipeline(server: Server) -> Fault:
    requests = head("GET /health/live HTTP/1.1") * 20_000
    with connect(server) as client:
        client.settimeout(2)
        with contextlib.suppress(OSError):
            client.sendall(requests)
        time.sleep(0.5)
    return None


def modest_pipeline(server: Server) -> Fault:
    requests = head("GET /health/live HTTP/1.1") * 4
    last = head("GET /health/live HTTP/1.1", "Connection: close")
    answer = ask(server, requests + last)
    count = answer.count(b"HTTP/1.1 200")
    return None if count == 5 else f"{count} of 5 answers"


def pipelined_body(server: Server) -> Fault:
    """A body without end behind a request that waits for the model."""
    file = server.log_file.parent / "hold"
    file.touch()
    try:
        with connect(server) as client:
            client.sendall(post(BODY))
            client.sendall(head("POST /predict/ HTTP/1.1", "Content-Length: 500000000"))
            sent = taken(client, b"a" * 65536, 2000)
    finally:
        file.unlink()
    return f"{sent / 1e6:.0f} MB were taken" if sent > 20_000_000 else None


def chunks(start: bytes, piece: bytes) -> Situation:
    """A chunked body with framing without end."""

    def situation(server: Server) -> Fault:
        with connect(server) as client:
            client.sendall(head("POST /predict/ HTTP/1.1", "Transfer-Encoding: chunked") + start)
            sent = taken(client, piece, 2000)
        return f"{sent / 1e6:.0f} MB were taken" if sent > 20_000_000 else None

    return situation


def invalid_flood(server: Server) -> Fault:
    before = len(server.log.splitlines())
    for _ in range(200):
        ask(server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    lines = len(server.log.splitlines()) - before
    # Those of the good client are among them.
    others = [line for line in server.log.splitlines()[before:] if "POST" not in line]
    return f"{len(others)} of {lines} log lines for 200 requests" if len(others) > 20 else None


# Framing


SMUGGLED = b"GET /info HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

FRAMINGS = {
    "two equal lengths": (["Content-Length: 3", "Content-Length: 3"], b"abc"),
    "two lengths": (["Content-Length: 0", "Content-Length: 3"], b"abc"),
    "a list of lengths": (["Content-Length: 3, 3"], b"abc"),
    "a signed length": (["Content-Length: +3"], b"abc"),
    "an overflowing length": (["Content-Length: 18446744073709551619"], b"abc"),
    "a length and chunks": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "chunks and a length": (["Transfer-Encoding: chunked", "Content-Length: 5"], b"0\r\n\r\n"),
    "two encodings": (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "chunks that are not last": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    "nearly chunks": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "a space before the colon": (["Transfer-Encoding : chunked"], b"0\r\n\r\n"),
    "a folded header": (["A: b\r\n Transfer-Encoding: chunked"], b""),
    "a bare line feed": (["A: b\nTransfer-Encoding: chunked"], b"0\r\n\r\n"),
    "a zero byte": (["A: b\0c"], b""),
    "a negative chunk": (["Transfer-Encoding: chunked"], b"-1\r\n\r\n"),
    "an overflowing chunk": (["Transfer-Encoding: chunked"], b"10000000000000003\r\nabc\r\n"),
    "two hosts": (["Host: elsewhere.test", "Content-Length: 0"], b""),
}


def framing(headers: list[str], body: bytes, version: str = "1.1") -> Situation:
    """A request that two servers might cut differently: it is refused, and nothing after it read."""

    def situation(server: Server) -> Fault:
        request = head(f"POST /predict/ HTTP/{version}", *headers) + body
        answer = ask(server, request + SMUGGLED)
        if b"HTTP/1.1 200" in answer:
            return "what came after it was answered"
        return None if status(answer) == 400 else f"status {status(answer)}"

    return situation


FORMS = {
    "HTTP/1.0": (b"GET /health/live HTTP/1.0\r\n\r\n", {200}),
    "HTTP/0.9": (b"GET /info\r\n\r\n", {400}),
    "HTTP/2 by surprise": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "no host": (b"GET /info HTTP/1.1\r\n\r\n", {400}),
    "an address as the target": (head("GET http://127.0.0.1/info HTTP/1.1"), {200}),
    "another's address as the target": (head("GET http://elsewhere.test/info HTTP/1.1"), {400}),
    "a star": (head("OPTIONS * HTTP/1.1"), {400, 404, 405}),
    "a tunnel": (head("CONNECT elsewhere.test:443 HTTP/1.1"), {400, 404, 405}),
    "a zero byte in the path": (b"GET /a\0b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "bytes beyond ASCII in the path": (head("GET /\xff\xfe HTTP/1.1"), {400, 404}),
    "a broken escape": (head("GET /%zz%ff HTTP/1.1"), {404}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "a WebSocket": (
        head(
            "GET /info HTTP/1.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ),
        {200},
    ),
    "an upgrade to HTTP/2": (
        head("GET /info HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
        {200},
    ),
    "an expectation that is not met": (
        head("POST /predict/ HTTP/1.1", "Expect: 100-continue", "Content-Length: 15"),
        {100},
    ),
}


def form(request: bytes, statuses: set[int]) -> Situation:
    def situation(server: Server) -> Fault:
        answer = ask(server, request)
        return None if status(answer) in statuses else f"status {status(answer)}"

    return situation


# Hosts and origins


FOREIGN_HOSTS = (
    "elsewhere.test",
    "elsewhere.test:{port}",
    "127.0.0.1.elsewhere.test",
    "localhost.elsewhere.test",
    "elsewhere.test.",
    "127.0.0.1@elsewhere.test",
    "192.0.2.1",
    "[2001:db8::1]:{port}",
    "[::1",
    "127.0.0.1:port",
    "",
)
OWN_HOSTS = (
    "localhost",
    "LOCALHOST:{port}",
    "localhost.",
    "127.0.0.1:1234",
    "127.0.0.1",
    "127.8.9.10",
    "[::1]:{port}",
    "[::1]",
)


def host(name: str, expected: int) -> Situation:
    def situation(server: Server) -> Fault:
        named = name.format(port=server.port)
        for request in (
            head("GET /info HTTP/1.1", "Connection: close", host=named),
            post(BODY, close=True, host=named),
        ):
            answer = ask(server, request)
            if status(answer) != expected:
                return f"status {status(answer)}"
        probe = ask(server, head("GET /health/ready HTTP/1.1", "Connection: close", host=named))
        return None if status(probe) == 200 else f"the probe: status {status(probe)}"

    return situation


FOREIGN_ORIGINS = (
    "http://elsewhere.test",
    "https://elsewhere.test:{port}",
    "http://127.0.0.1.elsewhere.test:{port}",
    "http://127.0.0.1:1",
    "http://127.0.0.1",
    "http://localhost:{port}",
    "null",
    "file://",
    "127.0.0.1:{port}",
    "",
)


def origin(name: str, expected: int) -> Situation:
    def situation(server: Server) -> Fault:
        line = f"Origin: {name}".format(port=server.port)
        answer = ask(server, post(BODY, line, close=True, host=f"127.0.0.1:{server.port}"))
        if status(answer) != expected:
            return f"status {status(answer)}"
        if expected == 200:
            return None
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        return None if body.keys() == {"error", "error_type"} else "another body"

    return situation


# Ends


HALF_OPEN = {
    "nothing": b"",
    "half a head": b"POST /predict/ HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "half a body": post(BODY)[:-5],
    "a request": post(BODY),
}

UNREAD = head("GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1")

ENDINGS = {
    **{f"a signal while clients have sent {name}": data for name, data in HALF_OPEN.items()},
    "a signal while clients do not read": UNREAD,
}


def end_of(server: Server, data: bytes) -> Fault:
    """The process ends by itself, with its own code, while such clients are connected."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = socket.socket()
            stack.enter_context(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(data)
        time.sleep(0.3)

        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(LIMITS["shutdown_s"] + 3)
        except TimeoutError:
            return "it did not end"
    return "it was cut off" if '"cut off"' in server.log else None


def situations() -> list[tuple[str, Situation]]:
    """Every situation but the ends, the quick ones first."""
    port = "{port}"
    found: list[tuple[str, Situation]] = [
        ("one header of 100 kB", long_head),
        ("a flood of half-open connections", flood(b"POST /predict/ HTTP/1.1\r\n")),
        ("silence", silent),
        ("a few requests in a row", modest_pipeline),
        ("thousands of requests in a row", pipeline),
        ("cookies of 12 kB", usual_head),
    ]
    found += [(f"host {name!r}", host(name, 403)) for name in FOREIGN_HOSTS]
    found += [(f"host {name!r}", host(name, 200)) for name in OWN_HOSTS]
    found += [(f"origin {name!r}", origin(name, 403)) for name in FOREIGN_ORIGINS]
    found += [("its own origin", origin(f"http://127.0.0.1:{port}", 200))]
    found += [(name, framing(headers, body)) for name, (headers, body) in FRAMINGS.items()]
    found += [
        ("chunks in HTTP/1.0", framing(["Transfer-Encoding: chunked"], b"0\r\n\r\n", version="1.0"))
    ]
    found += [(name, form(request, statuses)) for name, (request, statuses) in FORMS.items()]
    found += [(name, endless_head(start, piece)) for name, (start, piece) in HEADS.items()]
    found += [
        ("an endless request line", endless_line),
        ("a slow head", trickle(b"GET /info HTTP/1.1\r\n", b"a")),
        ("a slow request line", trickle(b"G", b"E")),
        ("slow empty lines", trickle(b"", b"\r\n")),
        ("a slow body", trickle(post(BODY)[:-12], b"a")),
        (
            "slow chunks",
            trickle(head("POST / HTTP/1.1", "Transfer-Encoding: chunked"), b"1\r\na\r\n"),
        ),
        ("an idle connection", idle),
        ("answers that nobody reads", unread),
        ("a flood of silent connections", flood(b"")),
        ("a flood of slow bodies", flood(post(BODY)[:-5])),
        ("a flood of idle connections", flood(post(BODY))),
        ("a flood of unread answers", flood(UNREAD)),
        ("a body behind a request that waits", pipelined_body),
        ("an endless chunk extension", chunks(b"3;", b"a" * 65536)),
        ("endless trailers", chunks(b"3\r\nabc\r\n0\r\n", b"A: b\r\n" * 10_000)),
        ("one endless trailer", chunks(b"3\r\nabc\r\n0\r\nA: ", b"a" * 65536)),
        ("a flood of what is not HTTP", invalid_flood),
    ]
    return found
