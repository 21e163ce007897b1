"""A load generator that costs little itself: some clients on kept connections, no client library.

It runs on the same machine as the server and is not pinned to a core, as nothing else is: the system shares the cores
out. What it uses of them is measured beside the rate (`client_cores`).
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
    """Where a server on loopback takes a text, and in which form."""

    port: int
    path: str = "/predict/"
    body: Callable[[str], dict[str, Any]] = own_body


@dataclass(frozen=True)
class Measurement:
    """What some number of clients got from one server."""

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
    started, used = time.perf_counter(), time.process_time()
    latencies, errors = await load(endpoint, clients, texts, most, seconds)
    took, used = time.perf_counter() - started, time.process_time() - used
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [latencies[0]] * 99
    rate = len(latencies) / took
    figures = (rate, 1000 * cuts[49], 1000 * cuts[98], used / took)
    return Measurement(name, clients, len(latencies), errors, took, *figures)


async def load(
    endpoint: Endpoint, clients: int, texts: list[str], most: int, seconds: float
) -> tuple[list[float], int]:
    """Latencies in seconds of the requests that were answered, and the number that failed.

    Each client sends the next text when its last is answered, until `most` are sent or the seconds are over. A server
    that closes a connection fails one request. UserError where none was answered.
    """
    latencies: list[float] = []
    errors = 0
    queue = iter(range(most))
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        for number in queue:
            started = time.perf_counter()
            if started > end:
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
    """One request, written by hand: a client library would use as much CPU as the servers. Returns the status."""
    body = json.dumps(endpoint.body(text)).encode()
    head = (
        f"POST {endpoint.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return int(lines[0].split()[1])
