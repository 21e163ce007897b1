"""A load generator for `POST /predict/` that costs little itself: some clients on kept connections, no client library."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

from bankintent.errors import UserError


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


async def measure(name: str, port: int, clients: int, texts: list[str], most: int, seconds: float) -> Measurement:
    """Load one server with some clients, after a short warm-up that is not counted."""
    await load(port, clients, texts, 4 * clients, seconds)
    started = time.perf_counter()
    latencies, errors = await load(port, clients, texts, most, seconds)
    took = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [latencies[0]] * 99
    rate = len(latencies) / took
    return Measurement(name, clients, len(latencies), errors, took, rate, 1000 * cuts[49], 1000 * cuts[98])


async def load(port: int, clients: int, texts: list[str], most: int, seconds: float) -> tuple[list[float], int]:
    """Latencies in seconds of the requests that were answered, and the number that failed.

    Each client sends the next text when its last is answered, until `most` are sent or the seconds are over.
    """
    latencies: list[float] = []
    errors = 0
    queue = iter(range(most))
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in queue:
            started = time.perf_counter()
            if started > end:
                break
            if await ask(reader, writer, texts[number % len(texts)]) == 200:
                latencies.append(time.perf_counter() - started)
            else:
                errors += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    if not latencies:
        raise UserError(f"all {errors} requests failed", "Start the server by itself to see why")
    return latencies, errors


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> int:
    """One request, written by hand: a client library would use as much CPU as the servers. Returns the status."""
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /predict/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])
