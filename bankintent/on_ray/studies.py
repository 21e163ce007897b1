"""A comparison on a Ray cluster: each run and each sweep is a task, executed by Ray.

A task starts the same process that the local engine starts, on the same shared folder. Ray begins a
task again whose node or worker has died; a run that fails by itself is a failed run. Records are
files of the study's folder: what has finished stays finished when this process is killed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bankintent import console
from bankintent.config import CompareConfig
from bankintent.errors import ConfigError
from bankintent.on_ray import tasks
from bankintent.on_ray.cluster import Cluster, connect, demands
from bankintent.studies import comparison
from bankintent.studies.engine import Ended, Task

SQLITE = "sqlite:"
"""Begin of the address of a tracking store that is a file."""


def run_comparison(config: CompareConfig) -> None:
    """`studies.comparison.run_comparison` on the cluster that the config names."""
    with connect(config.ray, "engine: ray") as cluster:
        require_one_writer(config, cluster)
        cluster.require_shared(config.folder, [config.data_dir, Path.cwd()])
        comparison.run_comparison(config, RayEngine(cluster, config.ray.retries))


def require_one_writer(config: CompareConfig, cluster: Cluster) -> None:
    """Raise ConfigError where several machines would write one SQLite file."""
    tracking = config.tracking
    if not tracking.enabled or not tracking.uri.startswith(SQLITE):
        return
    if len(cluster.hosts) > 1:
        raise ConfigError(
            f"tracking.uri is the file {tracking.uri}, which machines must not write side by side",
            "Name an MLflow server, or set tracking.enabled: false",
        )


class RayEngine:
    """Executes the tasks of a study on a cluster, as many at once as it has room for."""

    def __init__(self, cluster: Cluster, retries: int) -> None:
        self._cluster = cluster
        self._retries = retries
        self.at_once = cluster.require_room()

    def execute(self, tasks: Iterable[Task]) -> Iterator[Ended]:
        """Yield each task when it has ended."""
        import ray

        waiting = {self._submit(task): task for task in tasks}
        while waiting:
            status = f"{min(len(waiting), self.at_once)} at once on Ray, {len(waiting)} to go"
            with console.stdout.status(status):
                [reference], _ = ray.wait(list(waiting), num_returns=1)
            yield _end(waiting.pop(reference), reference)

    def _submit(self, task: Task) -> Any:
        """Ray's reference to the result of a task."""
        import ray

        work = tasks.Apart(
            module=task.module,
            job_file=task.job_file.absolute(),
            log=task.log.absolute(),
            place=task.place.absolute(),
            folder=Path.cwd(),
        )
        # Ray repeats what died with its node or worker. An exception would not be repeated.
        options = demands(self._cluster.settings) | {"max_retries": self._retries}
        return ray.remote(tasks.run_apart).options(**options).remote(work)


def _end(task: Task, reference: Any) -> Ended:
    import ray

    try:
        cause, seconds = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Before the run's process, for example a full disk.
        return Ended(task, str(error.cause), 0.0)
    except ray.exceptions.RayError as error:
        return Ended(task, f"its worker died too often ({type(error).__name__})", 0.0)

    if cause is None:
        # The record is read next.
        tasks.is_seen(task.result)
    return Ended(task, cause, seconds)
