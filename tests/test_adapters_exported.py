"""Rows of different adapters in one batch of an exported base, which needs no torch."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from adapter_fixtures import (
    LAYERS,
    TEXTS,
    alone,
    make_tenant,
    make_tenants,
    require_like_alone,
    require_undisturbed,
    serve_on,
)
from conftest import REPOSITORY, Run
from tiny_models import byte_level_tokenizer

import bankintent
import bankintent.__main__ as verbs
from bankintent.errors import ModelError, OutputError
from bankintent.inference.adapters.heads import Head, Linear
from bankintent.inference.adapters.reading import Adapter, Pair, Unsuited
from bankintent.inference.adapters.stacks import NO_ADAPTER, Layer, Stacks
from bankintent.inference.adapters.tenants import open_base


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tenants and the exported base of the one with the larger rank."""
    from bankintent.export import shared_base

    folder = make_tenants(tmp_path_factory.mktemp("tenants"))
    shared_base.export(folder / "models" / "b", folder / "base")
    return folder


def test_a_mixed_batch_answers_as_each_model_alone(tenants: Path) -> None:
    require_like_alone(open_base(tenants / "base", threads=1), tenants)


def test_adapters_come_and_go_while_batches_run(tenants: Path) -> None:
    require_undisturbed(open_base(tenants / "base", threads=2), tenants)


def test_a_tokenizer_that_keeps_blanks_agrees_with_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts of the record are folded like all others, also where they end with a blank."""
    from bankintent.export import shared_base
    from bankintent.inference.adapters import exported_base

    # Short ones, of which a blank is a large part.
    for module in (shared_base, exported_base):
        monkeypatch.setattr(module, "PROBES", ("a ", "bc ", "def "))
    tenant = make_tenant(tmp_path / "models" / "a", 3, 2, tokenizer=byte_level_tokenizer())
    shared_base.export(tenant, tmp_path / "base")
    assert len(open_base(tmp_path / "base", threads=1).load(tenant).tokenize(["a "])[0]) == 3


HEAD = Head(Linear(np.zeros((2, 4), np.float32), np.zeros(2, np.float32)), inner={})


def layers() -> list[Layer]:
    return [Layer("first", inputs=3, outputs=2), Layer("second", inputs=2, outputs=4)]


def adapter(value: float, *names: str) -> Adapter:
    """An adapter of rank 1 whose numbers are all the same."""
    sizes = {layer.name: (layer.inputs, layer.outputs) for layer in layers()}
    pairs = {}
    for name in names:
        inputs, outputs = sizes[name]
        down = np.full((1, inputs), value, np.float32)
        pairs[name] = Pair(down, np.full((outputs, 1), value, np.float32))
    return Adapter(pairs, {})


def test_a_slot_holds_nothing_of_the_adapter_before() -> None:
    stacks = Stacks(layers(), [], rank=2)
    slot = stacks.add(adapter(1.0, "first", "second"), HEAD)
    assert slot != NO_ADAPTER
    assert stacks.feeds["down.second"][slot].tolist() == [[1.0, 0.0], [1.0, 0.0]]

    stacks.drop(slot)
    assert stacks.add(adapter(2.0, "first"), HEAD) == slot
    assert stacks.feeds["up.first"][slot].tolist() == [[2.0, 2.0], [0.0, 0.0]]
    assert not stacks.feeds["down.second"][slot].any()
    assert not stacks.feeds["up.second"][slot].any()


def test_a_batch_that_runs_keeps_its_stacks_when_they_grow() -> None:
    stacks = Stacks(layers(), [], rank=1)
    first = stacks.add(adapter(1.0, "first"), HEAD)
    taken = stacks.feeds
    before = taken["down.first"].copy()
    slots = {first} | {stacks.add(adapter(number, "second"), HEAD) for number in (2.0, 3.0, 4.0)}

    assert len(slots) == 4
    assert np.array_equal(taken["down.first"], before)
    assert np.array_equal(stacks.feeds["down.first"][first], before[first])
    assert all(not stack[NO_ADAPTER].any() for stack in stacks.feeds.values())


def test_the_slot_of_a_dropped_adapter_is_taken_again(tenants: Path) -> None:
    base = open_base(tenants / "base", threads=1)
    kept = base.load(tenants / "models" / "a")
    slots = set()
    for _ in range(6):
        tenant = base.load(tenants / "models" / "b")
        slots.add(tenant.adapter.slot)  # type: ignore[attr-defined]
        del tenant
        gc.collect()
    assert len(slots) <= 2
    assert kept.adapter.slot not in slots  # type: ignore[attr-defined]


def test_a_server_answers_each_tenant_from_an_exported_base(tenants: Path) -> None:
    for runtime in serve_on(tenants / "base", tenants):
        assert runtime.startswith("onnxruntime ")
        assert runtime.endswith("on a shared base")


WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "peft"):
    sys.modules[name] = None
import bankintent
base, a, b = sys.argv[1:]
adapters = bankintent.load_adapters(base, {"a": a, "b": b}, threads=1)
texts = ["my card", "a card is lost", "top up", "my money"]
print(adapters["a"].logits(texts).tolist())
print(adapters["b"].logits(texts).tolist())
"""


def test_an_exported_base_needs_no_torch(tenants: Path) -> None:
    paths = [tenants / "base", tenants / "models" / "a", tenants / "models" / "b"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    np.testing.assert_allclose(first, alone(tenants, 3), atol=1e-4)
    np.testing.assert_allclose(second, alone(tenants, 5), atol=1e-4)


def test_an_adapter_of_fewer_layers_is_taken(tenants: Path, tmp_path: Path) -> None:
    narrow = make_tenant(tmp_path / "models" / "narrow", 6, 1, LAYERS[1:2])
    tenant = open_base(tenants / "base", threads=1).load(narrow)
    logits = tenant.logits(tenant.tokenize(TEXTS))
    np.testing.assert_allclose(logits, alone(tmp_path, 6), atol=1e-4)


def test_adapters_that_the_exported_base_does_not_take_are_named(
    tenants: Path, tmp_path: Path
) -> None:
    from bankintent.export import shared_base

    query, dense, _ = LAYERS
    narrow = make_tenant(tmp_path / "narrow", 3, 2, (query,))
    shared_base.export(narrow, tmp_path / "base")
    base = open_base(tmp_path / "base", threads=1)
    with pytest.raises(Unsuited, match=rf"adapts {dense}, which the exported base does not"):
        base.load(tenants / "models" / "a")
    deep = make_tenant(tmp_path / "deep", 4, 3, (query,))
    with pytest.raises(Unsuited, match="has rank 3, and the exported base takes at most 2"):
        base.load(deep)
    shared_base.export(narrow, tmp_path / "wide", rank=8)
    assert len(open_base(tmp_path / "wide", threads=1).load(deep).facts.labels) == 4


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "runtime.json"])
def test_a_changed_file_of_an_exported_base_is_refused(
    tenants: Path, tmp_path: Path, name: str
) -> None:
    for path in (tenants / "base").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=rf"{name} was changed since it was exported"):
        open_base(tmp_path, threads=1)


@pytest.mark.parametrize("change", [{"rank": 0}, {"rank": 10**9}, {"rank": "4"}, {"layers": [1]}])
def test_a_record_that_is_none_is_refused(
    tenants: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    for path in (tenants / "base").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "base.json").read_text())
    (tmp_path / "base.json").write_text(json.dumps(record | change))
    with pytest.raises(ModelError, match=r"base\.json is not the record of a base"):
        open_base(tmp_path, threads=1)


def test_a_base_that_answers_otherwise_here_is_refused(tenants: Path, tmp_path: Path) -> None:
    for path in (tenants / "base").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "base.json").read_text())
    record["probes"][0][0] += 0.1
    (tmp_path / "base.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="gives other answers on this machine"):
        open_base(tmp_path, threads=1)


def test_share_says_what_it_has_written(tenants: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "base"
    result = run(verbs.share, tenants / "models" / "a", output, "--rank", "4")
    assert result.code == 0, result.err
    assert "takes adapters of 3 layers up to rank 4" in result.out
    assert sorted(path.name for path in output.iterdir()) == [
        "base.json",
        "model.onnx",
        "runtime.json",
        "tokenizer.json",
    ]
    adapters = bankintent.load_adapters(output, {"b": tenants / "models" / "b"}, threads=1)
    np.testing.assert_allclose(adapters["b"].logits(TEXTS), alone(tenants, 5), atol=1e-4)


def test_share_refuses_what_it_cannot_export(tenants: Path, tmp_path: Path) -> None:
    from bankintent.export import shared_base

    with pytest.raises(ModelError, match="holds no adapter/"):
        shared_base.export(tenants / "models" / "merged_3", tmp_path / "base")
    with pytest.raises(ModelError, match="does not exist"):
        shared_base.export(tenants / "nowhere", tmp_path / "base")
    with pytest.raises(ModelError, match="does not exist"):
        open_base(tenants / "nowhere")
    with pytest.raises(ModelError, match="has rank 4, more than 2"):
        shared_base.export(tenants / "models" / "b", tmp_path / "base", rank=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt.*another OUTPUT"):
        shared_base.export(tenants / "models" / "b", tmp_path / "mine")
    assert not (tmp_path / "base").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
