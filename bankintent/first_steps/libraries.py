"""What the heavy libraries say of this machine, in a process of its own that may crash or hang.

    python -m bankintent.first_steps.libraries auto bundled/all-MiniLM-L6-v2

prints a JSON object a line: for each library its fault or null, then what a run would compute on.
"""

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from bankintent import process
from bankintent.errors import UserError

NEEDED = (
    "numpy",
    "scipy",
    "pyarrow",
    "sklearn",
    "matplotlib",
    "torch",
    "tokenizers",
    "safetensors",
    "transformers",
    "accelerate",
    "peft",
    "onnx",
    "onnxruntime",
    "openvino",
)
"""Modules that ETL, training, publishing and evaluation import."""

CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "avx512_vnni": "AVX-512 int8",
    "avx_vnni": "AVX int8",
    "amx_int8": "AMX int8",
}
"""Names of features in `torch.cpu.get_capabilities()`, and in words."""


def main(precision: str, model_name: str) -> None:
    """Print what there is to say, each line as soon as it is known."""
    process.quiet_libraries()
    for name in NEEDED:
        # Before it is imported too: the last line names what a crash came from.
        _print(importing=name)
        _print(imported=name, fault=_fault(partial(importlib.import_module, name)))

    _print(precision=precision, **_describe_hardware(precision))
    _print(encoder=model_name, fault=_fault(partial(_locate, model_name)))


def _print(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _fault(call: Callable[[], object]) -> str | None:
    """The first line of what a call raises; None where it ends well."""
    try:
        call()
    # A boundary: a broken installation raises anything, and each library is judged by itself.
    except Exception as error:  # noqa: BLE001
        if isinstance(error, UserError):
            return str(error)
        text = str(error).strip() or type(error).__name__
        return text.splitlines()[0]
    return None


def _describe_hardware(precision: str) -> dict[str, Any]:
    """What a run would compute on and in; the fault alone where torch does not say it."""
    facts: dict[str, Any] = {}
    fault = _fault(lambda: facts.update(_hardware_facts()))
    fault = fault or _fault(lambda: facts.update(picked=_pick(precision)))
    return facts | {"fault": fault}


def _hardware_facts() -> dict[str, Any]:
    import torch

    from bankintent.training import hardware

    known = torch.cpu.get_capabilities()
    features = [words for name, words in CPU_FEATURES.items() if known.get(name)]
    has_gpu = torch.cuda.is_available()
    return {"hardware": hardware.hardware_name(), "has_gpu": has_gpu, "features": features}


def _pick(precision: str) -> str:
    from bankintent.training import hardware

    return hardware.pick_precision(precision)


def _locate(model_name: str) -> None:
    from bankintent.training import backbones

    backbones.locate(model_name)


if __name__ == "__main__":
    main(*sys.argv[1:])
