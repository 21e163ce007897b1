"""Shared by the tests of several models: bundles of a JSON file each, and a server over them in this process."""

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from policy_fixtures import make_policy

from bankintent.bundle.layout import MANIFEST
from bankintent.config import ServeConfig
from bankintent.configfile import build
from bankintent.errors import ModelError
from bankintent.inference.runtime import ModelFacts, Outputs, Tokens
from bankintent.serving.app import create_app

SECONDS = 10
"""Longest wait for something that a server does in a moment."""


def write_model(folder: Path, *labels: str, **more: Any) -> Path:
    """A bundle that `find` below reads; it takes the place of an older one as published bundles do.

    `more`: version, damaged, has_policy, base, is_nan.
    """
    staging = folder.with_name(f".{folder.name}.new")
    staging.mkdir(parents=True)
    (staging / MANIFEST).write_text(json.dumps({"labels": labels or ("yes", "no"), **more}))
    former = folder.with_name(f".{folder.name}.former")
    if folder.exists():
        folder.rename(former)
    staging.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    return folder


class Gate:
    """Holds whoever passes it while it is closed."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        self.waiting += 1
        assert self._open.wait(SECONDS)
        self.waiting -= 1


class Zoo:
    """Finds and loads the models of tests, and counts what is loaded and computed."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.batches: list[list[str]] = []
        """The texts of each batch."""
        self.loading = Gate()
        self.work = Gate()
        self.bases: list[Path] = []

    def find(self, settings: ServeConfig) -> Callable[[], Any]:
        assert settings.model_dir is not None
        return self.find_at(settings.model_dir, None)

    def find_at(self, path: Path, base: Any) -> Callable[[], Any]:
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except OSError:
            raise ModelError(f"{path} does not exist", "Name another one") from None
        if manifest.get("damaged"):
            raise ModelError(f"{path}: a file was changed", "Copy it again")

        def load() -> Runtime:
            self.loading.wait()
            self.loads.append(path.name)
            return Runtime(self, path, manifest, base)

        return load


class Runtime:
    """A model that gives the label that a text begins with, otherwise its first one."""

    def __init__(self, zoo: Zoo, path: Path, manifest: dict[str, Any], base: Any = None) -> None:
        self.zoo = zoo
        self.workers = 1
        self.labels = tuple(manifest["labels"])
        self.is_nan = manifest.get("is_nan", False)
        version = manifest.get("version", "1")
        self.facts = ModelFacts(
            path.name, version, self.labels, "h", "none", 0, 100, "a test's", path
        )
        self.policy = make_policy(self.labels) if manifest.get("has_policy") else None
        if base is not None:
            self.base = base

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        return [Tokens({"input_ids": [ord(letter) for letter in text]}, False) for text in texts]

    def logits_of(self, item: Tokens) -> list[float]:
        text = text_of(item)
        if self.is_nan and text != NOTHING:
            return [float("nan")] * len(self.labels)
        # By a policy of `make_policy`, logits below 4 are out of scope.
        return [9.0 if text.startswith(label) else 0.0 for label in self.labels]

    def outputs(self, items: list[Tokens]) -> Outputs:
        texts = [text_of(item) for item in items]
        if any(text.startswith("hold") for text in texts):
            self.zoo.work.wait()
        self.zoo.batches.append(texts)
        rows = [self.logits_of(item) for item in items]
        return Outputs(np.array(rows, dtype=np.float32), None)


NOTHING = "a short text"
"""The text with which a model on a base is checked when it is loaded."""


def text_of(item: Tokens) -> str:
    return "".join(chr(number) for number in item.features["input_ids"])


class Base:
    """A shared base: it computes each row by its own model."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo
        self.workers = 1

    def mixed_outputs(self, items: Sequence[tuple[Any, Tokens]]) -> list[Outputs]:
        texts = [text_of(item) for _, item in items]
        if any(text.startswith("hold") for text in texts):
            self.zoo.work.wait()
        self.zoo.batches.append(texts)
        results = []
        for tenant, item in items:
            logits = np.array([tenant.logits_of(item)], dtype=np.float32)
            results.append(Outputs(logits, None))
        return results


class Bases:
    """Bundles whose manifest names a base are served from it."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo

    def open(self, settings: ServeConfig) -> Any:
        assert settings.base is not None
        self.zoo.bases.append(settings.base)
        return Base(self.zoo)

    def find(self, path: Path, base: Any) -> Callable[[], Any] | None:
        load = self.zoo.find_at(path, base)
        manifest = json.loads((path / MANIFEST).read_text())
        return load if "base" in manifest else None


class Served:
    """A server in this process, asked through its ASGI app."""

    def __init__(self, app: Any, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client

    async def ask(self, text: Any, model: str | None = None, **more: Any) -> httpx.Response:
        body = {"text": text, **more}
        if model is not None:
            body["model"] = model
        return await self.client.post("/predict/", json=body)

    async def label(self, text: str, model: str | None = None) -> str:
        """The label of an answer and the version of the model that gave it."""
        answer = (await self.ask(text, model)).json()
        return f"{answer['label']} {answer['model']['version']}"

    async def models(self) -> dict[str, Any]:
        """What `GET /models` says of each, by name."""
        body = (await self.client.get("/models")).json()
        return {one["name"]: one for one in body["models"]}

    async def metrics(self) -> list[str]:
        return (await self.client.get("/metrics")).text.splitlines()


@contextlib.asynccontextmanager
async def served(zoo: Zoo, **settings: Any) -> AsyncIterator[Served]:
    """Serve these settings until the block ends."""
    config = build(ServeConfig, {"watch_s": 0.02, **settings})
    app = create_app(config, zoo.find, Bases(zoo))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        server = Served(app, client)
        await until(lambda: is_ready(server))
        yield server


async def is_ready(server: Served) -> bool:
    return (await server.client.get("/health/ready")).status_code == 200


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, which may be awaited."""

    async def wait() -> None:
        while True:
            result = condition()
            if isinstance(result, Awaitable):
                result = await result
            if result:
                return
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), SECONDS)
