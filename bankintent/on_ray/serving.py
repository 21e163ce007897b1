"""`serve --engine ray`: put the API onto a cluster, and keep it there until a signal comes."""

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from bankintent import console
from bankintent.config import ServeConfig
from bankintent.errors import ConfigError, ModelError
from bankintent.on_ray.cluster import connect
from bankintent.on_ray.multiplexing import require_supported, settings_of
from bankintent.serving.service import find_model

PORT_SECONDS = 5.0
"""Most seconds to reach the proxy, which is open once the replicas are ready."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_until_signal(settings: ServeConfig) -> None:
    """Serve the model on the cluster that the settings name, until SIGTERM or Ctrl+C.

    Raises a UserError where there is no such model, cluster or room, before anything is started.
    """
    # Read and verified here first: a replica could only die of it, again and again.
    verify(settings)
    with connect(settings.ray, "engine: ray") as cluster:
        cluster.require_room()
        # Before the replicas start: Ray would end this process at once, and leave them.
        with _signals() as ended, deployed(settings):
            address = f"http://{settings.host}:{settings.port}"
            console.say(f"Serving on {address} with Ray Serve, until Ctrl+C or SIGTERM.")
            ended.wait()


def verify(settings: ServeConfig) -> None:
    """Raise a UserError where the settings name a model that there is not."""
    require_supported(settings)
    if not settings.models:
        find_model(settings)

    for name in settings.models:
        find_model(settings_of(settings, name))


@contextlib.contextmanager
def deployed(settings: ServeConfig) -> Iterator[None]:
    """The application runs in this block, on the cluster that this process is connected to."""
    from ray import serve

    from bankintent.on_ray import serve_app

    # Nodes share no loopback: there a proxy on each of them would be of no use.
    location = "HeadOnly" if settings.host in LOOPBACK else "EveryNode"
    options = {"host": settings.host, "port": settings.port}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location=location, http_options=options, logging_config=serve_app.LOGGING)
    try:
        serve.run(serve_app.build(settings), name=serve_app.NAME)
    except RuntimeError as error:
        serve.delete(serve_app.NAME)
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the replicas do not start ({reason})",
            "Each node needs the model under the same path, and the same packages",
        ) from None

    try:
        _require_port(settings)
        yield
    finally:
        serve.delete(serve_app.NAME)
        # The cluster may serve other applications.
        if not serve.status().applications:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _require_port(settings: ServeConfig) -> None:
    """Raise ConfigError where Ray Serve ran already, with another address."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    try:
        socket.create_connection((host, settings.port), timeout=PORT_SECONDS).close()
    except OSError:
        raise ConfigError(
            f"Ray Serve does not listen on {settings.host}:{settings.port}: it was started on this"
            " cluster before, with another address",
            "Name that host and port, or end it with `serve shutdown`",
        ) from None


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl+C set in this block."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
