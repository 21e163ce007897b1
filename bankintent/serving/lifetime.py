"""The life of a server process: find and load the model, serve, and end within `shutdown_s`."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Protocol

from bankintent.config import ServeConfig
from bankintent.serving import telemetry
from bankintent.serving.load_errors import as_user_error
from bankintent.serving.served import Served
from bankintent.serving.service import State


class Draining(Protocol):
    """What is drained on a signal: one service, or all that a process serves."""

    @property
    def settings(self) -> ServeConfig:
        """Those of the server."""

    @property
    def state(self) -> State:
        """Whether the process takes texts."""

    @property
    def held(self) -> int:
        """Texts admitted and not yet answered."""

    def drain(self) -> None:
        """Refuse new texts from here on."""


@contextlib.asynccontextmanager
async def serve(models: Served) -> AsyncIterator[None]:
    """The lifespan of an app: a model is verified before the port opens and loaded afterwards.

    A wrong model ends the process at once, and probes are answered while a large one loads. Of
    several models, a wrong one is no reason to end; wrong settings are.
    """
    telemetry.start_logging()

    try:
        await models.find()
    # Any error ends the process with one line, as below.
    except Exception as error:  # noqa: BLE001
        end_with_error(error)
        # The port must not open; the loop ends this process at its next step.
        await asyncio.Event().wait()

    with draining_on_signals(models), reloading_on_hangup(models):
        loading = asyncio.create_task(models.start())
        loading.add_done_callback(end_unless_loaded)
        yield

        # The end may come before the model is loaded.
        loading.cancel()
        await models.close()


def end_unless_loaded(loading: "asyncio.Task[None]") -> None:
    """End the process with one line and code 2 where loading the model failed."""
    if loading.cancelled():
        return

    error = loading.exception()
    # Any error ends the process: otherwise it would be unready for ever.
    if error is not None:
        end_with_error(error)


def end_with_error(error: BaseException) -> None:
    """Print one line and end the process at the next step of the event loop."""
    reason = as_user_error(error)
    with contextlib.suppress(OSError):
        print(f"error: {reason}", file=sys.stderr, flush=True)
    asyncio.get_running_loop().call_soon(leave, reason.exit_code)


def leave(code: int) -> None:
    """End this process at once."""
    # Not sys.exit: the threads of a model may still compute, and their library aborts the process
    # (code 134) when the interpreter is taken down beside them.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def draining_on_signals(service: Draining) -> Iterator[None]:
    """Make the service unready when SIGTERM or SIGINT arrives, then call the server's handler."""
    if threading.current_thread() is not threading.main_thread():
        # Python sets signal handlers in the main thread only; in tests an app may run in another.
        yield
        return

    loop = asyncio.get_running_loop()
    previous_handlers = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }

    def handle(number: int, frame: FrameType | None) -> None:
        if service.state is not State.DRAINING:
            service.drain()
            # A signal can interrupt any call, also one that logs: the event loop does the rest.
            loop.call_soon_threadsafe(limit_shutdown, service)

        previous = previous_handlers[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    for number in previous_handlers:
        signal.signal(number, handle)

    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def reloading_on_hangup(models: Served) -> Iterator[None]:
    """Look at the files of several models when SIGHUP arrives; one model leaves the signal be."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (models.settings.has_several and is_main and hasattr(signal, "SIGHUP")):
        yield
        return

    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(models.reload)

    previous = signal.signal(signal.SIGHUP, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)


def limit_shutdown(service: Draining) -> None:
    """End the process by force where it is still alive after `shutdown_s`."""
    seconds = service.settings.limits.shutdown_s
    telemetry.log_event("draining", held=service.held, at_most_seconds=seconds)

    # A thread also runs while the event loop hangs; as a daemon, it does not delay a normal end.
    timer = threading.Timer(seconds, end_by_force, [service])
    timer.daemon = True
    timer.start()


def end_by_force(service: Draining) -> None:
    """End this process at once, with code 1."""
    telemetry.log_event("cut off", held=service.held)
    # Not sys.exit, which ends only this thread and waits for a model that may hang.
    os._exit(1)
