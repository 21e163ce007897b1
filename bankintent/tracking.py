"""MLflow, and nothing but MLflow: one run's parameters, metrics and files. A fault here never costs a training run."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from bankintent import console
from bankintent.config import TrackingConfig


class Tracker:
    """One MLflow run, or nothing: after the first fault every call is a no-op."""

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._active = config.enabled
        self.run_id: str | None = None

    @property
    def keeps_files(self) -> bool:
        """Whether a file given now would be logged."""
        return self._active and self.run_id is not None and self._config.files

    def start(self, name: str, tags: dict[str, str]) -> None:
        self._guard(lambda: self._start(name, tags))

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters; nested sections become dotted names such as `lora.r`."""
        flat = {key: str(value)[:500] for key, value in flatten(values).items()}
        self._guard(lambda: _mlflow().log_params(flat))

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self._guard(lambda: _mlflow().log_metrics(values, step=step))

    def files(self, path: Path, place: str | None = None) -> None:
        """Log a file, or a folder with all it holds; nothing where `tracking.files` is off."""
        if not self._config.files:
            return
        log = _mlflow().log_artifacts if path.is_dir() else _mlflow().log_artifact
        self._guard(lambda: log(str(path), place))

    def end(self, status: str) -> None:
        if self.run_id is not None:
            self._guard(lambda: _mlflow().end_run(status))

    def _start(self, name: str, tags: dict[str, str]) -> None:
        mlflow = _mlflow()
        with _opening(self._config.uri) as uri:
            mlflow.set_tracking_uri(uri)
            experiment = mlflow.get_experiment_by_name(self._config.experiment)
            if experiment is None:
                place = self._config.artifacts.absolute().as_uri()
                mlflow.create_experiment(self._config.experiment, artifact_location=place)
            mlflow.set_experiment(self._config.experiment)
        self.run_id = mlflow.start_run(run_name=name, tags=tags).info.run_id

    def _guard(self, call: Callable[[], Any]) -> None:
        if not self._active:
            return
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            call()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._active = False
            cause = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
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
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


@contextlib.contextmanager
def _opening(uri: str) -> Iterator[str]:
    """The URI to open, absolute where it is a file: MLflow keeps one store for each URI text of a process.

    Two processes that make a fresh database together break it, so that opening is done one at a time.
    """
    if not uri.startswith("sqlite:///"):
        yield uri
        return
    database = Path(uri.removeprefix("sqlite:///")).absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(database.parent, os.W_OK):  # MLflow would retry for a hundred seconds
        raise OSError(f"{database.parent} is not writable")
    with FileLock(f"{database}.lock", timeout=60):
        yield f"sqlite:///{database}"


def _mlflow() -> Any:
    import mlflow

    return mlflow
