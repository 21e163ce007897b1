"""The files of a run in MLflow: sent or copied with signs of progress, and a bundle as a model."""

import platform
import shutil
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bankintent import files

BUNDLE = "bundle"
"""Artifact of a training run that is its bundle, and the tag that holds the bundle's path."""

CODE = "code"
"""Folder in that artifact with the module that MLflow loads the bundle by."""

BLOCK = 1 << 20
"""Bytes that are copied between two signs of progress."""


@dataclass(frozen=True)
class Loading:
    """How MLflow loads a bundle as a model."""

    module: Path
    """The file whose `_load_pyfunc` takes the folder of the bundle; a copy goes with it."""
    packages: dict[str, str]
    """The packages that it needs -> their versions."""


class Upload:
    """How much of the file that is being sent has been taken."""

    def __init__(self) -> None:
        self.taken = 0
        """Bytes, at most the size of the file: the repeats of a request are no progress."""
        self._sent = 0
        self._size = 0
        self._thread = 0
        self._is_hooked = False

    def begin(self, size: int) -> None:
        """Count the bytes that this thread sends from now on, as those of a file of `size`."""
        if not self._is_hooked:
            # Python's own event of a block that http.client hands to a socket. Every library that
            # stores files by HTTP sends by it, and MLflow has no other way to ask.
            sys.addaudithook(self._on_event)
            self._is_hooked = True
        self._thread = threading.get_ident()
        self.taken = 0
        self._sent = 0
        self._size = size

    def add(self, count: int) -> None:
        """Count bytes that were taken."""
        self._sent += count
        self.taken = max(self.taken, min(self._sent, self._size))

    def end(self) -> None:
        """Count no more."""
        self._thread = 0
        self.taken = 0

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "http.client.send" or threading.get_ident() != self._thread:
            return
        block = arguments[1]
        if isinstance(block, bytes):
            self.add(len(block))


UPLOAD = Upload()
"""The one upload of this process at a time; a hook of Python cannot be taken away again."""


def put_file(
    mlflow: Any, path: Path, folder: Path | None, place: str | None, is_link: bool = False
) -> bool:
    """Put a file into the folder `place` of the current run.

    `folder` is where the run's files are on this machine, None where a server keeps them. Returns
    whether the file takes no space of its own, which it does not as a link or where it is small.
    """
    UPLOAD.begin(path.stat().st_size)
    try:
        if folder is None:
            mlflow.log_artifact(str(path), place)
            return False

        target = folder / (place or "") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_link:
            return files.link(path, target, copy_in_blocks)
        copy_in_blocks(path, target)
        return False
    finally:
        UPLOAD.end()


def copy_in_blocks(source: Path, target: Path) -> None:
    """Copy a file's bytes, with a sign of progress after each block."""
    with source.open("rb") as old, target.open("wb") as new:
        while block := old.read(BLOCK):
            new.write(block)
            UPLOAD.add(len(block))


def place_of(name: str, place: str | None) -> str | None:
    """The folder in the store of a file of a folder that is logged to `place`."""
    parts = [part for part in (place, str(PurePosixPath(name).parent)) if part not in (None, ".")]
    return "/".join(map(str, parts)) or None


def local_folder(uri: str) -> Path | None:
    """The folder of an artifact URI; None where a server keeps the files."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None


def write_model_files(mlflow: Any, folder: Path, loading: Loading, run_id: str | None) -> None:
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
