"""Errors of the machine in one line: a full disk, a missing permission, too little memory.

Libraries report them in many ways. What a user can do about each is said here.
"""

import errno
import os
import re
from collections.abc import Iterator

GO_ON = "the same command then goes on"

NEXT_STEPS = {
    errno.ENOSPC: f"Free space, or name another output; {GO_ON}",
    errno.EDQUOT: f"Free space, or name another output; {GO_ON}",
    errno.EFBIG: f"Allow larger files (ulimit -f), or name another output; {GO_ON}",
    errno.EACCES: "Change its permissions, or name another place",
    errno.EPERM: "Change its permissions, or name another place",
    errno.EROFS: "Name an output on a disk that can be written",
    errno.ENOTDIR: "A file stands where a folder is needed; name another place",
    errno.EISDIR: "A folder stands where a file is needed; name another place",
    errno.EEXIST: "Move it away, or name another place",
    errno.ENAMETOOLONG: "Name a shorter one",
    errno.ELOOP: "It is a link to itself; name another place",
    errno.EIO: "The disk fails; name another one",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "End other programs: the machine has no more open files",
    errno.ESTALE: "The network disk was changed meanwhile; run the same command again",
    errno.EXDEV: "The place is on two disks; name another output",
}
"""Error number -> what to do. Of any other number the traceback is needed."""

SYSTEM_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
"""How libraries in Rust, and Arrow, name the number in their texts."""

CUT_WRITE = re.compile(r"PytorchStreamWriter failed|inline_container.*(unexpected pos|file write)")
"""PyTorch when a file cannot be written whole, which hides the reason."""

SHORT_MEMORY = re.compile(r"can't allocate memory|out of memory|bad allocation|std::bad_alloc")
"""PyTorch and ONNX Runtime, on the CPU and on a GPU."""

NO_TEMPORARY = re.compile(r"No usable temporary directory")
"""Python where none of the usual folders can be written, which is a full disk most of the time."""

LESS_MEMORY = "End other programs, or use less: a smaller batch size, model or table"


def explain(error: BaseException) -> tuple[str, str] | None:
    """What was found and the next step; None where the error, and what caused it, is no such."""
    for cause in _chain(error):
        explanation = _explain_one(cause)
        if explanation is not None:
            return explanation
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, without those that a `from None` hides."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        hidden = cause.__suppress_context__
        cause = cause.__cause__ or (None if hidden else cause.__context__)


def _explain_one(error: BaseException) -> tuple[str, str] | None:
    text = str(error)
    if isinstance(error, MemoryError) or SHORT_MEMORY.search(text):
        return "there is too little memory", LESS_MEMORY
    if NO_TEMPORARY.search(text):
        return "no folder for temporary files can be written", "Free space in it, or set TMPDIR"
    if CUT_WRITE.search(text):
        return "a file could not be written whole", NEXT_STEPS[errno.ENOSPC]

    number = _system_number(error, text)
    if number not in NEXT_STEPS:
        return None

    place = getattr(error, "filename", None)
    reason = os.strerror(number)
    found = reason if place is None else f"{place}: {reason}"
    return found, NEXT_STEPS[number]


def _system_number(error: BaseException, text: str) -> int | None:
    """The number of an error of the operating system, also where only the text has it."""
    if isinstance(error, OSError):
        return error.errno or _number_in(text)
    # Only what libraries raise in its place: a UserError may quote such a text.
    return _number_in(text)


def _number_in(text: str) -> int | None:
    found = SYSTEM_NUMBER.search(text)
    if found is None:
        return None
    return int(found.group(1) or found.group(2))
