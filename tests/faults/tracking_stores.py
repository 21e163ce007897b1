"""Tracking stores that fail: dead, silent, slow and broken servers; files that are no databases.

A run must come to its end with one warning, and be held for little more than five seconds; what can
never work must be refused in one line before anything is computed. Each situation is a process of
its own, which must end too.
"""

import contextlib
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from faults.tally import Tally

REPOSITORY = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
BOUND = 150.0
"""Seconds in which a process must end. Most are its imports on a busy machine."""
HELD = 12.0
"""Seconds for which the run itself may be held, generous for a busy machine."""

WARNING = "warning: tracking stopped"
REFUSED = "refused: "

Make = Callable[[Path], AbstractContextManager[str]]
"""Makes a store in a folder and gives its URI."""


@dataclass(frozen=True)
class Situation:
    """One store, and how a run with it must end."""

    name: str
    store: Make
    ends: str
    """`warned`, `refused` or `tracked`."""
    in_run: str = ""
    """What the run does to its own store half-way: `lock`, `remove` or nothing."""


class Server(ThreadingHTTPServer):
    """A stand-in of MLflow's server that answers the first requests, and then as `fails` does."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing where a client has gone."""

    # Closing it must not wait for the handlers that hang.
    block_on_close = False

    def __init__(self, fails: Callable[["Answer"], None], good: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.fails = fails
        self.good = good
        self.count = 0
        self.closing = threading.Event()


RUN = {
    "info": {
        "run_id": "f" * 32,
        "run_uuid": "f" * 32,
        "experiment_id": "1",
        "status": "RUNNING",
        "artifact_uri": "mlflow-artifacts:/1/artifacts",
        "lifecycle_stage": "active",
    },
    "data": {},
}
EXPERIMENT = {
    "experiment_id": "1",
    "name": "bankintent",
    "artifact_location": "mlflow-artifacts:/1",
    "lifecycle_stage": "active",
}


class Answer(BaseHTTPRequestHandler):
    """The answer to one request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        self.server.count += 1
        if self.server.count > self.server.good:
            self.server.fails(self)
        else:
            self.succeed()

    do_GET = do_POST = do_PUT = do_PATCH = _any  # noqa: N815 (names of the library)

    def succeed(self) -> None:
        """Take the request, and say yes to whatever it was."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send({"experiment": EXPERIMENT, "experiment_id": "1", "run": RUN})

    def send(self, body: object, status: int = 200) -> None:
        """Send a whole answer."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def hang(answer: Answer) -> None:
    """Never answer."""
    answer.server.closing.wait(BOUND * 2)


def status(code: int) -> Callable[[Answer], None]:
    """Answer every request with one status."""

    def fail(answer: Answer) -> None:
        answer.rfile.read(int(answer.headers.get("Content-Length", 0)))
        answer.send({"error_code": "INTERNAL_ERROR", "message": "no"}, code)

    return fail


def drip(answer: Answer) -> None:
    """Answer without an end, a byte at a time."""
    answer.rfile.read(int(answer.headers.get("Content-Length", 0)))
    answer.send_response(200)
    answer.send_header("Content-Length", "1000000")
    answer.end_headers()
    with contextlib.suppress(OSError):
        while not answer.server.closing.wait(0.2):
            answer.wfile.write(b" ")
            answer.wfile.flush()


def drip_headers(answer: Answer) -> None:
    """Never come to the end of the headers."""
    with contextlib.suppress(OSError):
        answer.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not answer.server.closing.wait(0.2):
            answer.wfile.write(b"X-A: b\r\n" if random.random() < 0.1 else b"")
            answer.wfile.flush()


def close(answer: Answer) -> None:
    """Hang up."""
    answer.close_connection = True


def no_json(answer: Answer) -> None:
    """Answer as some other web server does."""
    answer.rfile.read(int(answer.headers.get("Content-Length", 0)))
    answer.send_response(200)
    answer.send_header("Content-Length", "15")
    answer.end_headers()
    answer.wfile.write(b"<html></html>\r\n")


def redirect(answer: Answer) -> None:
    """Send the client round in a circle."""
    answer.rfile.read(int(answer.headers.get("Content-Length", 0)))
    answer.send_response(307)
    answer.send_header("Location", answer.path)
    answer.send_header("Content-Length", "0")
    answer.end_headers()


def slow_upload(answer: Answer) -> None:
    """Take a file of megabytes in seven seconds; answer all else at once."""
    if answer.command != "PUT":
        answer.succeed()
        return
    length = int(answer.headers.get("Content-Length", 0))
    while length > 0:
        length -= len(answer.rfile.read(min(length, 600_000)))
        time.sleep(0.2 if length else 0)
    answer.send({})


def served(fails: Callable[[Answer], None], good: int = 0) -> Make:
    """A server on loopback whose requests after the first `good` ones fail."""

    @contextlib.contextmanager
    def make(folder: Path) -> Iterator[str]:
        server = Server(fails, good)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://me:pa55word@127.0.0.1:{server.server_port}"
        finally:
            server.closing.set()
            server.shutdown()
            server.server_close()

    return make


@contextlib.contextmanager
def dead_port(folder: Path) -> Iterator[str]:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield f"http://me:pa55word@127.0.0.1:{port}"


@contextlib.contextmanager
def full_backlog(folder: Path) -> Iterator[str]:
    """A port that takes no connection: nobody accepts, and the queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
        for filler in fillers:
            filler.close()


def uri(text: str) -> Make:
    """A URI as it stands."""
    return lambda folder: contextlib.nullcontext(text)


def file_store(write: Callable[[Path], object]) -> Make:
    """The URI of a database file that `write` makes."""

    def make(folder: Path) -> AbstractContextManager[str]:
        path = folder / "t" / "mlflow.db"
        path.parent.mkdir()
        write(path)
        return contextlib.nullcontext("sqlite:///t/mlflow.db")

    return make


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
    """A database of MLflow's that another program holds and does not let go."""
    path = folder / "t" / "mlflow.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("create table held (x)")
        connection.execute("begin exclusive")
        yield "sqlite:///t/mlflow.db"


def artifacts_in_the_way(folder: Path) -> AbstractContextManager[str]:
    """A good database, and a file where the folder of its files must be."""
    (folder / "runs").write_text("a file")
    return contextlib.nullcontext("sqlite:///t/mlflow.db")


def parent_is_a_file(folder: Path) -> AbstractContextManager[str]:
    """A file where the database's folder must be."""
    (folder / "t").write_text("a file")
    return contextlib.nullcontext("sqlite:///t/mlflow.db")


SERVERS = {
    "answers 500": status(500),
    "answers 503": status(503),
    "answers 429": status(429),
    "answers 401": status(401),
    "answers 404": status(404),
    "hangs": hang,
    "drips": drip,
    "drips headers": drip_headers,
    "hangs up": close,
    "is no MLflow": no_json,
    "redirects in a circle": redirect,
}

NEVER = {
    "unknown scheme": uri("nonsense://x"),
    "misspelt scheme": uri("htps://me:pa55word@host"),
    "no driver for PostgreSQL": uri("postgresql://me:pa55word@127.0.0.1:1/runs"),
    "no driver for MySQL": uri("mysql://me:pa55word@127.0.0.1:1/runs"),
    "no driver for SQL Server": uri("mssql+pyodbc://me:pa55word@127.0.0.1:1/runs"),
    "unknown driver": uri("postgresql+nothing://me:pa55word@127.0.0.1:1/runs"),
    "unclosed bracket": uri("http://[::1"),
    "no number as port": uri("http://me:pa55word@127.0.0.1:port"),
    "port too high": uri("http://me:pa55word@127.0.0.1:70000"),
    "no host": uri("http://"),
    "host of a file": uri("sqlite://mlflow.db"),
    "two slashes": uri("sqlite:/mlflow.db"),
    "a folder of files": uri("file:runs"),
    "a bare path": uri("runs"),
    "only blanks": uri("  "),
    "a folder": file_store(lambda path: path.mkdir()),
    "text": file_store(lambda path: path.write_text("this is no database")),
    "noise": file_store(lambda path: path.write_bytes(random.Random(0).randbytes(5000))),
    "cut header": file_store(lambda path: path.write_bytes(b"SQLite form")),
    "header and noise": file_store(
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\7" * 99)
    ),
    "a folder that takes no files": uri("sqlite:////proc/nothing/mlflow.db"),
    "a file as folder": parent_is_a_file,
    "a file for the files": artifacts_in_the_way,
}


def situations() -> list[Situation]:
    """All of them, those that differ most first."""
    found = [
        Situation("dead port", dead_port, "warned"),
        Situation("a slow upload", served(slow_upload), "tracked"),
        Situation("a good file", file_store(lambda path: None), "tracked"),
        Situation("an empty file", file_store(lambda path: path.touch()), "tracked"),
        Situation("locked from the start", locked, "warned"),
        Situation("locked in mid-run", file_store(lambda path: None), "warned", "lock"),
        Situation("removed in mid-run", file_store(lambda path: None), "warned", "remove"),
        Situation("full backlog", full_backlog, "warned"),
    ]
    found += [Situation(name, store, "refused") for name, store in NEVER.items()]
    for name, fails in SERVERS.items():
        found.append(Situation(f"a server {name}", served(fails), "warned"))
    # The whole run asks eleven times.
    for good in range(1, 11):
        found.append(Situation(f"hangs after {good}", served(hang, good), "warned"))
    for name, fails in SERVERS.items():
        for good in (3, 6, 8):
            found.append(Situation(f"{name} after {good}", served(fails, good), "warned"))
    return found


def run(count: int) -> Tally:
    """Try the first `count` situations."""
    tally = Tally("tracking_stores")
    for situation in situations()[:count]:
        tally.add(situation.name, attempt(situation))
    return tally


def attempt(situation: Situation) -> str | None:
    """Run with the store; what came out where the run did not end as it must."""
    with tempfile.TemporaryDirectory() as name, situation.store(Path(name)) as address:
        command = [sys.executable, __file__, address, situation.in_run]
        environment = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=name, env=environment, timeout=BOUND
            )
        except subprocess.TimeoutExpired:
            return f"had not ended after {BOUND:.0f} s"
    return judge(situation, done.returncode, done.stdout, done.stderr)


def judge(situation: Situation, code: int, out: str, err: str) -> str | None:
    """What is wrong with the end of a run; None where nothing is."""
    if "pa55word" in out + err:
        return f"the password was printed: {out + err}"
    if situation.ends == "refused":
        is_refused = code == 2 and out.startswith(REFUSED) and len(out.splitlines()) == 1
        return None if is_refused and not err else f"code {code}: {(out + err)[-300:]}"

    if code != 0 or "Traceback" in err:
        return f"code {code}: {(out + err)[-300:]}"
    warnings = out.count(WARNING)
    if warnings != (situation.ends == "warned"):
        return f"{warnings} warnings: {out[-300:]}"

    held = float(out.splitlines()[-1].removeprefix("held "))
    if situation.ends == "warned" and held > HELD:
        return f"held for {held:.1f} s"
    return None


def main(address: str, in_run: str) -> None:
    """A run as training makes it, without training: what `attempt` starts."""
    from bankintent import process, tracking
    from bankintent.config import TrackingConfig
    from bankintent.errors import UserError

    process.quiet_libraries()
    folder = Path("report")
    folder.mkdir()
    is_server = address.startswith("http")
    (folder / "plot.png").write_bytes(b"x" * (20_000_000 if is_server else 100))
    (folder / "report.md").write_text("text")

    try:
        config = TrackingConfig(uri=address, artifacts=Path("runs"))
        from bankintent import tracking_store

        tracking_store.require_usable(config)
    except (UserError, ValueError) as error:
        print(f"{REFUSED}{' '.join(str(error).split())}")
        sys.exit(2)

    # Imports are no fault of a store.
    import mlflow.store.tracking.rest_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    started = time.perf_counter()
    with tracking.run(config, "run", {"kind": "training"}) as tracker:
        tracker.params({"lr": 0.1, "lora": {"r": 4}})
        tracker.metrics({"loss": 1.0}, step=1)
        with halfway(in_run):
            tracker.metrics({"loss": 0.5}, step=2)
            tracker.files(folder, "report")
    print(f"held {time.perf_counter() - started:.1f}")


@contextlib.contextmanager
def halfway(in_run: str) -> Iterator[None]:
    """Do to the run's own database what the situation says."""
    path = Path("t/mlflow.db")
    if in_run == "lock":
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("begin exclusive")
            yield
        return
    if in_run == "remove":
        time.sleep(2)
        path.unlink()
        path.mkdir()
    yield


if __name__ == "__main__":
    main(*sys.argv[1:])
