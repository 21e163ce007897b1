"""Bounds of connections, headers and deadlines, hosts and origins. Attacks: faults/connections.py."""

import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faults import connections as faults
from faults.connections import ask, attacked, head, post, status
from servers import ROOT, Server, running, serving

from bankintent.config import LimitsSection, ServeConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError
from bankintent.serving import admission, connections, hosts, protocol
from bankintent.serving.batching import Batcher, Bounds
from bankintent.serving.connections import LONG_HEAD, Connections, Place
from bankintent.serving.metrics import Metrics
from bankintent.serving.refusals import DeadlineExceeded

LONG = head("GET /info HTTP/1.1", "A: " + "a" * 40_000, "Connection: close")


def test_a_few_hostile_connections_shut_nobody_out() -> None:
    tally = faults.run(6)
    assert tally.tried == 6
    assert not tally.gave_way


@pytest.mark.proof
def test_no_hostile_connection_shuts_anybody_out() -> None:
    tally = faults.run(10_000)
    assert tally.tried > 90
    assert not tally.gave_way


def test_a_signal_ends_a_server_with_half_open_connections(tmp_path: Path) -> None:
    with attacked(tmp_path) as server:
        start = time.monotonic()
        assert faults.end_of(server, faults.HALF_OPEN["half a head"]) is None
        assert time.monotonic() - start < faults.LIMITS["shutdown_s"]


def test_closed_connections_are_counted_and_logged_without_a_line_each(tmp_path: Path) -> None:
    with attacked(tmp_path) as server:
        for _ in range(20):
            answer = ask(server, LONG)
            assert status(answer) == 431
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert body["error_type"] == "long_head"

        assert server.metric("bankintent_closed_connections_total") == 20
        # The metrics are asked for on a connection.
        assert server.metric("bankintent_connections") >= 1
        lines = [line for line in server.log.splitlines() if "connections closed" in line]
        assert len(lines) == 1
        assert json.loads(lines[0])["long_head"] == 1


def test_uvicorns_command_has_the_bounds_too(server: Server) -> None:
    assert status(ask(server, LONG)) == 431
    assert server.get("/info").json()["limits"]["max_connections"] == 1000


@pytest.mark.proof
def test_the_backends_command_has_the_bounds(tmp_path: Path, served_bundle: Path) -> None:
    command = [sys.executable, "-m", "backend", "--port", "{port}"]
    command += ["--model-dir", str(served_bundle), "--set", "threads=1"]
    with running(command, tmp_path, ready="/health/ready") as server:
        assert status(ask(server, LONG)) == 431


@pytest.mark.parametrize(
    ("soft", "hard", "fitting"),
    [(300, 300, (300 - connections.DESCRIPTORS) // 2), (300, 4000, 1000), (4000, 4000, 1000)],
)
def test_more_connections_than_files_are_not_promised(soft: int, hard: int, fitting: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.fail("this machine allows too few open files for the test")
    program = (
        "import resource\n"
        "from bankintent.serving.connections import fit_descriptors\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "fitting = fit_descriptors(1000, 2048)\n"
        "print(fitting, resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    connections_, files = map(int, done.stdout.split())
    assert connections_ == fitting
    assert files >= connections_ + connections.DESCRIPTORS


class FakeConnection:
    """A connection that only notes that it was closed."""

    def __init__(self) -> None:
        self.place = Place.CLOSING
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True

    def expire(self) -> None:
        self.is_cut = True


async def fill(register: Connections, *places: Place) -> list[FakeConnection]:
    """Connections in these places, the first the oldest."""
    made = []
    for place in places:
        connection = FakeConnection()
        assert register.admit(connection)
        register.move(connection, place)
        made.append(connection)
    return made


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0)


def register_of(most: int) -> Connections:
    return Connections(LimitsSection(max_connections=most), Metrics())


@pytest.mark.usefixtures("no_grace")
def test_a_flood_takes_places_from_its_own_kind_and_never_from_a_request_that_is_answered() -> None:
    async def scenario() -> None:
        register = register_of(5)
        held = await fill(
            register, Place.IDLE, Place.ANSWERING, Place.SENDING, Place.SENDING, Place.IDLE
        )
        register.move(held[4], Place.SENDING)
        await fill(register, Place.SENDING)
        assert [connection.is_cut for connection in held] == [False, False, True, False, False]
        assert register.open == 5

    asyncio.run(scenario())


def test_where_every_connection_waits_for_the_server_a_new_one_is_told_so() -> None:
    async def scenario() -> None:
        register = register_of(2)
        held = await fill(register, Place.ANSWERING, Place.ANSWERING)
        new = FakeConnection()
        assert not register.admit(new)
        register.linger(new)
        assert register.open == 3
        assert not any(connection.is_cut for connection in held)

        # Its request may have come and not been read yet.
        register.move(held[0], Place.SENDING)
        assert not register.admit(FakeConnection())

        register.forget(held[0])
        register.forget(new)
        assert register.open == 1
        assert register.admit(FakeConnection())

    asyncio.run(scenario())


@pytest.mark.usefixtures("no_grace")
def test_an_evicted_connection_does_not_come_back() -> None:
    async def scenario() -> None:
        register = register_of(1)
        (old,) = await fill(register, Place.SENDING)
        await fill(register, Place.SENDING)
        register.move(old, Place.IDLE)
        register.forget(old)
        assert register.open == 1
        register.count(LONG_HEAD)

    asyncio.run(scenario())


# Hosts and origins


def test_an_api_on_another_address_takes_any_host_and_says_so(tmp_path: Path) -> None:
    elsewhere = head("GET /info HTTP/1.1", "Connection: close", host="elsewhere.test")
    with serving(
        tmp_path, *faults.WAITING, "--host", "0.0.0.0", PYTHONPATH=faults.WAITING_PATH
    ) as server:
        assert status(ask(server, elsewhere)) == 200
        assert "set allowed_hosts" in server.log

        origin = "Origin: http://other.test"
        foreign = post(faults.BODY, origin, close=True, host="elsewhere.test")
        assert status(ask(server, foreign)) == 403


def test_named_hosts_and_origins_are_let_in_and_no_others(tmp_path: Path) -> None:
    settings = {
        "allowed_hosts": ["api.test", "*.apps.test"],
        "allowed_origins": ["https://pages.test"],
    }
    with attacked(tmp_path, **settings) as server:
        for host, expected in {
            "api.test": 200,
            "API.test:443": 200,
            "a.b.apps.test": 200,
            "apps.test": 403,
            "xapps.test": 403,
            "elsewhere.test": 403,
            "localhost": 200,
        }.items():
            request = head("GET /info HTTP/1.1", "Connection: close", host=host)
            assert status(ask(server, request)) == expected, host

        for origin, expected in {
            "https://pages.test": 200,
            "https://api.test": 200,
            "http://pages.test": 403,
            "https://apps.test": 403,
        }.items():
            request = post(faults.BODY, f"Origin: {origin}", close=True, host="api.test")
            answer = ask(server, request)
            assert status(answer) == expected, origin
            assert origin.encode() not in answer


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://api.test", "api.test", True),
        ("https://api.test", "api.test:443", True),
        ("https://api.test:8443", "api.test:8443", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://api.test", "api.test:443", False),
        ("http://api.test:8000", "api.test", False),
        ("http://user@api.test", "api.test", False),
        ("http://[::1", "[::1", False),
        ("null", "null", False),
        ("", "", False),
    ],
)
def test_an_origin_is_its_own_by_name_and_port(origin: str, host: str, own: bool) -> None:
    assert hosts.is_own(origin, host) is own


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("allowed_hosts=['https://api.test']", "without http:// and port"),
        ("allowed_hosts=['api.test:8000']", "without http:// and port"),
        ("allowed_origins=['api.test']", "such as https://example.org"),
        ("allowed_origins=['https://api.test/path']", "such as https://example.org"),
    ],
)
def test_what_is_no_host_or_origin_is_refused_at_the_start(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(ServeConfig, None, [override])


# Deadlines


class Asked:
    """A request whose client stays."""

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError


def test_an_answer_that_is_ready_after_the_deadline_is_not_given() -> None:
    async def blocks() -> str:
        # As a busy event loop does: no timer can run meanwhile.
        time.sleep(0.05)
        return "late"

    async def scenario() -> None:
        request: Any = Asked()
        with pytest.raises(DeadlineExceeded):
            await admission.in_time(blocks(), request, time.monotonic() + 0.01)
        result = await admission.in_time(blocks(), request, time.monotonic() + 60)
        assert result == "late"

    asyncio.run(scenario())


def test_a_text_whose_deadline_has_passed_is_not_computed() -> None:
    computed: list[int] = []

    def work(items: list[int]) -> list[int]:
        computed.extend(items)
        return items

    batcher = Batcher[int, int, int](list, work, bounds=Bounds(100, 4, 100))

    async def scenario() -> None:
        late = asyncio.create_task(batcher.run([1], time.monotonic() - 1))
        await asyncio.sleep(0)
        assert await batcher.run([2], time.monotonic() + 60) == [2]
        assert not late.done()
        late.cancel()

    asyncio.run(scenario())
    batcher.close()
    assert computed == [2]


def test_bytes_that_waited_for_a_busy_server_came_before_they_were_read() -> None:
    """Only Linux says how long they have waited."""
    waited: list[float] = []

    class Reader(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            waited.append(time.monotonic() - protocol.arrival(self.transport))
            self.transport.close()

    async def scenario() -> None:
        server = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(b"a")
            # The event loop is busy, and has not accepted the connection.
            time.sleep(0.3)
            while not waited:
                await asyncio.sleep(0.01)
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert waited[0] >= 0.25


def test_a_request_begins_with_its_first_byte(tmp_path: Path) -> None:
    request = post(faults.BODY, "X-Request-ID: slow-1", close=True)
    with attacked(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request[:20])
            time.sleep(0.5)
            client.sendall(request[20:])
            assert status(faults.read(client)) == 200
        line = next(line for line in server.log.splitlines() if "slow-1" in line)
        assert json.loads(line)["ms"] >= 450
