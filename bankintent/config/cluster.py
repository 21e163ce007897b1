"""`engine:` and `ray:`: where the work of a command is done."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bankintent.config.base import Section

Engine = Literal["local", "ray"]
"""local: processes of this machine; ray: a Ray cluster."""


def _no_client(address: str) -> str:
    if "://" in address:
        raise ValueError(
            f"{address!r} is no address of a cluster; run the command on one of its nodes with"
            " `auto`, or name HOST:PORT of its head"
        )
    return address


class RaySection(Section):
    """`ray:` the cluster, and what each piece of work takes of it."""

    address: Annotated[str, AfterValidator(_no_client)] | None = None
    """HOST:PORT of the head, or `auto` for the cluster that this machine is a node of.

    By default the variable RAY_ADDRESS; without it a cluster of this machine alone, which ends with
    the command.
    """
    cpus: Annotated[int, Field(ge=1)] = 1
    """CPUs of one run, actor or replica, and the threads that it computes with."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of one run, actor or replica; a share such as 0.5 puts two on one GPU."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory that one run, actor or replica asks for; by default none is asked for."""


class TaskRaySection(RaySection):
    """`ray:` of a study."""

    retries: Annotated[int, Field(ge=0)] = 3
    """How often a run is begun again whose node or worker has died. A run that fails by itself is
    not repeated."""


class ScoreRaySection(RaySection):
    """`ray:` of batch scoring."""

    actors: Annotated[int, Field(ge=1)] | None = None
    """Processes that each hold the model; by default as many as the cluster has room for."""


class ServeRaySection(RaySection):
    """`ray:` of a server on Ray Serve."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Fewest replicas of the server, each with the model."""
    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Most replicas; with more than `min_replicas`, their number follows the load."""
    target_requests: Annotated[int, Field(ge=1)] = 8
    """Requests in work in one replica at which another one is started."""
    max_requests: Annotated[int, Field(ge=1)] = 256
    """Most requests in work in one replica; more wait at the proxy."""

    max_models: Annotated[int, Field(ge=1)] = 3
    """Most of several models (`models:`) that one replica holds; for one more, the one that was not
    asked for the longest time is unloaded."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, above max_replicas ({self.max_replicas})"
            )
        if self.target_requests > self.max_requests:
            raise ValueError(
                f"target_requests is {self.target_requests}, above"
                f" max_requests ({self.max_requests})"
            )
        return self
