"""Calls of a store in a thread of their own: in order, and none holds its caller for long.

The settings of MLflow and of the drivers bound single requests, and not all of them. So the caller
hands its calls over and goes on; where it must wait, it waits for signs of life.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from bankintent.tracking_files import UPLOAD

PATIENCE = 5.0
"""Seconds without a sign of life after which a store is given up."""

LOOK = 0.05
"""Seconds between two looks at a call that is waited for."""

BUSY_SHARE = 0.05
"""Share of a processor that this process uses where it works, as on a new database's tables, also
on a machine that is busy with much else. One that waits for an answer, or for a lock, uses less."""

MOST_BUSY = 60.0
"""Seconds in all for which such work counts as a sign of life."""

BYTES_A_SECOND = 10_000_000
"""A server that has taken a large file may need time to store it: a second for so many bytes."""

Call = Callable[[], object]


class StoreSilent(Exception):
    """The store gave no sign of life for PATIENCE seconds."""

    def __init__(self) -> None:
        super().__init__(f"the store did not answer for {PATIENCE:.0f} seconds")


class CallLine:
    """Calls that one thread makes in order, until one fails.

    The thread is a daemon: a call that never comes back does not keep the process alive.
    """

    def __init__(self, watched: Path | None = None) -> None:
        """`watched` is a file that changes while the store works: a database."""
        self.fault: Exception | None = None
        """What the first call that failed has raised; no call is made after it."""
        self._watched = watched
        self._waiting: deque[Call | None] = deque()
        self._added = 0
        self._done = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, call: Call) -> None:
        """Make a call after those before it; does not wait."""
        with self._changed:
            self._waiting.append(call)
            self._added += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until every call is done, or one has failed.

        Raises StoreSilent where there is no sign of life for PATIENCE seconds. Signs are calls that
        come to their end, bytes of files that are taken, and work of this process.
        """
        watch = _LifeSigns(self._watched)
        while self.fault is None and self._done < self._added:
            with self._changed:
                self._changed.wait(LOOK)
            if watch.is_silent(self._done):
                raise StoreSilent

    def close(self) -> None:
        """Let the thread end after the calls that were added, and drop them after a fault."""
        with self._changed:
            self._waiting.append(None)
            self._changed.notify_all()

    def give_up(self, fault: Exception) -> None:
        """Make no further call."""
        self.fault = self.fault or fault
        self.close()

    def _work(self) -> None:
        while self.fault is None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                call = self._waiting.popleft()
            if call is None:
                return

            try:
                call()
            # A boundary: a database, a disk and a server can fail in many ways, and none of them is
            # worth the hours of training behind it.
            except Exception as error:  # noqa: BLE001
                self.fault = self.fault or error
            with self._changed:
                self._done += 1
                self._changed.notify_all()


class _LifeSigns:
    """What is looked at while a call is waited for."""

    def __init__(self, watched: Path | None) -> None:
        self._watched = watched
        self._last = time.monotonic()
        self._window = (self._last, time.process_time())
        self._busy = 0.0
        self._seen: object = None

    def is_silent(self, done: int) -> bool:
        """Whether there was no sign for as long as a store may take."""
        now = time.monotonic()
        seen = (done, UPLOAD.taken, _version(self._watched))
        if seen != self._seen or self._is_busy(now):
            self._seen = seen
            self._last = now
        return now - self._last > PATIENCE + UPLOAD.taken / BYTES_A_SECOND

    def _is_busy(self, now: float) -> bool:
        """Whether this process has worked, in the last half of a second or more."""
        began, used = self._window
        if now - began < 0.5:
            return False

        work = time.process_time() - used
        self._window = (now, used + work)
        # A server's work is not done here: what reads its bytes, one by one, is no work.
        is_ours = self._watched is not None and self._busy < MOST_BUSY
        is_busy = is_ours and work > BUSY_SHARE * (now - began)
        if is_busy:
            self._busy += now - began
        return is_busy


def _version(path: Path | None) -> object:
    """What changes when a database, or the journal beside it, is written."""
    if path is None:
        return None
    versions: list[object] = []
    for name in (path.name, f"{path.name}-journal", f"{path.name}-wal"):
        try:
            status = os.stat(path.with_name(name))
        except OSError:
            versions.append(None)
        else:
            versions.append((status.st_mtime_ns, status.st_size))
    return versions
