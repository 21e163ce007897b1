"""The machine that trains: arithmetic, memory, and its name in a record."""

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits

from bankintent.errors import TrainingError

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""Options of glibc's mallopt, as its malloc.h numbers them."""


def pick_precision(setting: str) -> str:
    """The arithmetic to train in: `fp32`, `bf16` or `fp16`.

    `auto` is bf16 where it is native, fp16 with gradient scaling on CUDA GPUs without it, otherwise
    fp32. Raises TrainingError for fp16 without a CUDA GPU.
    """
    has_cuda = torch.cuda.is_available()
    if setting == "fp16" and not has_cuda:
        raise TrainingError(
            "precision: fp16 needs a CUDA GPU, and there is none", "Set precision: auto"
        )

    if setting != "auto":
        return setting

    if has_cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"

    capabilities = torch.cpu.get_capabilities()
    is_native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if is_native else "fp32"


def hardware_name() -> str:
    """The GPU's name, or the number of threads on a CPU."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU, {torch.get_num_threads()} threads"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch and BLAS compute on one thread of the CPU.

    For work in small steps, such as a head on cached features: a second thread gains nothing, and
    where other processes are busy each step waits for it, which made such training 25 times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def prepare_memory() -> None:
    """Get ready to train: start measuring a GPU's peak anew, or keep a CPU's freed memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next one; no-op with another C library.

    By default it gives large blocks back to the system at once, and each step pays for the same
    pages anew: kept, steps on a CPU were 7 to 10 % faster. The process holds its peak to its end,
    which for training is its life.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return

    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory() -> int:
    """Bytes: the peak on the GPU if there is one, otherwise the process's resident peak."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())

    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS gives bytes, Linux kibibytes.
    return peak if sys.platform == "darwin" else peak * 1024
