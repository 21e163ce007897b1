"""How long requests wait at servers like ours, by a simulation of what happens at them one by one.

A replica is a machine with some cores. Each request takes some time of the event loop, of which
there is one, and then waits for a worker; a worker that is free takes all that waits, up to the
largest batch, and needs one of the times that such batches were measured to take. Event loop,
workers and, where the load comes from the same machine, the load generator need a core while they
work. A batch gives its core to the event loop or the generator when they need one, and goes on
afterwards, as the threads of a system do: the short work of a request does not wait for a whole
batch. Requests arrive at random (a Poisson process), each at a replica that is drawn at random.
"""

import random
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

WARM_UP = 0.1
"""Share of the simulated requests that are not counted: the first ones find no queue."""

SHORT = 0
"""Who needs a core for a moment takes it from who has one for longer: the lowest number first."""

BATCH = 1

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class ReplicaCosts:
    """One replica: its cores, and what its work costs, in seconds."""

    batch_seconds: Sequence[Sequence[float]]
    """Measured times of batches of 1, 2, ... texts, of which each simulated batch draws one; the
    last are those of the largest batch."""
    request_seconds: float
    """Of the event loop for one request."""
    cores: int = 2
    workers: int = 2
    client_seconds: float = 0.0
    """Of a load generator on the same machine for one request; 0 where the load comes from
    elsewhere."""


@dataclass(frozen=True)
class Waits:
    """What a simulation has measured."""

    latencies: list[float]
    """Seconds from a request's arrival to its answer, the warm-up left out."""
    mean_batch: float
    """Texts in a batch."""

    def percentile(self, share: float) -> float:
        """The latency, in seconds, that this share of the requests does not exceed."""
        ordered = sorted(self.latencies)
        place = min(len(ordered) - 1, int(share * len(ordered)))
        return ordered[place]


class Replica:
    """One simulated server."""

    def __init__(
        self, environment: simpy.Environment, costs: ReplicaCosts, rng: random.Random
    ) -> None:
        self.batches: list[int] = []
        self._rng = rng
        self._environment = environment
        self._costs = costs
        self._cores = simpy.PreemptiveResource(environment, costs.cores)
        self._event_loop = simpy.Resource(environment, 1)
        self._waiting: deque[simpy.Event] = deque()
        self._idle: list[simpy.Event] = []
        for _ in range(costs.workers):
            environment.process(self._work())

    def answer(self) -> Process:
        """One request from its arrival to its answer."""
        yield from self._compute(self._costs.client_seconds / 2)
        with self._event_loop.request() as turn:
            yield turn
            yield from self._compute(self._costs.request_seconds)

        done = self._environment.event()
        self._waiting.append(done)
        if self._idle:
            self._idle.pop().succeed()
        yield done
        yield from self._compute(self._costs.client_seconds / 2)

    def _work(self) -> Process:
        """The life of a worker: all that waits, batch after batch."""
        while True:
            if not self._waiting:
                called = self._environment.event()
                self._idle.append(called)
                yield called

            size = min(len(self._waiting), len(self._costs.batch_seconds))
            # Another worker may have been faster.
            if size == 0:
                continue
            batch = [self._waiting.popleft() for _ in range(size)]
            self.batches.append(size)
            seconds = self._rng.choice(self._costs.batch_seconds[size - 1])
            yield from self._compute(seconds, BATCH)
            for done in batch:
                done.succeed()

    def _compute(self, seconds: float, priority: int = SHORT) -> Process:
        """Work on a core, once one is free or can be taken; on another one if it is taken away."""
        left = seconds
        while left > 0:
            with self._cores.request(priority) as core:
                try:
                    yield core
                    yield self._environment.timeout(left)
                    left = 0
                except simpy.Interrupt as interrupt:
                    taken: Any = interrupt.cause
                    left -= self._environment.now - taken.usage_since


def simulate(
    costs: ReplicaCosts, rate: float, replicas: int = 1, requests: int = 20_000, seed: int = 0
) -> Waits:
    """The latencies of `requests` at `rate` requests a second over all replicas."""
    environment = simpy.Environment()
    rng = random.Random(seed)
    servers = [Replica(environment, costs, rng) for _ in range(replicas)]
    latencies: list[float] = []

    def ask(server: Replica) -> Process:
        started = environment.now
        yield from server.answer()
        latencies.append(environment.now - started)

    def arrive() -> Process:
        for _ in range(requests):
            yield environment.timeout(rng.expovariate(rate))
            environment.process(ask(rng.choice(servers)))

    environment.process(arrive())
    environment.run()

    batches = [size for server in servers for size in server.batches]
    counted = latencies[int(WARM_UP * len(latencies)) :]
    return Waits(counted, sum(batches) / len(batches))
