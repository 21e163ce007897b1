"""An open load: requests that arrive at random, whether or not the earlier ones were answered.

Clients that each wait for their answer slow down with the server, so that its queue stays short;
users from outside do not. Each request goes out at its time on a connection that is free, or on a
new one, and its latency counts from that time.
"""

import asyncio
import random
import time
from dataclasses import dataclass

from benchmarks.load import Endpoint, ask

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MOST_CONNECTIONS = 500
"""Requests on the way at once; one more than these counts as failed."""


@dataclass(frozen=True)
class OpenMeasurement:
    """The answers of a server to requests that arrive at random."""

    rate: float
    """Requests a second that were sent."""
    latencies: list[float]
    """Seconds from the time at which a request was due to its answer."""
    errors: int
    seconds: float
    client_cpu_seconds: float


async def measure_open(
    endpoint: Endpoint, rate: float, texts: list[str], seconds: float, seed: int = 0
) -> OpenMeasurement:
    """Send requests for some seconds: a Poisson process of `rate` requests a second."""
    load = _OpenLoad(endpoint)
    rng = random.Random(seed)
    started = time.perf_counter()
    cpu_started = time.process_time()

    tasks = []
    due = started
    number = 0
    while due < started + seconds:
        due += rng.expovariate(rate)
        # The clock of the event loop wakes up late; a request that is due goes out at once.
        if due > time.perf_counter():
            await asyncio.sleep(due - time.perf_counter())
        text = texts[number % len(texts)]
        tasks.append(asyncio.create_task(load.send(text, due)))
        number += 1

    await asyncio.gather(*tasks)
    elapsed = time.perf_counter() - started
    load.close()
    return OpenMeasurement(
        rate=number / (due - started),
        latencies=load.latencies,
        errors=load.errors,
        seconds=elapsed,
        client_cpu_seconds=time.process_time() - cpu_started,
    )


class _OpenLoad:
    """The connections to one server, and what came of the requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self._endpoint = endpoint
        self._free: list[Connection] = []
        self._used = 0

    async def send(self, text: str, due: float) -> None:
        """One request; what fails is counted."""
        if self._used == MOST_CONNECTIONS:
            self.errors += 1
            return

        self._used += 1
        try:
            connection = await self._connect()
            status = await ask(*connection, self._endpoint, text)
            self._free.append(connection)
        except (OSError, EOFError):
            status = 0
        finally:
            self._used -= 1

        if status == 200:
            self.latencies.append(time.perf_counter() - due)
        else:
            self.errors += 1

    async def _connect(self) -> Connection:
        if self._free:
            return self._free.pop()
        return await asyncio.open_connection("127.0.0.1", self._endpoint.port)

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._free:
            writer.close()
