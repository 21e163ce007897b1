"""Tenants of one tiny encoder: bundles with adapters of different ranks and heads of different sizes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient
from tiny_models import tiny_config, tiny_tokenizer

from bankintent.bundle import layout
from bankintent.config import ServeConfig
from bankintent.inference.adapters.tenants import AdapterBase
from bankintent.labels import LabelSchema
from bankintent.serving.app import create_app

LAYERS = (
    "bert.encoder.layer.0.attention.self.query",
    "bert.encoder.layer.1.intermediate.dense",
    "bert.pooler.dense",
)
"""Layers of a tiny BERT that adapters change."""

OF_ARCHITECTURE = {
    "bert": (LAYERS, ("classifier",)),
    "distilbert": (
        ("distilbert.transformer.layer.1.ffn.lin1",),
        ("pre_classifier", "classifier"),
    ),
    "electra": (("electra.encoder.layer.1.attention.self.key",), ("classifier",)),
    "roberta": (("roberta.encoder.layer.0.output.dense",), ("classifier",)),
    "deberta-v2": (("deberta.encoder.layer.0.attention.self.query_proj",), ("classifier",)),
}
"""Architecture -> the layers that adapters change, and the modules of its head."""

TEXTS = ["my card", "a card is lost", "top up", "my money"]


def make_tenant(
    root: Path,
    labels: int,
    rank: int,
    layers: tuple[str, ...] | None = None,
    architecture: str = "bert",
    tokenizer: Any = None,
) -> Path:
    """A sealed bundle with an adapter, and beside it `merged_<labels>`, the merged model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    schema = LabelSchema.from_names([f"intent_{number}" for number in range(labels)])
    base = root / f"base_{labels}"
    torch.manual_seed(0)
    ids = {"id2label": schema.id2label, "label2id": schema.label2id}
    tokenizer = tokenizer or tiny_tokenizer()
    model = AutoModelForSequenceClassification.from_config(
        tiny_config(architecture, tokenizer, **ids)
    )
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    schema.save(root / layout.LABELS)

    adapted, head = OF_ARCHITECTURE[architecture]
    weights = load_file(base / "model.safetensors")
    tensors = adapt(weights, layers or adapted, head, rank)
    write_adapter(root / "adapter", tensors, rank, head)
    layout.seal(root, {})

    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model.save_pretrained(root.parent / f"merged_{labels}")
    tokenizer.save_pretrained(root.parent / f"merged_{labels}")
    return root


def adapt(
    weights: dict[str, np.ndarray], layers: tuple[str, ...], head: tuple[str, ...], rank: int
) -> dict[str, np.ndarray]:
    """Random matrices of LoRA with a scaling of 2 and a random head, which are put into the weights."""
    random = np.random.default_rng(rank)
    tensors = {}
    for name in layers:
        outputs, inputs = weights[f"{name}.weight"].shape
        down = random.normal(scale=0.5, size=(rank, inputs)).astype(np.float32)
        up = random.normal(scale=0.5, size=(outputs, rank)).astype(np.float32)
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        weights[f"{name}.weight"] += 2 * up @ down

    for name in weights:
        if name.split(".")[0] in head:
            weights[name] = random.normal(size=weights[name].shape).astype(np.float32)
            tensors[name] = weights[name]
    return tensors


def write_adapter(
    folder: Path, tensors: dict[str, np.ndarray], rank: int, head: tuple[str, ...]
) -> None:
    """The files that PEFT writes."""
    folder.mkdir()
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    text = json.dumps({**settings, "modules_to_save": list(head)})
    (folder / "adapter_config.json").write_text(text)


def make_tenants(folder: Path, architecture: str = "bert") -> Path:
    """A folder with `models/a` (3 labels, rank 2) and `models/b` (5 labels, rank 4)."""
    make_tenant(folder / "models" / "a", 3, 2, architecture=architecture)
    make_tenant(folder / "models" / "b", 5, 4, architecture=architecture)
    return folder


def alone(folder: Path, labels: int) -> np.ndarray:
    """The logits of TEXTS by the merged model of the tenant with so many labels, text by text."""
    from bankintent.inference.torch_runtime import TorchRuntime

    model = folder / "models" / f"merged_{labels}"
    runtime = TorchRuntime(layout.open_checkpoint(model), threads=1)
    return np.concatenate([runtime.logits([item]) for item in runtime.tokenize(TEXTS)])


def require_like_alone(base: AdapterBase, folder: Path) -> None:
    """Every text in a batch with texts of the other tenant is answered as by the merged model."""
    a = base.load(folder / "models" / "a")
    b = base.load(folder / "models" / "b")
    assert (a.facts.name, len(a.facts.labels)) == ("a", 3)
    assert (b.facts.name, len(b.facts.labels)) == ("b", 5)

    tokens = a.tokenize(TEXTS)
    order = [a, b, b, a]
    mixed = base.mixed_outputs(list(zip(order, tokens, strict=True)))
    expected = {a: alone(folder, 3), b: alone(folder, 5)}
    for row, (tenant, outputs) in enumerate(zip(order, mixed, strict=True)):
        assert outputs.logits.shape == (1, len(tenant.facts.labels))
        np.testing.assert_allclose(outputs.logits[0], expected[tenant][row], atol=1e-4)
    np.testing.assert_allclose(b.logits(tokens), expected[b], atol=1e-4)


def require_undisturbed(base: AdapterBase, folder: Path) -> None:
    """Batches of one tenant give the same while five others are loaded, asked and dropped."""
    a = base.load(folder / "models" / "a")
    tokens = a.tokenize(TEXTS)
    expected = alone(folder, 3)
    expected_of_others = alone(folder, 5)

    def go_on(_: int) -> float:
        outputs = base.mixed_outputs([(a, item) for item in tokens])
        found = np.concatenate([one.logits for one in outputs])
        return float(np.abs(found - expected).max())

    with ThreadPoolExecutor(3) as pool:
        differences = pool.map(go_on, range(200))
        # Five at once: more than an exported base has slots for at first.
        others = [base.load(folder / "models" / "b") for _ in range(5)]
        for other in others:
            np.testing.assert_allclose(other.logits(tokens), expected_of_others, atol=1e-4)
        others.clear()
        assert max(differences) < 1e-4


def serve_on(base: Path, folder: Path) -> list[str]:
    """Ask a server with a shared base for each tenant, and require its best intents.

    Returns the runtimes that it says.
    """
    values = {"models_dir": folder / "models", "base": base, "threads": 1}
    runtimes = []
    with TestClient(create_app(ServeConfig.model_validate(values))) as client:
        end = time.monotonic() + 60
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.05)

        for name, labels in (("a", 3), ("b", 5)):
            answer = client.post(f"/models/{name}/predict", json={"text": TEXTS, "top_k": 5})
            assert answer.status_code == 200, answer.text
            found = [one["label"] for one in answer.json()]
            best = alone(folder, labels).argmax(axis=1)
            assert found == [f"intent_{number}" for number in best]
            info = client.get("/info", params={"model": name}).json()
            runtimes.append(info["runtime"])
    return runtimes
