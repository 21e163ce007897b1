"""Several models as a process: bundles are swapped under load, and no request is lost."""

import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from adapter_fixtures import alone, make_tenants
from servers import Server, serving
from serving_fixtures import write_tiny_bundle

from bankintent.export import shared_base

pytestmark = pytest.mark.scale

SWAPS = 4

TEXT = "my card"


def publish(bundle: Path, place: Path) -> None:
    """Put a bundle in the place of another as publishing does: copied, then renamed twice."""
    staging = place.with_name(f".{place.name}.new")
    former = place.with_name(f".{place.name}.former")
    shutil.copytree(bundle, staging)
    place.rename(former)
    staging.rename(place)
    shutil.rmtree(former)


def loads(server: Server) -> float:
    return server.metric("bankintent_model_loads_total")


class Clients:
    """Threads that ask one model each, one request after another, until they are stopped."""

    def __init__(self, server: Server, models: list[str]) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.labels: Counter[tuple[str, str]] = Counter()
        self._url = server.url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in models]
        for thread in self._threads:
            thread.start()

    def _ask(self, model: str) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                body = {"text": TEXT, "model": model}
                response = client.post(f"{self._url}/predict/", json=body)
                self.statuses[model, response.status_code] += 1
                if response.is_success:
                    self.labels[model, response.json()["label"]] += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_bundles_are_swapped_under_load_and_no_request_fails(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    for name in ("shop", "bank"):
        shutil.copytree(bundle, tmp_path / "all" / name)
    config = {"models_dir": str(tmp_path / "all"), "watch_s": 0.2}

    with serving(tmp_path / "server", config=config) as server:
        clients = Clients(server, ["shop", "shop", "bank"])
        try:
            server.until(lambda server: loads(server) == 2)
            for number in range(SWAPS):
                publish(bundle, tmp_path / "all" / "shop")
                server.until(lambda server, number=number: loads(server) == 3 + number)
                time.sleep(0.3)

            # An operator need not wait for the next look.
            shutil.copytree(bundle, tmp_path / "all" / "late")
            server.process.send_signal(signal.SIGHUP)
            body = {"text": "my card"}
            server.until(lambda server: server.post("/models/late/predict", body).is_success)
        finally:
            clients.stop()

        assert {status for _, status in clients.statuses} == {200}
        assert clients.statuses["shop", 200] > 50
        server.process.terminate()
        assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.log


def test_adapters_are_swapped_on_an_exported_base_under_load(tmp_path: Path) -> None:
    """One tenant changes its adapter and its labels again and again; its neighbour notices nothing."""
    folder = make_tenants(tmp_path)
    shared_base.export(folder / "models" / "b", folder / "base")
    a = folder / "models" / "a"
    b = folder / "models" / "b"
    best = {
        a: f"intent_{alone(folder, 3)[0].argmax()}",
        b: f"intent_{alone(folder, 5)[0].argmax()}",
    }
    shutil.copytree(a, tmp_path / "all" / "shop")
    shutil.copytree(b, tmp_path / "all" / "bank")
    config = {"models_dir": str(tmp_path / "all"), "watch_s": 0.2, "base": str(folder / "base")}

    with serving(tmp_path / "server", config=config) as server:
        clients = Clients(server, ["shop", "shop", "bank"])
        try:
            server.until(lambda server: loads(server) == 2)
            for number, bundle in enumerate((b, a, b, a)):
                publish(bundle, tmp_path / "all" / "shop")
                server.until(lambda server, number=number: loads(server) == 3 + number)
                time.sleep(0.3)
        finally:
            clients.stop()

        info = server.get("/info?model=shop").json()
        assert info["runtime"].endswith("on a shared base")
        assert {status for _, status in clients.statuses} == {200}
        assert {label for name, label in clients.labels if name == "bank"} == {best[b]}
        # In turn both; where they are the same, one.
        assert {label for name, label in clients.labels if name == "shop"} == {best[a], best[b]}
    assert "Traceback" not in server.log
