"""The life of a server process: find and load the model, serve, and end within `shutdown_s`."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

from bankintent import machine_errors
from bankintent.config import ServeConfig
from bankintent.errors import UserError
from bankintent.inference.runtime import Runtime
from bankintent.serving import telemetry
from bankintent.serving.service import Service, State

Finder = Callable[[ServeConfig], Callable[[], Runtime]]
"""Finds and verifies the model of a config, and returns what loads it."""


@contextlib.asynccontextmanager
async def serve(service: Service, find: Finder) -> AsyncIterator[None]:
    """The lifespan of an app: the model is verified before the port opens and loaded afterwards.

    A wrong model ends the process at once, and probes are answered while a large one loads.
    """
    telemetry.start_logging()

    try:
        load = await asyncio.to_thread(find, service.settings)
    # Any error ends the process with one line, as below.
    except Exception as error:  # noqa: BLE001
        end_with_error(error)
        # The port must not open; the loop ends this process at its next step.
        await asyncio.Event().wait()

    with draining_on_signals(service):
        loading = asyncio.create_task(service.start(load))
        loading.add_done_callback(end_unless_loaded)
        yield

        # The end may come before the model is loaded.
        loading.cancel()
        await service.close()


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


def as_user_error(error: BaseException) -> UserError:
    """The error in one line, whatever its kind."""
    if isinstance(error, UserError):
        return error

    explanation = machine_errors.explain(error)
    if explanation is not None:
        return UserError(*explanation)
    return UserError(f"the model cannot be served: {type(error).__name__}: {error}")


def leave(code: int) -> None:
    """End this process at once."""
    # Not sys.exit: the threads of a model may still compute, and their library aborts the process
    # (code 134) when the interpreter is taken down beside them.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def draining_on_signals(service: Service) -> Iterator[None]:
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


def limit_shutdown(service: Service) -> None:
    """End the process by force where it is still alive after `shutdown_s`."""
    seconds = service.settings.limits.shutdown_s
    telemetry.log_event("draining", held=service.held, at_most_seconds=seconds)

    # A thread also runs while the event loop hangs; as a daemon, it does not delay a normal end.
    timer = threading.Timer(seconds, end_by_force, [service])
    timer.daemon = True
    timer.start()


def end_by_force(service: Service) -> None:
    """End this process at once, with code 1."""
    telemetry.log_event("cut off", held=service.held)
    # Not sys.exit, which ends only this thread and waits for a model that may hang.
    os._exit(1)
