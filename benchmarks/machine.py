"""The machine, its libraries, and the floor: the arithmetic that cannot be left out.

The floor of a sentence is the floating-point operations of its real tokens in the encoder's
matrices, over the rate at which this machine multiplies large matrices. Padding, attention scores,
normalisation, tokenizing and HTTP are all above the floor.
"""

import contextlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bankintent import process
from bankintent.errors import UserError
from bankintent.process import cores

ROOT = Path(__file__).parents[1]

TEXTS = ROOT / "data" / "bundled" / "sentences.csv"
"""The sentences that servers and scoring are measured with."""

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "pyarrow",
    "fastapi",
    "uvicorn",
)

PRECISIONS = ("int8", "bf16", "float32")

NOT_PER_TOKEN = ("embed", "pooler", "classifier", "score", "head")
"""Parts of the names of weights that are looked up, or used once a sentence."""

SHAPE = (1024, 1536, 1536)
"""(m, k, n) of the measured product: 64 sentences of 16 tokens, and the largest matrix of such
encoders."""

Job = dict[str, Any]
"""The parameters of a measurement in a fresh process, as JSON."""


def describe() -> dict[str, Any]:
    """Hardware, system, libraries and date, which every JSON file of a benchmark records."""
    libraries = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": cores(),
        "machine": platform.machine(),
        "processor": processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": libraries,
    }


def processor() -> str:
    """The name of the CPU; empty where the system does not give it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()

    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def run_apart(module: str, job: Job) -> dict[str, Any]:
    """Run a job in a fresh process of `python -m module` and return its result.

    The module passes the job to its function with `answer_job`. Raises UserError where it fails.
    """
    job_json = json.dumps(job)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        failure = process.run_module(module, [job_json], log)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()

    if failure is not None:
        raise UserError(
            f"{module} failed: {failure}", f"Run it by itself: python -m {module} '{job_json}'"
        )
    # The log also holds what libraries write, which may come after the result.
    results = [line for line in lines if line.startswith("{")]
    return dict(json.loads(results[-1]))


def has_job() -> bool:
    """Whether this process was started by `run_apart`."""
    return len(sys.argv) == 2 and sys.argv[1].startswith("{")


def answer_job(measure: Callable[[Job], dict[str, Any]]) -> None:
    """Call a function with the job of this process and print its result as one line of JSON."""
    process.end_with_parent()
    process.quiet_libraries()
    result = measure(json.loads(sys.argv[1]))
    print(json.dumps(result))


def peak() -> dict[str, float]:
    """Operations a second of a large matrix product on all cores, by precision.

    They are measured in a fresh process: this one may hold a model and its threads.
    """
    return run_apart("benchmarks.machine", {"seconds": 1.0})


def measure_peak(job: Job) -> dict[str, float]:
    """The best rate of the products made in `seconds`, for each precision."""
    import torch

    torch.set_num_threads(cores())
    m, k, n = SHAPE
    operations = 2 * m * k * n

    rates = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        left = torch.randn(m, k).to(dtype)
        right = torch.randn(k, n).to(dtype)
        best = _best_seconds(partial(torch.mm, left, right), job["seconds"])
        rates[name] = operations / best

    left = torch.randint(-127, 127, (m, k), dtype=torch.int8)
    right = torch.randint(-127, 127, (k, n), dtype=torch.int8)
    best = _best_seconds(partial(torch._int_mm, left, right), job["seconds"])
    rates["int8"] = operations / best
    return rates


def _best_seconds(work: Callable[[], Any], seconds: float) -> float:
    """The shortest of the calls made within some seconds."""
    best = float("inf")
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        best = min(best, timed(work))
    return best


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def precision_of(runtime: str) -> str:
    """The precision that the name of a runtime tells, such as "onnxruntime 1.20, int8"."""
    return next(name for name in PRECISIONS if name in runtime)


def flops_per_token(model: Path) -> int:
    """Operations of one token's forward pass: two for each weight of the encoder's matrices.

    One is a multiplication, one an addition (Kaplan et al., 2020). `model` is a transformers folder
    with safetensors.
    """
    from safetensors import safe_open

    weights = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and is_per_token(name):
                    weights += shape[0] * shape[1]
    return 2 * weights


def is_per_token(name: str) -> bool:
    """Whether the weight of this name is multiplied with every token."""
    lowered = name.lower()
    return not any(part in lowered for part in NOT_PER_TOKEN)


if __name__ == "__main__":
    answer_job(measure_peak)
