"""A connection to a Ray cluster: its nodes, and the room that it has.

Every node works on the same files: it needs the same folders under the same paths (`require_shared`
tries it), the same version of this package, and the variables of its environment from its own
`ray start`.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import bankintent
from bankintent import distribution, files, process
from bankintent.config import RaySection
from bankintent.errors import ConfigError, OutputError, SourceUnavailable, UserError
from bankintent.on_ray import tasks

CONNECT_SECONDS = 5.0
"""Most seconds to wait for the head's port: Ray itself tries for a minute."""

LOOK_SECONDS = 60.0
"""Most seconds for a node to look for the marker: a worker process has to start."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch for clusters of one machine: its ports are on 127.0.0.1 alone, which is the default
of other systems than Linux."""

QUIET = {"RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Ray's own lines are for those who develop it: what a user can do, the commands say."""

LOOPBACK = ("127.", "localhost:", "[::1]:")
"""Begin of the addresses of a cluster of this machine, which Ray would replace by its public one.
"""

GIB = 1 << 30


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or one of several nodes on one machine."""

    id: str
    host: str
    resources: dict[str, float]
    """CPU and GPU as numbers, memory in bytes."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to."""

    settings: RaySection

    @property
    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        import ray

        found = []
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"]:
                found.append(Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]))
        return found

    @property
    def hosts(self) -> set[str]:
        """The addresses of its machines."""
        return {node.host for node in self.nodes}

    def require_room(self) -> int:
        """How many pieces of work the nodes take at once.

        Raises ConfigError where no node has room for one: Ray would wait for ever.
        """
        nodes = self.nodes
        room = sum(self._room_of(node) for node in nodes)
        if room:
            return room

        wanted = f"{self.settings.cpus} CPUs, {self.settings.gpus:g} GPUs"
        if self.settings.memory_gb is not None:
            wanted += f", {self.settings.memory_gb:g} GB"
        largest = max(node.resources.get("CPU", 0) for node in nodes)
        raise ConfigError(
            f"no node of the cluster has room for {wanted}; the largest has {largest:g} CPUs",
            "Lower ray.cpus, ray.gpus or ray.memory_gb, or start larger nodes",
        )

    def _room_of(self, node: Node) -> int:
        room = node.resources.get("CPU", 0) // self.settings.cpus
        if self.settings.gpus:
            room = min(room, node.resources.get("GPU", 0) // self.settings.gpus)
        if self.settings.memory_gb is not None:
            memory = node.resources.get("memory", 0)
            room = min(room, memory // (self.settings.memory_gb * GIB))
        return int(room)

    def require_shared(self, folder: Path, needed: Sequence[Path] = ()) -> None:
        """Raise a UserError where a node does not see `folder`, or lacks one of the `needed`.

        A file is put into the folder, and a task on each node looks for it. What is needed and not
        here either is a mistake that the command itself names better.
        """
        here = [path.absolute() for path in needed if path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder.absolute() / f".shared-{secrets.token_hex(8)}"
        files.write_text(marker, marker.name)
        try:
            for node in self.nodes:
                seen = _look(node, marker, here)
                _require_same(node, seen, folder)
        finally:
            marker.unlink(missing_ok=True)


def demands(settings: RaySection) -> dict[str, Any]:
    """Ray's options for one run, actor or replica."""
    options: dict[str, Any] = {"num_cpus": settings.cpus}
    if settings.gpus:
        options["num_gpus"] = settings.gpus
    if settings.memory_gb is not None:
        options["memory"] = int(settings.memory_gb * GIB)
    return options


def _look(node: Node, marker: Path, needed: list[Path]) -> tasks.Seen:
    """What a node sees; a UserError where it cannot run a task of this package."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node.id, soft=False)
    look = ray.remote(tasks.look).options(num_cpus=0, scheduling_strategy=here)
    try:
        seen: tasks.Seen = ray.get(look.remote(marker, needed), timeout=LOOK_SECONDS)
        return seen
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SourceUnavailable(
            f"the node {node.host} cannot run a task of bankintent ({reason})",
            "Install the same packages on every node, and start Ray from that environment",
        ) from None


def _require_same(node: Node, seen: tasks.Seen, folder: Path) -> None:
    if seen.version != bankintent.__version__:
        raise SourceUnavailable(
            f"the node {node.host} has bankintent {seen.version}, this machine has"
            f" {bankintent.__version__}",
            "Install the same version on every node",
        )
    if not seen.has_marker:
        raise OutputError(
            f"the node {node.host} does not see what this machine writes into {folder}",
            "Every node needs the same shared folder (such as NFS) under the same path",
        )
    if seen.lacks:
        raise OutputError(
            f"the node {node.host} does not have {seen.lacks[0]}",
            "Put it into a folder that every node has under the same path",
        )


@contextlib.contextmanager
def connect(settings: RaySection, what: str) -> Iterator[Cluster]:
    """Connect to the cluster, or start one of this machine alone that ends with the block.

    Raises MissingPackage where Ray is not installed; `what` says what needs it. Raises
    SourceUnavailable where no cluster answers.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _import(what, address)
    # In a notebook or a service that has connected before.
    if ray.is_initialized():
        yield Cluster(settings)
        return

    _require_answer(address)

    try:
        ray.init(
            address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceUnavailable(
            f"there is no Ray cluster at {address} ({reason})",
            "Start its head with `ray start --head --disable-usage-stats`",
        ) from None

    try:
        yield Cluster(settings)
    finally:
        # Also what still runs for this process ends with it.
        ray.shutdown()


def _import(what: str, address: str) -> ModuleType:
    """Ray, imported with its settings in the environment, which it reads at its import."""
    distribution.require("ray", what=what)
    process.quiet_libraries()
    variables = dict(QUIET)
    if address == "local" or address.startswith(LOOPBACK):
        variables |= ON_LOOPBACK
    for name, value in variables.items():
        os.environ.setdefault(name, value)

    import ray

    return ray


def _require_answer(address: str) -> None:
    """Raise SourceUnavailable where nothing listens at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return

    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise SourceUnavailable(
            f"there is no Ray cluster at {address} ({error.strerror or error})",
            "Start its head with `ray start --head --disable-usage-stats`, or name another address",
        ) from None


def user_error(error: BaseException) -> UserError | None:
    """The error of a user that a task raised, out of what Ray made of it; None where it is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            # Ray's own class has the traceback in its text: only the arguments are kept.
            original = getattr(cause, "cause", cause)
            return original if isinstance(original, UserError) else cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return None
