"""Choice of a runtime: the format of a model that this machine computes, and the library for it.

`find` is fast and raises the errors that a user can correct; loading the `FoundModel` that it
returns takes longer. torch is imported only where it is chosen.
"""

import ctypes
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

from bankintent import distribution, process
from bankintent.bundle.layout import MERGED, Checkpoint, Formats, open_checkpoint, open_formats
from bankintent.config import RuntimeName
from bankintent.errors import ModelError
from bankintent.inference import engines, exported_runtime
from bankintent.inference.exported_runtime import KINDS, ExportedRuntime
from bankintent.inference.runtime import Runtime

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundModel:
    """A model on disk, verified but not loaded."""

    path: Path
    checkpoint: Checkpoint | None
    """What torch loads; None where an exported format comes first."""
    formats: Formats | None
    kinds: tuple[str, ...]
    """Exported formats to try, best first; none where torch computes the model."""
    may_fall_back: bool
    """Whether the next format is tried where one does not fit this machine."""
    threads: int
    workers: int

    def load(self) -> Runtime:
        """Load the model for the first format that fits this machine.

        Raises Unfit where the format was named and does not fit, another UserError where the model
        cannot be loaded.
        """
        for position, kind in enumerate(self.kinds):
            assert self.formats is not None
            try:
                # `find` has verified the files of the first format.
                if position > 0:
                    exported_runtime.verify_format(self.formats, kind)
                return ExportedRuntime(self.formats, kind, self.threads, self.workers)
            except engines.Unfit as error:
                if not self.may_fall_back:
                    raise
                logger.warning(f"warning: {error}")

        # Not yet opened where `find` expected that an exported format fits.
        checkpoint = self.checkpoint or open_checkpoint(self.path)
        require_torch(self.path, "auto")
        # Before the import: the libraries read these settings when they are imported.
        process.quiet_libraries()
        from bankintent.inference.torch_runtime import TorchRuntime

        return TorchRuntime(checkpoint, self.threads, self.workers)


def find(
    path: Path,
    name: RuntimeName = "auto",
    threads: int | None = None,
    workers: int | None = None,
) -> FoundModel:
    """Find and verify the model at a path, and choose its formats for the named runtime.

    `threads` defaults to the cores of this process. `workers` is how many calls of `logits` should
    run at once, each on its share of the threads. It defaults to one for each thread: with batches
    of a few sentences, a thread for each batch is faster than several threads for one.

    auto is the fastest of the formats that the bundle has verified and this installation computes;
    without any, or where torch has a GPU, it is torch. Raises a UserError where there is no such
    model or runtime.
    """
    threads = threads or process.cores()
    workers = workers or threads

    try:
        formats = None if name == "torch" else open_formats(path)
        kinds = candidates(path, formats, name)
        checkpoint = None if kinds else open_checkpoint(path)
        if not kinds:
            require_torch(path, name)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})", "Check its owner and mode"
        ) from None

    return FoundModel(path, checkpoint, formats, kinds, name == "auto", threads, workers)


def candidates(path: Path, formats: Formats | None, name: RuntimeName) -> tuple[str, ...]:
    """The exported formats to try, best first, the first one verified; none to use torch.

    Raises ModelError where a format is named and the bundle or the installation lacks it.
    """
    if name == "torch" or (name == "auto" and formats is None):
        return ()

    if name == "auto":
        assert formats is not None
        kinds = _usable_kinds(formats)
    else:
        _require_kind(path, formats, name)
        kinds = (name,)

    # The other formats are verified only if they are loaded: hashing reads whole files.
    if formats is not None and kinds:
        exported_runtime.verify_format(formats, kinds[0])
    return kinds


def _usable_kinds(formats: Formats) -> tuple[str, ...]:
    # torch on a GPU is faster than every format, all of which are for the CPU. It needs merged/: a
    # bundle may be served from its onnx/ alone.
    has_merged = (formats.root / MERGED).is_dir()
    if has_merged and torch_has_gpu():
        return ()

    names = []
    for name, kind in KINDS.items():
        if name in formats.passed and kind.installed:
            names.append(name)
    return tuple(names)


def _require_kind(path: Path, formats: Formats | None, name: str) -> None:
    if formats is None or name not in formats.passed:
        left_out = {} if formats is None else formats.left_out
        reason = left_out.get(name, "it was not exported")
        raise ModelError(
            f"{path} holds no format that was verified for {name} ({reason})", "Use runtime: auto"
        )

    engine = KINDS[name].engine
    if not KINDS[name].installed:
        raise ModelError(
            f"{engine} is not installed", f"Use runtime: auto, or pip install {engine}"
        )


def require_torch(path: Path, name: RuntimeName) -> None:
    """Raise MissingPackage where torch should compute a model and is not installed."""
    what = "runtime: torch"
    if name == "auto":
        what = f"{path} holds no verified format that this installation computes; its plain model"
    distribution.require("torch", "transformers", what=what)


def torch_has_gpu() -> bool:
    """Whether torch is installed and the NVIDIA driver has a device; torch is not imported."""
    if importlib.util.find_spec("torch") is None:
        return False

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False

    # The driver's functions return 0 where they succeed.
    if driver.cuInit(0) != 0:
        return False

    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return False
    return count.value > 0
