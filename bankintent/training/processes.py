"""The processes of one run, as torchrun and `accelerate launch` start them: one is the main one.

It alone writes, downloads, prints, tracks and publishes. What it makes once it hands to the others
over a group of its own, which has no time limit: its long single steps keep them waiting, and do
not end them. Without a launcher there is one process, and every function here does nothing more
than to call what it is given. torch is imported where a second process is there.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bankintent import console, process
from bankintent.errors import ConfigError, OutputError, ProcessEnded

if TYPE_CHECKING:
    import numpy as np
    import torch

MAIN = 0
"""The rank of the main process."""

WAIT = timedelta(days=365)
"""How long a process waits for the main one: a step of it may be training of a day."""

SEEN_AFTER = 10.0
"""Seconds after which a shared file system must show what another machine has written."""

CONNECTION_FAULTS = ("onnection closed", "onnection reset", "roken pipe", "ocket closed")
"""Parts of what gloo says where a process at the other end is gone."""

DIVIDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""The variable by which `accelerate launch` asks for each."""

T = TypeVar("T")


class _Group:
    """The group by which the processes of this run talk; None where there is one process."""

    control: Any = None


def count() -> int:
    """How many processes train together at this moment."""
    return 1 if _Group.control is None else process.launched()


def rank() -> int:
    """The number of this process, from 0."""
    return MAIN if _Group.control is None else process.rank()


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == MAIN


def require_divisible(batch_size: int, number: int) -> None:
    """Raise ConfigError where a batch cannot be divided among so many processes."""
    if batch_size % number == 0:
        return
    below = batch_size - batch_size % number
    fitting = [str(size) for size in (below, below + number) if size]
    raise ConfigError(
        f"batch_size {batch_size} cannot be divided among {number} processes",
        f"Use --set batch_size={' or '.join(fitting)}, or start another number of processes",
    )


@contextlib.contextmanager
def joined(batch_size: int) -> Iterator[None]:
    """Within the block the processes that a launcher has started are one run.

    `batch_size` is that of all together. Raises ProcessEnded where another of them ends early.
    """
    number = process.launched()
    if number == 1:
        # Libraries take the variables of a launcher for other processes to talk to.
        if process.is_launched():
            process.forget_launch()
        yield
        return

    require_divisible(batch_size, number)
    _require_whole_models()
    _require_first_start()
    silence = contextlib.nullcontext() if process.rank() == MAIN else console.silence()
    with silence, _explained():
        _join()
        yield


def _require_whole_models() -> None:
    """Raise ConfigError where a launcher asks to divide the weights among the processes."""
    for name, kind in DIVIDING.items():
        if os.environ.get(name, "").lower() == "true":
            raise ConfigError(
                f"{kind} divides a model's weights among the processes, and a bundle is made of"
                " whole ones",
                f"Start without {kind}: each process holds the model, and batches are divided",
            )


def _require_first_start() -> None:
    """Raise ConfigError where torchrun has started the processes again after one had failed."""
    # They would look for each other at the addresses of those that are gone.
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        raise ConfigError(
            "torchrun has started the processes again, which does not join them",
            "Start without --max-restarts; the same command goes on from the newest checkpoint",
        )


def _join() -> None:
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        # Tensors on the CPU, such as counts and figures, are exchanged too.
        backend = "cuda:nccl,cpu:gloo"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group(backend)
    _Group.control = distributed.new_group(backend="gloo", timeout=WAIT)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn the library's words for a process that is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        is_gone = type(error).__name__ in ("DistBackendError", "DistNetworkError")
        if not is_gone and not any(part in str(error) for part in CONNECTION_FAULTS):
            raise
        raise ProcessEnded(
            "another process of this run has ended",
            "Its own message says why; run the same command again to go on",
        ) from None


def go_on_alone() -> bool:
    """End the training together: True in the main process, which is alone from here on.

    The others get False, and are to end; what the main one still does needs neither their memory
    nor their cores.
    """
    if _Group.control is None:
        return True

    from accelerate.state import AcceleratorState
    from torch import distributed

    was_main = is_main()
    wait_for_all()
    _Group.control = None
    distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
    # Libraries, and processes that this one starts, look there for others to wait for.
    process.forget_launch()
    return was_main


def wait_for_all() -> None:
    """Wait until every process is here."""
    from_main(lambda: None)
    if _Group.control is not None:
        from torch import distributed

        with _explained():
            distributed.barrier(group=_Group.control)


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, which alone calls it: plain JSON values.

    The others wait for it. It is handed over as JSON, so that nothing is called when it is read.
    """
    if _Group.control is None:
        return make()

    import numpy as np
    import torch

    content = torch.empty(0, dtype=torch.uint8)
    value: Any = None
    if is_main():
        value = make()
        encoded = json.dumps(value).encode()
        content = torch.from_numpy(np.frombuffer(encoded, dtype=np.uint8).copy())

    size = _send(torch.tensor([len(content)]))
    if not is_main():
        content = torch.empty(int(size), dtype=torch.uint8)
    content = _send(content)
    return value if is_main() else json.loads(content.numpy().tobytes())


def table_from_main(make: "Callable[[], torch.Tensor]") -> "torch.Tensor":
    """The tensor that `make` gives in the main process, which alone calls it; on the CPU."""
    if _Group.control is None:
        return make()

    import torch

    table = make().contiguous() if is_main() else torch.empty(0)
    shape = from_main(lambda: list(table.shape))
    kind = from_main(lambda: str(table.dtype).removeprefix("torch."))
    if not is_main():
        table = torch.empty(shape, dtype=getattr(torch, kind))
    return _send(table)


def _send(tensor: "torch.Tensor") -> "torch.Tensor":
    """Fill `tensor` with the main process's, and return it."""
    from torch import distributed

    with _explained():
        distributed.broadcast(tensor, MAIN, group=_Group.control)
    return tensor


def added(array: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
    """Add up an array over the processes, in place: each has its own rows, and zeros elsewhere."""
    if _Group.control is None:
        return

    import torch
    from torch import distributed

    with _explained():
        distributed.all_reduce(torch.from_numpy(array), group=_Group.control)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Within the block the main process is done before the others begin: it downloads for them."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def require_rows(rows: int, key: str) -> None:
    """Raise ConfigError where a batch of so few rows has none for each process."""
    if rows < count():
        raise ConfigError(
            f"{key}: a batch of the contrastive stage has {rows} rows, fewer than the {count()}"
            " processes",
            f"Raise it, or start at most {rows} processes",
        )


def gathered(
    vectors: "torch.Tensor", label_ids: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The vectors, (rows, hidden), and labels, (rows,), of all processes.

    Only the own vectors carry a gradient: `add_gradients` adds up what each process finds.
    """
    if _Group.control is None:
        return vectors, label_ids

    import torch

    parts: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    for number, rows in enumerate(_rows_of_all(len(vectors), vectors.device)):
        is_own = number == rank()
        part = vectors.detach() if is_own else vectors.new_empty(rows, vectors.shape[1])
        label = label_ids if is_own else label_ids.new_empty(rows)
        for tensor in (part, label):
            torch.distributed.broadcast(tensor, number)
        parts.append(vectors if is_own else part)
        labels.append(label)
    return torch.cat(parts), torch.cat(labels)


def _rows_of_all(rows: int, device: "torch.device") -> list[int]:
    import torch

    counts = torch.zeros(count(), dtype=torch.int64, device=device)
    counts[rank()] = rows
    torch.distributed.all_reduce(counts)
    return [int(number) for number in counts]


def add_gradients(parameters: "Iterable[torch.nn.Parameter]") -> None:
    """Add up the gradients of the processes, in place."""
    import torch

    for parameter in parameters:
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)


def require_same(value: Any, what: str) -> None:
    """Raise ConfigError where this process has another `value`, plain JSON, than the main one."""
    if from_main(lambda: value) != value:
        raise ConfigError(
            f"process {rank()} on {socket.gethostname()} has other {what} than the main process",
            "Start the same command on the same data on every machine",
        )


def require_shared(path: Path, final: Path) -> None:
    """Raise OutputError where this process does not see what the main one has written to `path`."""
    ends = time.monotonic() + SEEN_AFTER
    while not path.exists():
        if time.monotonic() > ends:
            raise OutputError(
                f"process {rank()} on {socket.gethostname()} does not see the main process's"
                f" {path}",
                f"Put {final} on a file system that all machines share",
            )
        time.sleep(0.2)


def draw_apart(seed: int) -> None:
    """Let this process draw other random numbers than the rest, so that dropout is not the same.

    The main process goes on with those that it would draw alone.
    """
    if not is_main():
        from transformers import set_seed

        set_seed(seed + rank())
