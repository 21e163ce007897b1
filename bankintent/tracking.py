"""One run's parameters, metrics and files in MLflow. Nothing else in the package imports MLflow.

A fault here never costs a training run.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from bankintent import console
from bankintent.config import TrackingConfig

SQLITE = "sqlite:///"
"""Start of the URI of a database file, which is ours to create; other URIs are opened as given."""

MOST_PARAM_CHARACTERS = 500
"""Longest value of a parameter that is logged: older MLflow servers refuse longer ones."""


class Tracker:
    """One MLflow run, or nothing: after the first fault every call is a no-op.

    MLflow is imported by the first call that has something to log.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._active = config.enabled
        self.run_id: str | None = None

    @property
    def keeps_files(self) -> bool:
        """Whether a file would be logged at this moment."""
        return self._active and self.run_id is not None and self._config.files

    def start(self, name: str, tags: dict[str, str]) -> None:
        self._guard(lambda mlflow: self._start(mlflow, name, tags))

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters; nested sections become dotted names such as `lora.r`."""
        flat = {key: str(value)[:MOST_PARAM_CHARACTERS] for key, value in flatten(values).items()}
        self._guard(lambda mlflow: mlflow.log_params(flat))

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self._guard(lambda mlflow: mlflow.log_metrics(values, step=step))

    def files(self, path: Path, place: str | None = None) -> None:
        """Log a file, or a folder with all its files; nothing where `tracking.files` is off."""
        if not self._config.files:
            return
        if path.is_dir():
            self._guard(lambda mlflow: mlflow.log_artifacts(str(path), place))
        else:
            self._guard(lambda mlflow: mlflow.log_artifact(str(path), place))

    def end(self, status: str) -> None:
        if self.run_id is not None:
            self._guard(lambda mlflow: mlflow.end_run(status))

    def _start(self, mlflow: Any, name: str, tags: dict[str, str]) -> None:
        experiment = self._config.experiment
        with _opening(self._config.uri) as uri:
            mlflow.set_tracking_uri(uri)
            # set_experiment would create it too, but without the place of its files.
            if mlflow.get_experiment_by_name(experiment) is None:
                place = self._config.artifacts.absolute().as_uri()
                mlflow.create_experiment(experiment, artifact_location=place)
            mlflow.set_experiment(experiment)

        # Outside the lock, which is for the first opening alone.
        run = mlflow.start_run(run_name=name, tags=tags)
        self.run_id = run.info.run_id

    def _guard(self, call: Callable[[Any], object]) -> None:
        """Call with MLflow where tracking is on; its first fault turns tracking off."""
        if not self._active:
            return
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            call(mlflow)
        # A locked or broken database raises one of the first two, a folder or lock the last.
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._active = False
            text = str(error).strip()
            cause = text.splitlines()[0] if text else type(error).__name__
            console.say(f"warning: tracking stopped, the run goes on without it ({cause[:200]})")


@contextlib.contextmanager
def run(config: TrackingConfig, name: str, tags: dict[str, str]) -> Iterator[Tracker]:
    """A tracked run: FINISHED when the block ends, FAILED or KILLED when it raises."""
    tracker = Tracker(config)
    tracker.start(name, tags)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


@contextlib.contextmanager
def _opening(uri: str) -> Iterator[str]:
    """Yield the URI to open, absolute where it is a file, held for this process alone.

    MLflow keeps one store for each URI text of a process. Two processes that create a database
    together break it, so one at a time opens it.
    """
    if not uri.startswith(SQLITE):
        yield uri
        return

    database = Path(uri.removeprefix(SQLITE)).absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    # In a folder that is not writable, MLflow would retry for a hundred seconds.
    if not os.access(database.parent, os.W_OK):
        raise OSError(f"{database.parent} is not writable")
    # The first opening also creates the tables, which takes up to ten seconds under load.
    with FileLock(f"{database}.lock", timeout=60):
        yield f"{SQLITE}{database}"
