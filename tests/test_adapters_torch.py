"""Rows of different adapters in one batch of a shared base in torch."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient
from tiny_models import tiny_config, tiny_tokenizer

import bankintent
from bankintent.bundle import layout
from bankintent.config import ServeConfig
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from bankintent.serving.app import create_app

TARGET = "bert.encoder.layer.0.attention.self.query"


def make_tenant(root: Path, labels: int, rank: int) -> Path:
    """A sealed bundle of a tiny BERT with an adapter, and its merged model in `merged_model`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    schema = LabelSchema.from_names([f"intent_{number}" for number in range(labels)])
    base = root / f"base_{labels}"
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = tiny_config("bert", tokenizer, id2label=schema.id2label, label2id=schema.label2id)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    schema.save(root / layout.LABELS)

    random = np.random.default_rng(rank)
    down = random.normal(size=(rank, 32)).astype(np.float32)
    up = random.normal(size=(32, rank)).astype(np.float32)
    head = random.normal(size=(labels, 32)).astype(np.float32)
    adapter = root / "adapter"
    adapter.mkdir()
    tensors = {f"{TARGET}.lora_A.weight": down, f"{TARGET}.lora_B.weight": up}
    tensors["classifier.weight"] = head
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    text = json.dumps({**settings, "modules_to_save": ["classifier"]})
    (adapter / "adapter_config.json").write_text(text)
    layout.seal(root, {})

    weights = load_file(base / "model.safetensors")
    weights[f"{TARGET}.weight"] += 2 * up @ down
    weights["classifier.weight"] = head
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model.save_pretrained(root.parent / f"merged_{labels}")
    tokenizer.save_pretrained(root.parent / f"merged_{labels}")
    return root


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tenants with other labels, ranks and heads, and the merged model of each."""
    folder = tmp_path_factory.mktemp("tenants")
    make_tenant(folder / "models" / "a", 3, 2)
    make_tenant(folder / "models" / "b", 5, 4)
    return folder


def alone(tenants: Path, labels: int, texts: list[str]) -> np.ndarray:
    """The logits of the merged model of a tenant, text by text."""
    from bankintent.inference.torch_runtime import TorchRuntime

    model = tenants / "models" / f"merged_{labels}"
    runtime = TorchRuntime(layout.open_checkpoint(model), threads=1)
    return np.concatenate([runtime.logits([item]) for item in runtime.tokenize(texts)])


TEXTS = ["my card", "a card is lost", "top up", "my money"]


def test_a_mixed_batch_answers_as_each_model_alone(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    base = open_base(tenants / "models" / "a", threads=1)
    a = base.load(tenants / "models" / "a")
    b = base.load(tenants / "models" / "b")
    assert (a.facts.name, len(a.facts.labels)) == ("a", 3)
    assert (b.facts.name, len(b.facts.labels)) == ("b", 5)

    tokens = a.tokenize(TEXTS)
    order = [a, b, b, a]
    mixed = base.mixed_outputs(list(zip(order, tokens, strict=True)))
    expected = {a: alone(tenants, 3, TEXTS), b: alone(tenants, 5, TEXTS)}
    for row, (tenant, outputs) in enumerate(zip(order, mixed, strict=True)):
        assert outputs.logits.shape == (1, len(tenant.facts.labels))
        np.testing.assert_allclose(outputs.logits[0], expected[tenant][row], atol=1e-4)
    np.testing.assert_allclose(b.logits(tokens), expected[b], atol=1e-4)


def test_adapters_come_and_go_while_batches_run(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    base = open_base(tenants / "models" / "a", threads=2)
    a = base.load(tenants / "models" / "a")
    tokens = a.tokenize(TEXTS)
    expected = alone(tenants, 3, TEXTS)

    def go_on(_: int) -> float:
        outputs = base.mixed_outputs([(a, item) for item in tokens])
        found = np.concatenate([one.logits for one in outputs])
        return float(np.abs(found - expected).max())

    with ThreadPoolExecutor(3) as pool:
        differences = pool.map(go_on, range(60))
        for _ in range(5):
            other = base.load(tenants / "models" / "b")
            assert other.logits(tokens).shape == (4, 5)
            del other
        assert max(differences) < 1e-4


def test_a_server_answers_each_tenant_from_one_base(tenants: Path) -> None:
    folder = tenants / "models"
    config = ServeConfig.model_validate({"models_dir": folder, "base": folder / "a", "threads": 1})
    with TestClient(create_app(config)) as client:
        end = time.monotonic() + 60
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        for name, labels in (("a", 3), ("b", 5)):
            answer = client.post(f"/models/{name}/predict", json={"text": TEXTS, "top_k": 5})
            assert answer.status_code == 200, answer.text
            found = [one["label"] for one in answer.json()]
            best = alone(tenants, labels, TEXTS).argmax(axis=1)
            assert found == [f"intent_{number}" for number in best]
            info = client.get("/info", params={"model": name}).json()
            assert info["runtime"].endswith("on a shared base")


def test_a_folder_without_an_adapter_is_no_base(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    with pytest.raises(ModelError, match="holds no adapter/"):
        open_base(tenants / "models" / "merged_3")


def test_adapters_are_swapped_by_name_in_python(tenants: Path) -> None:
    folder = tenants / "models"
    adapters = bankintent.load_adapters(folder / "a", {"cards": folder / "a"}, threads=1)
    assert list(adapters) == ["cards"]
    np.testing.assert_allclose(adapters["cards"].logits(TEXTS), alone(tenants, 3, TEXTS), atol=1e-4)

    adapters.add("loans", folder / "b")
    assert len(adapters["loans"].labels) == 5
    kept = adapters["cards"]
    adapters.remove("cards")
    assert list(adapters) == ["loans"]
    assert len(kept.predict(TEXTS)) == len(TEXTS)
    with pytest.raises(bankintent.UserError, match="holds no adapter/"):
        adapters.add("loans", folder / "merged_3")
    assert len(adapters["loans"].labels) == 5


def test_a_tenant_that_reads_shorter_texts_is_a_model_of_its_own(
    tenants: Path, tmp_path: Path
) -> None:
    from bankintent.inference.adapters.reading import Unsuited
    from bankintent.inference.adapters.tenants import open_base
    from bankintent.serving.tenants import AdapterBases

    short = tmp_path / "short"
    shutil.copytree(tenants / "models" / "b", short)
    settings = short / "base_5" / "tokenizer_config.json"
    values = json.loads(settings.read_text()) | {"model_max_length": 6}
    settings.write_text(json.dumps(values))
    (short / layout.MANIFEST).unlink()
    layout.seal(short, {})

    base = open_base(tenants / "models" / "a", threads=1)
    with pytest.raises(Unsuited, match="a base with other tokenizer"):
        base.load(short)
    # A server goes on to find it as any other model.
    assert AdapterBases().find(short, base) is None
    assert AdapterBases().find(tenants / "models" / "b", base) is not None
