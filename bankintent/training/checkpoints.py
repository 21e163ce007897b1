"""Checkpoints of a run: marked when they are whole, checked before they are read, then rotated.

A mark lists the size and the sha256 of every file and is written last, after everything else is on
the disk. A file that is not as the mark has it is never opened by the Trainer, and what the Trainer
opens of pickled files (optimizer, scheduler, scaler, random numbers) it opens with torch's
`weights_only`: a tampered one can name no function to call, even under a mark made to fit it.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bankintent import console, files

COMPLETE = "complete.json"
"""The mark, in the folder of a checkpoint."""

STATE = "trainer_state.json"
"""The Trainer's own record in a checkpoint: its log, and the step of the best one so far."""

KEPT = 2
"""Newest checkpoints that are kept: the last one, and the one to go back to if that is damaged."""


@dataclass(frozen=True)
class Unfit:
    """A checkpoint that a run cannot go on from."""

    path: Path
    reason: str


def checkpoint_of(folder: Path, step: int) -> Path:
    """The folder of the checkpoint that was saved after that many steps."""
    return folder / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The steps that were done when a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def mark(checkpoint: Path) -> None:
    """List the files of a written checkpoint with their hashes, when all are on the disk."""
    entries = {}
    for name in files.list_files(checkpoint):
        if name == COMPLETE:
            continue
        path = checkpoint / name
        _sync_file(path)
        entries[name] = _entry(path)

    # A power cut may keep a file and lose its name: folders are written out too.
    _sync_folder(checkpoint)
    _sync_folder(checkpoint.parent)
    content = {"step": step_of(checkpoint), "files": entries}
    files.write_text(checkpoint / COMPLETE, files.json_text(content))
    _sync_folder(checkpoint)


def rotate(folder: Path, keeps_best: bool) -> None:
    """Remove what is older than the newest checkpoints, which are marked.

    With `keeps_best` the best checkpoint that each of them names stays too: a run that goes back to
    the one before the newest has to find it.
    """
    checkpoints = _checkpoints(folder)
    newest = checkpoints[-KEPT:]
    kept: set[Path | None] = set(newest)
    if keeps_best:
        kept |= {_best_of(checkpoint) for checkpoint in newest}

    for checkpoint in checkpoints:
        if checkpoint not in kept:
            _remove(checkpoint)


def take_newest_whole(folder: Path, needs_best: bool) -> Path | None:
    """The newest checkpoint that is as it was written; None where there is none.

    Those that cannot be gone on from are named with the reason, and removed: they are written
    again. `needs_best` is whether the run publishes its best epoch, whose weights lie in another
    checkpoint; that one must be whole too.
    """
    found = None
    unfit: list[Unfit] = []
    # The weights before training, step 0, are no place to go on from.
    for checkpoint in reversed([path for path in _checkpoints(folder) if step_of(path) > 0]):
        reason = _why_unfit(checkpoint, needs_best)
        if reason is None:
            found = checkpoint
            break
        unfit.append(Unfit(checkpoint, reason))

    for part in unfit:
        console.say(f"{console.show_path(part.path)} is passed over: {part.reason}.")
        _remove(part.path)
    if found is not None:
        console.say(f"Going on from {console.show_path(found)}.")
    elif unfit:
        console.say("There is no whole checkpoint to go on from: training starts anew.")
    if found is None:
        # Among them the weights before training, which are written again too.
        for checkpoint in _checkpoints(folder):
            _remove(checkpoint)
    return found


@contextlib.contextmanager
def own_random_state(checkpoint: str | None, processes: int) -> Iterator[str | None]:
    """Yield a folder where the Trainer finds the random state for so many processes.

    It is the checkpoint, or, where another number of processes wrote that, a folder with the main
    one's state: the rows go on in the order in which they would have come.
    """
    names = ("rng_state.pth", "rng_state_0.pth")
    wanted = names[0] if processes == 1 else names[1]
    other = names[1] if processes == 1 else names[0]
    is_other = checkpoint is not None and not (Path(checkpoint) / wanted).is_file()
    if checkpoint is None or not is_other or not (Path(checkpoint) / other).is_file():
        yield checkpoint
        return

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(Path(checkpoint) / other, Path(folder) / wanted)
        yield folder


def fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where each file is as it was marked."""
    if checkpoint.is_symlink():
        return "it is a link"
    if not checkpoint.is_dir():
        return "it is gone"

    content = _read_mark(checkpoint)
    if isinstance(content, str):
        return content
    if content.get("step") != step_of(checkpoint):
        return f"its {COMPLETE} is that of another step"

    entries = content["files"]
    present = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*")}
    expected = {*entries, COMPLETE}
    for name in entries:
        # Of its folders, if it lies in one; the last parent is the checkpoint itself.
        expected |= {parent.as_posix() for parent in Path(name).parents[:-1]}

    # The Trainer looks for files of many names, and prefers some to those that it has written.
    more = sorted(present - expected)
    if more:
        return f"{more[0]} was not written with it"
    for name, entry in entries.items():
        reason = _file_fault(checkpoint / name, entry)
        if reason is not None:
            return f"{name} {reason}"
    return None


def _read_mark(checkpoint: Path) -> dict[str, Any] | str:
    """The mark's content, with a table of files; a reason in words where it has none."""
    path = checkpoint / COMPLETE
    if not path.is_symlink() and not path.exists():
        return "it was not written to its end"
    if path.is_symlink() or not path.is_file():
        return f"its {COMPLETE} is no file"

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"its {COMPLETE} is damaged"
    if not isinstance(content, dict):
        return f"its {COMPLETE} is damaged"
    if "files" not in content:
        return f"its {COMPLETE} has no hashes, as earlier versions wrote it"
    if not isinstance(content["files"], dict) or not content["files"]:
        return f"its {COMPLETE} is damaged"
    return content


def _file_fault(path: Path, entry: Any) -> str | None:
    """What is wrong with a listed file, in words."""
    if path.is_symlink():
        return "is a link"
    if not path.is_file():
        return "is missing"

    # By its size first: a large file that was cut short need not be read.
    if not isinstance(entry, dict) or entry.get("size") != path.stat().st_size:
        return "has not the size that was recorded"
    try:
        is_same = entry == _entry(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_same else "is damaged"


def _why_unfit(checkpoint: Path, needs_best: bool) -> str | None:
    """Why a run cannot go on from a checkpoint; None where it can."""
    reason = fault(checkpoint)
    if reason is not None or not needs_best:
        return reason

    best = _best_of(checkpoint)
    if best is None or best == checkpoint:
        return None
    reason = fault(best)
    return None if reason is None else f"of the best one so far, {best.name}, {reason}"


def _best_of(checkpoint: Path) -> Path | None:
    """The checkpoint of the best epoch so far, by the Trainer's record; None where it has none."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        step = state["best_global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        # Rotation reads records that nothing has checked since they were written.
        return None
    return None if step is None else checkpoint_of(checkpoint.parent, step)


def _checkpoints(folder: Path) -> list[Path]:
    """All, whole or not, by their steps."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": files.sha256(path)}


def _remove(checkpoint: Path) -> None:
    if checkpoint.is_symlink() or checkpoint.is_file():
        checkpoint.unlink(missing_ok=True)
    else:
        shutil.rmtree(checkpoint, ignore_errors=True)


def _sync_file(path: Path) -> None:
    # For writing too: Windows refuses to write out a file that is open for reading alone.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        # It opens no folders, and keeps names by itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
