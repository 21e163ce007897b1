"""Several models in one server: chosen by name, loaded when asked, swapped and unloaded while it answers."""

import asyncio
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from models_fixtures import Served, Zoo, served, until, write_model

from bankintent import api_key
from bankintent.config import ServeConfig
from bankintent.configfile import build
from bankintent.errors import ConfigError
from bankintent.serving import lifetime, memory
from bankintent.serving.lanes import Lanes

Scenario = Callable[[Served], Coroutine[Any, Any, None]]


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Zoo:
    monkeypatch.delenv(api_key.KEY_VARIABLE, raising=False)
    return Zoo()


def run(zoo: Zoo, scenario: Scenario, **settings: Any) -> None:
    """Run a scenario against a server with these settings."""

    async def main() -> None:
        async with served(zoo, **settings) as server:
            await scenario(server)

    asyncio.run(main())


def two(folder: Path) -> dict[str, Any]:
    """The settings of two models with labels of their own."""
    shop = write_model(folder / "one", "order", "return")
    bank = write_model(folder / "two", "card", "pin", "rate")
    return {"models": {"shop": {"model_dir": shop}, "bank": {"model_dir": bank}}}


# Choosing a model


def test_a_request_chooses_its_model_in_the_body_or_by_the_path(zoo: Zoo, tmp_path: Path) -> None:
    async def scenario(server: Served) -> None:
        shop = (await server.ask("return it", "shop")).json()
        assert (shop["label"], shop["model"]["name"]) == ("return", "shop")
        bank = (await server.ask(["pin", "rate"], "bank")).json()
        assert [answer["label"] for answer in bank] == ["pin", "rate"]

        post = server.client.post
        by_path = await post("/models/bank/predict", json={"text": "pin"})
        assert by_path.json() == bank[0]
        assert (await post("/predict", json={"text": "pin", "model": "bank"})).json() == bank[0]
        scores = (await post("/models/shop/predict", json={"inputs": "return it"})).json()
        assert [score["label"] for score in scores] == ["return", "order"]

        both = await post("/models/bank/predict", json={"text": "pin", "model": "shop"})
        assert both.status_code == 404

    run(zoo, scenario, **two(tmp_path))


def test_an_unknown_name_is_a_404_with_some_of_those_that_there_are(
    zoo: Zoo, tmp_path: Path
) -> None:
    for number in range(40):
        write_model(tmp_path / "all" / f"model-{number:02}")

    async def scenario(server: Served) -> None:
        refused = await server.ask("secret words", "sekret")
        assert refused.status_code == 404
        body = refused.json()
        assert body["error_type"] == "unknown_model"
        assert "model-00" in body["error"]
        assert "more" in body["error"]
        assert "model-39" not in body["error"]
        assert "sekret" not in refused.text
        assert not any("sekret" in line for line in await server.metrics())
        assert zoo.loads == []

        for path in ("/models/sekret/predict",):
            assert (await server.client.post(path, json={"text": "x"})).status_code == 404
        for path in ("/info?model=sekret", "/card?model=sekret"):
            assert (await server.client.get(path)).status_code == 404

    run(zoo, scenario, models_dir=tmp_path / "all")


def test_a_request_that_names_no_model_gets_the_default_one_or_is_told_to_name_one(
    zoo: Zoo, tmp_path: Path
) -> None:
    settings = two(tmp_path)

    async def without(server: Served) -> None:
        refused = await server.ask("pin")
        assert refused.status_code == 422
        assert "bank, shop" in refused.json()["error"]
        assert (await server.client.get("/info")).status_code == 422
        assert (await server.client.get("/models")).json()["default"] is None

    async def with_default(server: Served) -> None:
        assert (await server.ask("pin")).json()["model"]["name"] == "bank"
        assert (await server.client.get("/info")).json()["labels"] == ["card", "pin", "rate"]

    async def with_model_dir(server: Served) -> None:
        assert (await server.ask("yes")).json()["model"]["name"] == "own"
        assert set(await server.models()) == {"own", "shop", "bank"}

    run(zoo, without, **settings)
    run(zoo, with_default, default_model="bank", **settings)
    run(zoo, with_model_dir, model_dir=write_model(tmp_path / "own"), **settings)


def test_one_model_is_asked_by_its_name_or_without_and_has_no_label_in_the_metrics(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        assert await server.label("yes") == "yes 1"
        assert await server.label("no", "only") == "no 1"
        refused = await server.ask("yes", "other")
        assert refused.status_code == 404
        assert "there is only" in refused.json()["error"]
        assert (await server.models())["only"]["state"] == "ready"

        lines = await server.metrics()
        assert "bankintent_held_texts 0.0" in lines
        assert not any("model=" in line for line in lines)

    run(zoo, scenario, model_dir=write_model(tmp_path / "only"))


# Loading


def test_a_model_is_loaded_by_the_first_request_and_once_for_all_that_wait(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        assert zoo.loads == []
        assert (await server.models())["shop"]["state"] == "not loaded"
        await server.ask("pin", "bank")

        zoo.loading.close()
        first = [asyncio.create_task(server.label("order", "shop")) for _ in range(5)]
        await until(lambda: zoo.loading.waiting)
        assert (await server.models())["shop"]["state"] == "loading"
        # Another model answers meanwhile, and so do probes.
        assert await server.label("pin", "bank") == "pin 1"
        assert (await server.client.get("/health/ready")).status_code == 200

        zoo.loading.open()
        assert await asyncio.gather(*first) == ["order 1"] * 5
        assert zoo.loads == ["two", "one"]

    run(zoo, scenario, **two(tmp_path))


def test_who_waits_for_a_model_past_its_deadline_is_told_and_the_load_goes_on(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        zoo.loading.close()
        late = await server.ask("order", "shop")
        assert late.status_code == 503
        assert int(late.headers["Retry-After"]) >= 1
        assert "loading" in late.json()["error"]

        zoo.loading.open()
        await until(lambda: zoo.loads == ["one"])
        assert await server.label("order", "shop") == "order 1"
        assert zoo.loads == ["one"]

    run(zoo, scenario, limits={"deadline_s": 0.3, "shutdown_s": 5}, **two(tmp_path))


def test_models_to_preload_are_loaded_before_the_server_is_ready(zoo: Zoo, tmp_path: Path) -> None:
    settings = two(tmp_path)
    settings["models"]["shop"]["preload"] = True
    settings["models"]["gone"] = {"model_dir": tmp_path / "nowhere", "preload": True}

    async def scenario(server: Served) -> None:
        assert zoo.loads == ["one"]
        assert (await server.models())["gone"]["state"] == "failed"

    run(zoo, scenario, **settings)


def test_a_broken_model_harms_no_neighbour_and_is_tried_again_when_its_files_change(
    zoo: Zoo, tmp_path: Path
) -> None:
    settings = two(tmp_path)
    write_model(tmp_path / "two", damaged=True)

    async def scenario(server: Served) -> None:
        for _ in range(2):
            refused = await server.ask("pin", "bank")
            assert refused.status_code == 503
            assert "GET /models says why" in refused.json()["error"]
        assert await server.label("order", "shop") == "order 1"
        status = (await server.models())["bank"]
        assert status["state"] == "failed"
        # Clients need not know where it is on the server's machine.
        assert status["reason"] == "bank: a file was changed. Copy it again."

        write_model(tmp_path / "two", "pin")
        await until(lambda: _state_is(server, "bank", "not loaded"))
        assert await server.label("pin", "bank") == "pin 1"

    run(zoo, scenario, **settings)


async def _state_is(server: Served, name: str, state: str) -> bool:
    models = await server.models()
    return name in models and models[name]["state"] == state


def test_a_copy_that_was_looked_at_too_early_is_tried_again_when_it_is_whole(
    zoo: Zoo, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "all" / "late", damaged=True)
    found = zoo.find_at

    def find(path: Path, base: Any) -> Callable[[], Any]:
        if (path / "weights").exists():
            return found(write_model(tmp_path / "whole"), base)
        return found(path, base)

    zoo.find_at = find  # type: ignore[method-assign]

    async def scenario(server: Served) -> None:
        assert (await server.ask("yes", "late")).status_code == 503
        # The manifest was copied first, and is the same.
        (folder / "weights").write_text("x")
        await until(lambda: _state_is(server, "late", "not loaded"))
        assert await server.label("yes", "late") == "yes 1"

    run(zoo, scenario, models_dir=folder.parent)


# Each its own


def test_each_model_has_its_own_limits_queue_and_policy(zoo: Zoo, tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", has_policy=True)
    limits = {"max_texts": 2, "max_queue": 2, "max_chars": 30}
    models = {
        "small": {"model_dir": tmp_path / "one", "limits": limits},
        "sure": {"model_dir": tmp_path / "two"},
    }

    async def scenario(server: Served) -> None:
        assert (await server.ask(["yes"] * 3, "small")).status_code == 422
        assert (await server.ask("y" * 31, "small")).status_code == 422
        assert (await server.ask(["yes"] * 3, "sure")).status_code == 200
        assert (await server.client.get("/info?model=small")).json()["limits"]["max_texts"] == 2

        # The queue of one is full, which is nothing to the other.
        zoo.work.close()
        held = asyncio.create_task(server.ask(["hold", "hold"], "small"))
        await until(lambda: zoo.work.waiting)
        assert (await server.ask("yes", "small")).status_code == 429
        assert (await server.ask("yes", "sure")).status_code == 200
        zoo.work.open()
        assert (await held).status_code == 200

        decisions = [(await server.ask("foreign", name)).json() for name in models]
        assert [one["decision"] for one in decisions] == ["answer", "abstain"]

    run(zoo, scenario, models=models)


def test_metrics_have_the_names_of_known_models_and_drop_those_that_are_gone(
    zoo: Zoo, tmp_path: Path
) -> None:
    write_model(tmp_path / "all" / "bank", "card")
    write_model(tmp_path / "all" / "shop", "order")

    async def scenario(server: Served) -> None:
        await server.ask("order", "shop")
        await server.ask("card", "bank")
        await server.ask("card", "unheard-of")
        lines = await server.metrics()
        assert 'bankintent_predictions_total{intent="order",model="shop"} 1.0' in lines
        assert 'bankintent_model_requests_total{model="bank",status="200"} 1.0' in lines
        assert 'bankintent_held_texts{model="bank"} 0.0' in lines
        assert 'bankintent_models{state="ready"} 2.0' in lines
        assert not any("unheard-of" in line for line in lines)

        shutil.rmtree(tmp_path / "all" / "shop")
        await until(lambda: _is_gone(server, "shop"))
        assert not any('model="shop"' in line for line in await server.metrics())

    run(zoo, scenario, models_dir=tmp_path / "all")


async def _is_gone(server: Served, name: str) -> bool:
    return name not in await server.models()


# Swapping


def test_a_bundle_that_appears_becomes_a_model_by_its_folders_name(
    zoo: Zoo, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()

    async def scenario(server: Served) -> None:
        assert (await server.ask("yes", "new")).status_code == 404
        write_model(folder / "new")
        write_model(folder / "a name with blanks")
        (folder / "no bundle").mkdir()
        await until(lambda: _state_is(server, "new", "not loaded"))
        # The only one is the default one.
        assert await server.label("yes") == "yes 1"
        assert set(await server.models()) == {"new"}

    run(zoo, scenario, models_dir=folder)


def test_a_replaced_bundle_is_loaded_beside_the_old_one_which_answers_what_it_has(
    zoo: Zoo, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    write_model(folder / "shop", "hold")

    async def scenario(server: Served) -> None:
        await server.label("hold", "shop")
        zoo.work.close()
        old = asyncio.create_task(server.label("hold", "shop"))
        await until(lambda: zoo.work.waiting)

        zoo.loading.close()
        write_model(folder / "shop", "plain", version="2")
        await until(lambda: zoo.loading.waiting)
        # While the new one is loading, the old one answers.
        queued = asyncio.create_task(server.label("hold", "shop"))
        await until(lambda: _held_is(server, "shop", 2))
        zoo.loading.open()
        await until(lambda: _version_is(server, "shop", "2"))
        assert await server.label("plain", "shop") == "plain 2"

        zoo.work.open()
        assert await asyncio.gather(old, queued) == ["hold 1", "hold 1"]

    run(zoo, scenario, models_dir=folder)


async def _held_is(server: Served, name: str, held: int) -> bool:
    return (await server.models())[name]["held"] == held


async def _version_is(server: Served, name: str, version: str) -> bool:
    return (await server.models())[name]["version"] == version


def test_a_new_version_that_is_broken_leaves_the_old_one_answering(
    zoo: Zoo, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "all" / "shop")

    async def scenario(server: Served) -> None:
        assert await server.label("yes", "shop") == "yes 1"
        write_model(folder, damaged=True)
        await until(lambda: _has_reason(server, "shop"))
        status = (await server.models())["shop"]
        assert (status["state"], status["version"]) == ("ready", "1")
        assert await server.label("yes", "shop") == "yes 1"

        write_model(folder, version="3")
        await until(lambda: _version_is(server, "shop", "3"))
        assert (await server.models())["shop"]["reason"] is None

    run(zoo, scenario, models_dir=folder.parent)


async def _has_reason(server: Served, name: str) -> bool:
    return (await server.models())[name]["reason"] is not None


def test_a_removed_bundle_answers_what_it_has_and_takes_nothing_more(
    zoo: Zoo, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "all" / "shop", "hold")

    async def scenario(server: Served) -> None:
        await server.label("hold", "shop")
        zoo.work.close()
        held = asyncio.create_task(server.label("hold", "shop"))
        await until(lambda: zoo.work.waiting)

        shutil.rmtree(folder)
        await until(lambda: _is_gone(server, "shop"))
        assert (await server.ask("hold", "shop")).status_code == 404
        zoo.work.open()
        assert await held == "hold 1"

    run(zoo, scenario, models_dir=folder.parent)


def test_a_folder_that_cannot_be_read_for_a_while_drops_no_model(zoo: Zoo, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "all" / "shop").parent

    async def scenario(server: Served) -> None:
        assert await server.label("yes", "shop") == "yes 1"
        folder.rename(tmp_path / "away")
        await asyncio.sleep(0.5)
        assert await server.label("yes", "shop") == "yes 1"

    run(zoo, scenario, models_dir=folder)


def test_a_hangup_looks_at_the_files_at_once(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()

    async def scenario(server: Served) -> None:
        write_model(folder / "new")
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: _state_is(server, "new", "not loaded"))

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(zoo, scenario, models_dir=folder, watch_s=1000)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_server_with_one_model_leaves_a_hangup_to_the_system() -> None:
    async def scenario() -> None:
        before = signal.getsignal(signal.SIGHUP)
        one: Any = SimpleNamespace(settings=ServeConfig())
        with lifetime.reloading_on_hangup(one):
            assert signal.getsignal(signal.SIGHUP) is before

    asyncio.run(scenario())


# Memory


@pytest.fixture
def each_takes_100_mb(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident", lambda: len(zoo.loads) * 100 * 1024 * 1024)


@pytest.mark.usefixtures("each_takes_100_mb")
def test_the_model_that_was_asked_the_longest_time_ago_is_unloaded_for_another(
    zoo: Zoo, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_model(tmp_path / "all" / name)

    async def scenario(server: Served) -> None:
        for name in ("a", "b", "a", "c"):
            assert await server.label("yes", name) == "yes 1"
        await until(lambda: _state_is(server, "b", "not loaded"))
        states = {name: one["state"] for name, one in (await server.models()).items()}
        assert states == {"a": "ready", "b": "not loaded", "c": "ready"}
        assert "bankintent_model_evictions_total 1.0" in await server.metrics()

        # It is loaded again when it is asked again.
        assert await server.label("no", "b") == "no 1"
        assert zoo.loads == ["a", "b", "c", "b"]
        assert (await server.models())["a"]["state"] == "not loaded"

    run(zoo, scenario, models_dir=tmp_path / "all", memory_mb=250)


@pytest.mark.usefixtures("each_takes_100_mb")
def test_a_model_with_work_in_hand_is_never_unloaded(zoo: Zoo, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / "all" / name)

    async def scenario(server: Served) -> None:
        await server.ask("yes", "a")
        # What a model takes is known once it was loaded.
        await server.ask("yes", "b")
        await until(lambda: _state_is(server, "a", "not loaded"))

        zoo.work.close()
        held = asyncio.create_task(server.ask("hold", "b"))
        await until(lambda: zoo.work.waiting)
        waits = asyncio.create_task(server.ask("yes", "a"))
        await until(lambda: _state_is(server, "a", "loading"))
        await asyncio.sleep(0.1)
        assert (await server.models())["b"]["state"] == "ready"
        zoo.work.open()
        assert (await held).status_code == 200
        assert (await waits).status_code == 200
        assert (await server.models())["b"]["state"] == "not loaded"

    run(zoo, scenario, models_dir=tmp_path / "all", memory_mb=150)


@pytest.mark.usefixtures("each_takes_100_mb")
def test_without_room_a_request_is_told_to_come_again(zoo: Zoo, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / "all" / name)

    async def scenario(server: Served) -> None:
        for name in ("a", "b"):
            await server.ask("yes", name)
        await until(lambda: _state_is(server, "a", "not loaded"))
        loaded = server.app.state.models.take("b")
        refused = await server.ask("yes", "a")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await server.models())["b"]["state"] == "ready"

        server.app.state.models.release(loaded)
        assert (await server.ask("yes", "a")).status_code == 200

    # Long enough for a load on a busy machine, of which the refused one takes all.
    limits = {"deadline_s": 2, "shutdown_s": 5}
    run(zoo, scenario, models_dir=tmp_path / "all", memory_mb=150, limits=limits)


def test_a_model_that_cannot_fit_is_said_to_need_more(zoo: Zoo, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "all" / "large")
    with (folder / "weights").open("wb") as file:
        file.truncate(30 * 1024 * 1024)

    async def scenario(server: Served) -> None:
        assert (await server.ask("yes", "large")).status_code == 503
        assert "more than memory_mb (20)" in (await server.models())["large"]["reason"]
        assert zoo.loads == []

    run(zoo, scenario, models_dir=folder.parent, memory_mb=20)


# A shared base


def tenants(folder: Path, **more: dict[str, Any]) -> dict[str, Any]:
    """Two models of a shared base, with labels of their own, and one that is not."""
    write_model(folder / "all" / "three", "a", "b", "c", base=1, **more.get("three", {}))
    write_model(folder / "all" / "two", "x", "y", base=1, **more.get("two", {}))
    write_model(folder / "all" / "alone", "hold", "m")
    return {"models_dir": folder / "all", "base": folder / "base"}


def test_models_on_one_base_share_its_batches_and_keep_their_labels(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        assert zoo.bases == [tmp_path / "base"]
        assert await server.label("b", "three") == "b 1"
        assert await server.label("y", "two") == "y 1"
        assert await server.label("m", "alone") == "m 1"

        zoo.work.close()
        first = asyncio.create_task(server.ask("hold", "two"))
        await until(lambda: zoo.work.waiting)
        rest = [
            asyncio.create_task(server.label(text, name))
            for text, name in (("c", "three"), ("y", "two"), ("a", "three"))
        ]
        await until(lambda: _held_is(server, "three", 2))
        assert 'bankintent_queue_texts{model="three"} 2.0' in await server.metrics()
        zoo.work.open()
        assert await asyncio.gather(*rest) == ["c 1", "y 1", "a 1"]
        assert (await first).status_code == 200
        assert sorted(zoo.batches[-1]) == ["a", "c", "y"]
        assert any('{model="(base)"}' in line for line in await server.metrics())

    run(zoo, scenario, **tenants(tmp_path))


def test_a_model_on_a_base_that_fails_fails_for_its_own_texts_only(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        await asyncio.gather(server.ask("x", "two"), server.ask("a", "three"))
        zoo.work.close()
        first = asyncio.create_task(server.ask("hold", "two"))
        await until(lambda: zoo.work.waiting)
        sound = asyncio.create_task(server.ask("y", "two"))
        broken = asyncio.create_task(server.ask("c", "three"))
        await until(lambda: _held_is(server, "three", 1))
        zoo.work.open()
        statuses = [(await one).status_code for one in (first, sound, broken)]
        assert statuses == [200, 200, 500]

    run(zoo, scenario, **tenants(tmp_path, three={"is_nan": True}))


def test_a_flood_for_one_model_on_a_base_does_not_starve_another(zoo: Zoo, tmp_path: Path) -> None:
    async def scenario(server: Served) -> None:
        await asyncio.gather(server.ask("x", "two"), server.ask("a", "three"))
        zoo.work.close()
        flood = [asyncio.create_task(server.ask(["hold"] * 64, "two")) for _ in range(6)]
        await until(lambda: zoo.work.waiting)
        assert (await server.ask("x", "two")).status_code == 429
        one = asyncio.create_task(server.ask("a", "three"))
        await until(lambda: _held_is(server, "three", 1))
        batches = len(zoo.batches)
        zoo.work.open()
        assert (await one).status_code == 200
        assert [(await each).status_code for each in flood] == [200] * 6

        # Of 96 batches, its text was in one of the first few.
        texts = zoo.batches[batches:]
        place = next(number for number, batch in enumerate(texts) if "a" in batch)
        assert len(texts) >= 90
        assert place <= 20

    limits = {"max_queue": 384, "shutdown_s": 20}
    batching = {"max_texts": 4}
    run(zoo, scenario, limits=limits, batching=batching, **tenants(tmp_path))


def test_a_model_on_a_base_is_replaced_without_a_lost_request(zoo: Zoo, tmp_path: Path) -> None:
    async def scenario(server: Served) -> None:
        await server.ask("x", "two")
        zoo.work.close()
        held = asyncio.create_task(server.label("hold", "two"))
        await until(lambda: zoo.work.waiting)
        write_model(tmp_path / "all" / "two", "new", base=1, version="2")
        # The check of the new one waits in the same queue.
        await until(lambda: zoo.loads == ["two", "two"])
        zoo.work.open()
        assert await held == "x 1"
        await until(lambda: _version_is(server, "two", "2"))
        assert await server.label("new", "two") == "new 2"

    run(zoo, scenario, **tenants(tmp_path))


def test_lanes_are_taken_in_turn_and_each_in_its_order() -> None:
    lanes = Lanes[Any]()
    lanes.extend([SimpleNamespace(lane="a", number=number) for number in range(4)])
    lanes.extend([SimpleNamespace(lane="b", number=number) for number in range(2)])
    assert len(lanes) == 6
    taken = [lanes.popleft() for _ in range(6)]
    assert [f"{one.lane}{one.number}" for one in taken] == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert len(lanes) == 0
    with pytest.raises(IndexError):
        lanes.popleft()


# Pages, other clients, the end


def test_the_page_offers_the_models_and_answers_by_the_chosen_one(zoo: Zoo, tmp_path: Path) -> None:
    async def scenario(server: Served) -> None:
        page = (await server.client.get("/?model=shop")).text
        assert "<option selected>shop</option>" in page
        assert "<option>bank</option>" in page
        assert zoo.loads == []

        answer = await server.client.post("/", data={"text": "rate", "model": "bank"})
        assert "<h2>rate</h2>" in answer.text
        assert "card?model=bank" in answer.text
        unknown = await server.client.post("/", data={"text": "rate", "model": "<b>"})
        assert unknown.status_code == 404
        assert "<b>" not in unknown.text

    run(zoo, scenario, **two(tmp_path))


def test_the_names_of_models_are_behind_the_key(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api_key.KEY_VARIABLE, "secret")

    async def scenario(server: Served) -> None:
        assert "shop" not in (await server.client.get("/")).text
        assert (await server.client.get("/models")).status_code == 401
        assert (await server.ask("order", "shop")).status_code == 401
        form = {"text": "rate", "model": "bank", "key": "secret"}
        assert "<h2>rate</h2>" in (await server.client.post("/", data=form)).text

    run(zoo, scenario, **two(tmp_path))


def test_clients_of_other_services_name_a_model_where_they_have_a_word_for_it(
    zoo: Zoo, tmp_path: Path
) -> None:
    task: dict[str, Any] = {
        "kind": "Conversation",
        "analysisInput": {"conversationItem": {"id": "1", "participantId": "1", "text": "return"}},
    }

    async def scenario(server: Served) -> None:
        async def clu(**parameters: str) -> Any:
            body = {**task, "parameters": parameters}
            return await server.client.post("/language/:analyze-conversations", json=body)

        async def luis(app: str) -> Any:
            path = f"/luis/prediction/v3.0/apps/{app}/slots/production/predict"
            return await server.client.get(path, params={"query": "return"})

        found = (await clu(projectName="shop")).json()["result"]["prediction"]["topIntent"]
        assert found == "return"
        assert (await luis("shop")).json()["prediction"]["topIntent"] == "return"
        assert (await clu()).json()["result"]["prediction"]["topIntent"] == "card"
        for refused in (await clu(projectName="other"), await luis("other")):
            assert refused.status_code == 404
            assert refused.json()["error"]["code"] == "NotFound"

        rasa = await server.client.post("/model/parse", json={"text": "pin"})
        assert rasa.json()["intent"]["name"] == "pin"

    compat = ["rasa", "clu", "luis"]
    run(zoo, scenario, compat=compat, default_model="bank", **two(tmp_path))


def test_a_draining_server_answers_what_it_holds_and_takes_nothing(
    zoo: Zoo, tmp_path: Path
) -> None:
    async def scenario(server: Served) -> None:
        await server.ask("order", "shop")
        zoo.work.close()
        held = asyncio.create_task(server.label("hold", "shop"))
        await until(lambda: zoo.work.waiting)
        server.app.state.models.drain()
        assert (await server.ask("pin", "bank")).status_code == 503
        assert (await server.client.get("/health/ready")).status_code == 503
        zoo.work.open()
        assert await held == "order 1"

    run(zoo, scenario, **two(tmp_path))


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "x"}, "base needs several models"),
        ({"models": {"a b": {"model_dir": "x"}}}, "a b"),
        ({"models": {"a": {"model_dir": "x", "limits": {"max_texts": 99}}}}, "more than limits"),
        ({"models": {"a": {"model_dir": "x", "limits": {"max_queue": 9}}}}, "less than its"),
        ({"models": {"a": {"model_dir": "x", "nonsense": 1}}}, "nonsense"),
    ],
)
def test_settings_that_cannot_be_served_are_named(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ServeConfig, settings)
