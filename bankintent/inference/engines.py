"""The libraries that compute an exported graph: ONNX Runtime and OpenVINO."""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bankintent.errors import ModelError

Feeds = dict[str, NDArray[Any]]
"""Values of a graph's inputs, by their names."""

Engine = Callable[[Feeds], list[NDArray[np.float32]]]
"""A loaded model that computes the outputs that it was started for, in their order."""


class Unfit(ModelError):
    """This machine or installation does not compute a format as it was verified."""


def start_onnxruntime(path: Path, outputs: list[str], threads: int, workers: int) -> Engine:
    """Load a model; each call of the engine runs on its share of the threads."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads // workers)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only

    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        # In onnxruntime 1.32 the kernel of this fusion is a scalar loop: without it the whole model
        # is 1.2 times as fast.
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    return lambda feeds: list(session.run(outputs, feeds))


def start_openvino(path: Path, outputs: list[str], threads: int, workers: int) -> Engine:
    """Load a model in bf16 on one stream for each worker; Unfit where the CPU has no bf16."""
    openvino = import_openvino()
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unfit("this CPU has no bf16 arithmetic", "Use runtime: onnx")

    options = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": workers,
    }
    compiled = core.compile_model(str(path), "CPU", options)
    # A request holds the buffers of one call at a time, so each thread needs its own.
    requests: Any = threading.local()

    def compute(feeds: Feeds) -> list[NDArray[np.float32]]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()

        results = requests.own.infer(feeds)
        # Copies: the next call overwrites the buffers.
        return [np.array(results[name]) for name in outputs]

    return compute


def import_onnxruntime() -> Any:
    """ONNX Runtime without its telemetry.

    Since 1.32 it writes an id below `~/.cache` when it is imported, and has an address to report
    to, unless this variable is set before.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def import_openvino() -> Any:
    """OpenVINO without its model converter, which is not needed here.

    `import openvino` imports `openvino.tools.ovc` if that succeeds, which starts a process that
    reports the import to Google Analytics and writes an id to `~/intel/`. Without it nothing is
    sent, and the import is three times as fast.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]

    converter = "openvino.tools.ovc"
    # Python refuses to import a name whose module is None.
    sys.modules[converter] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[converter]
