"""One run's parameters, metrics and files in MLflow. Nothing else in the package imports MLflow.

    python -m bankintent.tracking

prints the address of the page with all runs. A fault here never costs a training run.
"""

import contextlib
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from bankintent import console, files, process, tracking_view
from bankintent.config import TrackingConfig
from bankintent.files import JsonObject

SQLITE = "sqlite:///"
"""Start of the URI of a database file, which is ours to create; other URIs are opened as given."""

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

BUNDLE = "bundle"
"""Artifact of a training run that is its bundle, and the tag that holds the bundle's path."""

CODE = "code"
"""Folder in that artifact with the module that MLflow loads the bundle by."""


@dataclass(frozen=True)
class Loading:
    """How MLflow loads a bundle as a model."""

    module: Path
    """The file whose `_load_pyfunc` takes the folder of the bundle; a copy goes with it."""
    packages: dict[str, str]
    """The packages that it needs -> their versions."""


class Tracker:
    """One MLflow run, or nothing: after the first fault every call is a no-op.

    MLflow is imported by the first call that has something to log.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._active = config.enabled
        self.run_id: str | None = None

    @property
    def keeps_models(self) -> bool:
        """Whether a bundle would be kept as files at this moment."""
        is_tracked = self._active and self.run_id is not None
        return is_tracked and self._config.files and self._config.models != "none"

    def start(self, name: str, tags: dict[str, str]) -> None:
        self._guard(lambda mlflow: self._start(mlflow, name, tags))

    def params(self, values: JsonObject) -> None:
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

    def bundle(self, bundle: Path, loading: Loading) -> None:
        """Log a bundle as `tracking.models` says: linked or copied as a model, or its path alone.

        The model can be registered and loaded as `runs:/<run id>/bundle`.
        """
        self._guard(lambda mlflow: mlflow.set_tag(BUNDLE, str(bundle.absolute())))
        if self.keeps_models:
            self._guard(lambda mlflow: self._log_bundle(mlflow, bundle, loading))

    def end(self, status: str) -> None:
        if self.run_id is not None:
            self._guard(lambda mlflow: mlflow.end_run(status))

    def _start(self, mlflow: Any, name: str, tags: dict[str, str]) -> None:
        with _opening(self._config.uri) as uri:
            mlflow.set_tracking_uri(uri)
            _open_experiment(mlflow, self._config)

        # Outside the lock, which is for the first opening alone.
        run = mlflow.start_run(run_name=name, tags=tags)
        self.run_id = run.info.run_id

    def _log_bundle(self, mlflow: Any, bundle: Path, loading: Loading) -> None:
        place = _local_folder(mlflow.get_artifact_uri(BUNDLE))
        is_linked = False

        if self._config.models == "link" and place is not None:
            # Not a link to the folder: MLflow writes files of its own beside those of the bundle.
            is_linked = files.link_tree(bundle, place)
        else:
            mlflow.log_artifacts(str(bundle), BUNDLE)
        if self._config.models == "link" and not is_linked:
            console.say("note: the tracking store holds a copy of the bundle: no links reach it")

        # Last of all: MLflow takes a folder with MLmodel for a whole model.
        with tempfile.TemporaryDirectory() as folder:
            _write_model_files(mlflow, Path(folder), loading, self.run_id)
            mlflow.log_artifacts(folder, BUNDLE)

    def _guard(self, call: Callable[[Any], object]) -> None:
        """Call with MLflow where tracking is on; its first fault turns tracking off."""
        if not self._active:
            return

        try:
            import mlflow

            call(mlflow)
        # A boundary: an import can fail, a database, a disk and a server in many ways, and none of
        # them is worth the hours of training behind it.
        except Exception as error:  # noqa: BLE001
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


def _local_folder(uri: str) -> Path | None:
    """The folder of an artifact URI; None where a server keeps the files."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None


def _write_model_files(mlflow: Any, folder: Path, loading: Loading, run_id: str | None) -> None:
    """Write what makes a bundle a model of MLflow: MLmodel, the loader, and what that needs."""
    code = folder / CODE
    code.mkdir()
    shutil.copyfile(loading.module, code / loading.module.name)

    requirements = [f"mlflow=={mlflow.__version__}"]
    for package, version in loading.packages.items():
        # A part after the plus, as in 2.13.0+cpu, is known to one package index alone.
        requirements.append(f"{package}=={version.partition('+')[0]}")
    files.write_text(folder / "requirements.txt", "\n".join(requirements) + "\n")

    environment = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    files.write_text(folder / "python_env.yaml", environment)

    with warnings.catch_warnings():
        # On import MLflow warns of type hints of its own.
        warnings.simplefilter("ignore")
        model = _make_mlmodel(mlflow, loading.module.stem, run_id)
    model.save(str(folder / "MLmodel"))


def _make_mlmodel(mlflow: Any, module: str, run_id: str | None) -> Any:
    """The content of MLmodel: texts in, a label and its score out."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    texts = Schema([ColSpec(DataType.string)])
    answer = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")])
    signature = ModelSignature(inputs=texts, outputs=answer)

    model = Model(artifact_path=BUNDLE, run_id=run_id, signature=signature)
    mlflow.pyfunc.add_to_model(model, loader_module=module, code=CODE, python_env="python_env.yaml")
    return model


def main() -> None:
    """Print the address of the page with all runs of the default store."""
    config = TrackingConfig()
    process.quiet_libraries()
    import mlflow

    with _opening(config.uri) as uri:
        mlflow.set_tracking_uri(uri)
        experiment_id = _open_experiment(mlflow, config)
    console.say(f"All runs: {tracking_view.address(experiment_id, SERVER)}")


if __name__ == "__main__":
    main()
