"""One run's parameters, metrics and files in MLflow. Nothing else in the package imports MLflow.

    python -m bankintent.tracking

prints the address of the page with all runs. A fault here never costs a training run.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from bankintent import console, files, process, public_names, tracking_view
from bankintent.config import TrackingConfig
from bankintent.files import JsonObject
from bankintent.tracking_calls import CallLine, StoreSilent
from bankintent.tracking_files import (
    BUNDLE,
    Loading,
    local_folder,
    place_of,
    put_file,
    write_model_files,
)
from bankintent.tracking_store import SQLITE, database_file

SERVER = "http://127.0.0.1:5000"
"""Where `make mlflow` serves the page."""

MOST_PARAM_CHARACTERS = 500
"""Longest value of a parameter that is logged: older MLflow servers refuse longer ones."""

KIND = "kind"
"""Tag that tells runs apart: TRAINING, EVALUATION, REFERENCE or STUDY."""
TRAINING = "training"
EVALUATION = "evaluation"
REFERENCE = "reference"
STUDY = "study"

TRAINING_RUN = "training_run"
"""Tag of an evaluation: the id of the run that trained its model."""


class Tracker:
    """One MLflow run, or nothing: after the first fault every call is a no-op.

    MLflow is imported by the first call that has something to log. Its calls are made in order by a
    thread of their own. Parameters and metrics are not waited for; opening the run, files and the
    end are, for as long as the store gives signs of life (`tracking_calls`).
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._active = config.enabled
        self._line: CallLine | None = None
        self._folder: Path | None = None
        """Where the store keeps the files of the run; None where it is a server."""
        self.run_id: str | None = None

    @property
    def keeps_models(self) -> bool:
        """Whether a bundle would be kept as files at this moment."""
        is_tracked = self._active and self.run_id is not None
        return is_tracked and self._config.files and self._config.models != "none"

    def start(self, name: str, tags: dict[str, str]) -> None:
        """Open the store and begin a run in it."""
        self._call(lambda mlflow: _open_store(mlflow, self._config))
        # Outside the lock, which is for the first opening alone.
        self._call(lambda mlflow: self._begin(mlflow, name, tags))
        self._wait()

    def params(self, values: JsonObject) -> None:
        """Log parameters; nested sections become dotted names such as `lora.r`."""
        flat = {key: str(value)[:MOST_PARAM_CHARACTERS] for key, value in flatten(values).items()}
        self._call(lambda mlflow: mlflow.log_params(flat))

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Log metrics; a copy of the values is logged later."""
        taken = dict(values)
        self._call(lambda mlflow: mlflow.log_metrics(taken, step=step))

    def files(self, path: Path, place: str | None = None) -> None:
        """Log a file, or a folder with all its files; nothing where `tracking.files` is off."""
        if not self._config.files:
            return
        self._log_files(path, place)
        self._wait()

    def bundle(self, bundle: Path, loading: Loading) -> None:
        """Log a bundle as `tracking.models` says: linked or copied as a model, or its path alone.

        The model can be registered and loaded as `runs:/<run id>/bundle`.
        """
        self._call(lambda mlflow: mlflow.set_tag(BUNDLE, str(bundle.absolute())))
        if self.keeps_models:
            self._log_bundle(bundle, loading)
        self._wait()

    def end(self, status: str) -> None:
        """End the run, when all is logged that was handed over."""
        if self.run_id is not None:
            self._call(lambda mlflow: mlflow.end_run(status))
            self._wait()
        if self._line is not None:
            self._line.close()

    def _begin(self, mlflow: Any, name: str, tags: dict[str, str]) -> None:
        run = mlflow.start_run(run_name=name, tags=tags)
        # A run that begins after it was given up is not this one's.
        if self._active:
            self._folder = local_folder(run.info.artifact_uri)
            self.run_id = run.info.run_id

    def _log_bundle(self, bundle: Path, loading: Loading) -> None:
        is_link = self._config.models == "link"
        are_linked: list[bool] = []

        def put(mlflow: Any, name: str) -> None:
            place = place_of(name, BUNDLE)
            are_linked.append(put_file(mlflow, bundle / name, self._folder, place, is_link))

        for name in files.list_files(bundle):
            self._call(partial(put, name=name))
        self._wait()
        if self._active and is_link and not all(are_linked):
            console.say("note: the tracking store holds a copy of the bundle: no links reach it")

        # Last of all: MLflow takes a folder with MLmodel for a whole model.
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder)
            self._call(lambda mlflow: write_model_files(mlflow, model, loading, self.run_id))
            self._wait()
            self._log_files(model, BUNDLE)
            self._wait()

    def _log_files(self, path: Path, place: str | None) -> None:
        """Hand over a file, or each file of a folder: every one is a sign of life of its own."""
        if not path.is_dir():
            self._call(lambda mlflow: put_file(mlflow, path, self._folder, place))
            return

        def put(mlflow: Any, name: str) -> None:
            put_file(mlflow, path / name, self._folder, place_of(name, place))

        for name in files.list_files(path):
            self._call(partial(put, name=name))

    def _call(self, call: Callable[[Any], object]) -> None:
        """Hand a call over where tracking is on."""
        self._look_for_fault()
        if not self._active:
            return

        if self._line is None:
            try:
                self._line = _make_line(self._config)
            # A library can fail in many ways when it is imported.
            except Exception as error:  # noqa: BLE001
                self._stop(error)
                return
        self._line.add(partial(_with_mlflow, call))

    def _wait(self) -> None:
        """Wait for all that was handed over, as long as the store gives signs of life."""
        if self._line is None or not self._active:
            return

        try:
            self._line.wait()
        except StoreSilent as error:
            self._line.give_up(error)
        self._look_for_fault()

    def _look_for_fault(self) -> None:
        """Stop tracking where a call has failed."""
        if self._active and self._line is not None and self._line.fault is not None:
            self._stop(self._line.fault)

    def _stop(self, error: Exception) -> None:
        """Turn tracking off, and say so: once, from the caller's own thread."""
        self._active = False
        # Of a long message the first line, before the statement of a database or a page of HTML.
        lines = str(error).strip().splitlines()
        cause = public_names.without_secrets(lines[0]) if lines else type(error).__name__
        console.say(f"warning: tracking stopped, the run goes on without it ({cause[:200]})")


def _make_line(config: TrackingConfig) -> CallLine:
    """The thread that makes the calls; imports MLflow, which is not the store's time."""
    import mlflow

    if not config.uri.startswith(SQLITE):
        import mlflow.store.tracking.rest_store

        return CallLine()

    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    return CallLine(database_file(config.uri).absolute())


def _with_mlflow(call: Callable[[Any], object]) -> None:
    import mlflow

    call(mlflow)


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


def flatten(values: JsonObject, prefix: str = "") -> JsonObject:
    """Nested dicts to one level with dotted keys."""
    flat: JsonObject = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


def headline(metrics: dict[str, float]) -> dict[str, float]:
    """The figures that every kind of run logs under the same names, as short as a column."""
    return {name: round(metrics[name], 4) for name in ("accuracy", "macro_f1")}


def _open_store(mlflow: Any, config: TrackingConfig) -> str:
    """Open the store and its experiment; returns the experiment's id."""
    with _opening(config.uri) as uri:
        mlflow.set_tracking_uri(uri)
        return _open_experiment(mlflow, config)


@contextlib.contextmanager
def _opening(uri: str) -> Iterator[str]:
    """Yield the URI to open, absolute where it is a file, held for this process alone.

    MLflow keeps one store for each URI text of a process. Two processes that create a database
    together break it, so one at a time opens it.
    """
    if not uri.startswith(SQLITE):
        yield uri
        return

    database = database_file(uri).absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    # The first opening also creates the tables, which takes up to ten seconds under load.
    with FileLock(f"{database}.lock", timeout=60):
        _, question, parameters = uri.partition("?")
        yield f"{SQLITE}{database}{question}{parameters}"


def _open_experiment(mlflow: Any, config: TrackingConfig) -> str:
    """Make the experiment the current one, with the view of its runs; returns its id."""
    experiment = mlflow.get_experiment_by_name(config.experiment)
    # set_experiment would create it too, but without the place of its files.
    if experiment is None:
        place = config.artifacts.absolute().as_uri()
        mlflow.create_experiment(config.experiment, artifact_location=place)

    experiment = mlflow.set_experiment(config.experiment)
    # Once: who has changed the view keeps it.
    if tracking_view.TAG not in experiment.tags:
        mlflow.set_experiment_tag(tracking_view.TAG, tracking_view.view())
    return str(experiment.experiment_id)


def main() -> None:
    """Print the address of the page with all runs of the default store."""
    config = TrackingConfig()
    process.quiet_libraries()
    import mlflow

    experiment_id = _open_store(mlflow, config)
    console.say(f"All runs: {tracking_view.address(experiment_id, SERVER)}")


if __name__ == "__main__":
    main()
