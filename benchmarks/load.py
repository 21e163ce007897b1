"""A load generator that costs little itself: some clients on kept connections, no client library.

It runs on the same machine as the server. Neither is pinned to a core: the system divides them. The
generator's own use of the cores is measured with the rate (`client_cores`).
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bankintent.errors import UserError


def own_body(text: str) -> dict[str, Any]:
    """A request to this project's API, and to the naive app."""
    return {"text": text}


@dataclass(frozen=True)
class Endpoint:
    """A server on loopback: where it takes a text, and in which form."""

    port: int
    path: str = "/predict/"
    body: Callable[[str], dict[str, Any]] = own_body


@dataclass(frozen=True)
class Measurement:
    """The answers of one server to some number of clients."""

    server: str
    clients: int
    requests: int
    errors: int
    seconds: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    client_cores: float
    """Processor seconds of the load generator for each second."""


async def measure(
    name: str, endpoint: Endpoint, clients: int, texts: list[str], most: int, seconds: float
) -> Measurement:
    """Load one server with some clients, after a short warm-up that is not counted."""
    await load(endpoint, clients, texts, 4 * clients, seconds)

    started = time.perf_counter()
    cpu_started = time.process_time()
    latencies, errors = await load(endpoint, clients, texts, most, seconds)
    elapsed = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu_started

    p50, p99 = _percentiles(latencies)
    return Measurement(
        server=name,
        clients=clients,
        requests=len(latencies),
        errors=errors,
        seconds=elapsed,
        requests_per_second=len(latencies) / elapsed,
        p50_ms=1000 * p50,
        p99_ms=1000 * p99,
        client_cores=cpu_seconds / elapsed,
    )


def _percentiles(latencies: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    if len(latencies) == 1:  # too few for statistics.quantiles
        return latencies[0], latencies[0]
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49], cuts[98]


async def load(
    endpoint: Endpoint, clients: int, texts: list[str], most: int, seconds: float
) -> tuple[list[float], int]:
    """Latencies in seconds of the requests that were answered, and the number that failed.

    Each client sends the next text when its last is answered, until `most` are sent or the seconds
    are over. A server that closes a connection fails one request. Raises UserError where no request
    was answered.
    """
    latencies: list[float] = []
    errors = 0
    numbers = iter(range(most))  # shared by the clients: a fast one sends more
    deadline = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        for number in numbers:
            started = time.perf_counter()
            if started > deadline:
                break

            try:
                status = await ask(reader, writer, endpoint, texts[number % len(texts)])
            except (OSError, EOFError):
                errors += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
                continue

            if status == 200:
                latencies.append(time.perf_counter() - started)
            else:
                errors += 1
        writer.close()
        await writer.wait_closed()

    try:
        await asyncio.gather(*(client() for _ in range(clients)))
    except OSError as error:
        raise UserError(f"the server is gone ({error})", "Start it by itself to see why") from None
    if not latencies:
        raise UserError(f"all {errors} requests failed", "Start the server by itself to see why")
    return latencies, errors


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: Endpoint, text: str
) -> int:
    """Send one request and return the status of its answer.

    It is written by hand: a client library would use as much of the CPU as the servers.
    """
    body = json.dumps(endpoint.body(text)).encode()
    head = (
        f"POST {endpoint.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)

    answer_head = await reader.readuntil(b"\r\n\r\n")
    lines = answer_head.lower().split(b"\r\n")
    await reader.readexactly(_content_length(lines))
    return int(lines[0].split()[1])


def _content_length(lines: list[bytes]) -> int:
    header = next(line for line in lines if line.startswith(b"content-length:"))
    return int(header.partition(b":")[2])
