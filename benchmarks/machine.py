"""What figures depend on: the machine, its libraries, and the floor, which is the arithmetic that cannot be left out.

The floor of a sentence is the floating-point operations of its real tokens in the encoder's matrices, over the rate at
which this machine multiplies large matrices. Padding, attention scores, normalisation, tokenizing and HTTP are all
above the floor.
"""

import contextlib
import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bankintent.errors import UserError
from bankintent.inference.runtime import cores

ROOT = Path(__file__).parents[1]
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
NOT_PER_TOKEN = ("embed", "pooler", "classifier", "score", "head")
"""Parts of the names of weights that are looked up, or used once a sentence."""
SHAPE = (1024, 1536, 1536)
"""(m, k, n) of the measured product: a batch of 64 sentences of 16 tokens, and the largest matrix of such encoders."""


def describe() -> dict[str, Any]:
    """Hardware, system, libraries and date, as every JSON file here begins."""
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
    """The name of the CPU, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )


def run_apart(module: str, job: dict[str, Any]) -> dict[str, Any]:
    """The JSON object that `python -m module JOB` prints last, from a fresh process; UserError where it fails."""
    command = [sys.executable, "-m", module, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        cause = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise UserError(
            f"{module} failed: {cause}", f"Run it by itself: python -m {module} '{json.dumps(job)}'"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak() -> dict[str, float]:
    """Operations a second of a large matrix product on all cores, by precision, measured in a fresh process."""
    return run_apart("benchmarks.machine", {"seconds": 1.0})


def measure_peak(seconds: float) -> dict[str, float]:
    """The best of the products made in `seconds`, for each precision that this CPU multiplies."""
    import torch

    torch.set_num_threads(cores())
    m, k, n = SHAPE
    floats = {"float32": torch.float32, "bf16": torch.bfloat16}
    pairs = {
        name: (torch.randn(m, k).to(kind), torch.randn(k, n).to(kind))
        for name, kind in floats.items()
    }
    pairs["int8"] = tuple(
        torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((m, k), (k, n))
    )
    rates = {}
    for name, (a, b) in pairs.items():
        multiply = torch._int_mm if name == "int8" else torch.mm
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            multiply(a, b)
            best = min(best, time.perf_counter() - started)
        rates[name] = 2 * m * k * n / best
    return rates


def flops_per_token(model: Path) -> int:
    """Operations of one token's forward pass: a multiplication and an addition for each weight of the encoder.

    `model` is a transformers folder with safetensors (Kaplan et al., 2020, for the count).
    """
    from safetensors import safe_open

    weights = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and not any(part in name.lower() for part in NOT_PER_TOKEN):
                    weights += shape[0] * shape[1]
    return 2 * weights


if __name__ == "__main__":
    print(json.dumps(measure_peak(**json.loads(sys.argv[1]))))
