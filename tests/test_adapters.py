"""Adapters on a shared base: what is read of a bundle, and which bundles share a base."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.reading import Unsuited, read_adapter
from bankintent.inference.adapters.trunk import Hashes, read_trunk, require_same_base
from bankintent.labels import LabelSchema

WIDTH = 8


def make_bundle(root: Path, labels: int, seed: int = 0, **settings: object) -> Path:
    """A sealed folder with a base of one layer and an adapter of rank 2."""
    names = [f"intent_{number}" for number in range(labels)]
    base = root / f"base_{labels}"
    adapter = root / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    LabelSchema.from_names(names).save(root / layout.LABELS)

    trunk = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    head = np.full((labels, WIDTH), labels, dtype=np.float32)
    save_file({"bert.dense.weight": trunk, "classifier.weight": head}, base / "model.safetensors")

    down = np.ones((2, WIDTH), dtype=np.float32)
    up = np.ones((WIDTH, 2), dtype=np.float32)
    tensors = {
        "base_model.model.bert.dense.lora_A.weight": down,
        "base_model.model.bert.dense.lora_B.weight": up,
        "base_model.model.classifier.weight": head,
    }
    save_file(tensors, adapter / "adapter_model.safetensors")

    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "modules_to_save": ["classifier"]}
    text = json.dumps({**config, **settings})
    (adapter / "adapter_config.json").write_text(text)
    layout.seal(root, {})
    return root


SETTINGS = {"hidden_act": "gelu", "bankintent_pooling": "mean"}
TOKENIZER = {"model_max_length": 32, "padding_side": "right"}


def add_settings(root: Path, labels: int, **changed: object) -> Path:
    """Give the base of a bundle its settings and its tokenizer, and seal it anew."""
    base = root / f"base_{labels}"
    of_labels = {"id2label": {str(number): f"intent_{number}" for number in range(labels)}}
    settings = SETTINGS | of_labels | {"transformers_version": f"5.{labels}"}
    tokenizer = TOKENIZER | {"is_local": labels > 3}
    for key, value in changed.items():
        (settings if key in SETTINGS else tokenizer)[key] = value

    words = json.dumps(changed.get("words", ["a", "b"]))
    tokenizer.pop("words", None)
    (base / "config.json").write_text(json.dumps(settings))
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (base / "tokenizer.json").write_text(words)
    (root / layout.MANIFEST).unlink()
    layout.seal(root, {})
    return root


def test_bundles_with_heads_of_different_sizes_share_a_base(tmp_path: Path) -> None:
    three = add_settings(make_bundle(tmp_path / "three", 3), 3)
    five = add_settings(make_bundle(tmp_path / "five", 5), 5)

    assert read_trunk(five) == read_trunk(three)
    require_same_base(five, read_trunk(three))


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"model_max_length": 6}, "tokenizer"),
        ({"padding_side": "left"}, "tokenizer"),
        ({"words": ["b", "a"]}, "tokenizer"),
        ({"hidden_act": "relu"}, "settings"),
        ({"bankintent_pooling": "first"}, "settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_base_that_reads_or_computes_otherwise_is_another_one(
    changed: dict[str, object], part: str, tmp_path: Path
) -> None:
    mine = add_settings(make_bundle(tmp_path / "mine", 3), 3)
    other = add_settings(make_bundle(tmp_path / "other", 5), 5, **changed)

    with pytest.raises(Unsuited, match=f"a base with other {part} "):
        require_same_base(other, read_trunk(mine))


def test_weights_that_are_known_are_not_read_again(tmp_path: Path) -> None:
    first = add_settings(make_bundle(tmp_path / "first", 3), 3)
    second = add_settings(make_bundle(tmp_path / "second", 3), 3)
    known: Hashes = {}
    trunk = read_trunk(first, known)

    (second / "base_3" / "model.safetensors").unlink()
    assert read_trunk(second, known) == trunk
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        read_trunk(second)


def test_weights_that_were_changed_are_never_taken_as_known(tmp_path: Path) -> None:
    """Their hash would stand for whatever the manifest says, and be believed of another bundle."""
    changed = add_settings(make_bundle(tmp_path / "changed", 3), 3)
    path = changed / "base_3" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    known: Hashes = {}
    with pytest.raises(ModelError, match="was changed"):
        read_trunk(changed, known)
    assert not known


def test_an_adapter_of_another_base_is_refused_with_both_hashes(tmp_path: Path) -> None:
    mine = make_bundle(tmp_path / "mine", 3)
    other = make_bundle(tmp_path / "other", 3, seed=1)
    expected = read_trunk(mine)

    with pytest.raises(ModelError) as caught:
        require_same_base(other, expected)
    assert expected.weights[:12] in str(caught.value)
    assert read_trunk(other).weights[:12] in str(caught.value)


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 4.0), (True, 8 / 2**0.5)])
def test_the_scaling_is_in_the_matrices(tmp_path: Path, rslora: bool, scaling: float) -> None:
    adapter = read_adapter(make_bundle(tmp_path / "bundle", 3, use_rslora=rslora))

    assert adapter.pairs["bert.dense"].up == pytest.approx(np.full((WIDTH, 2), scaling))
    assert adapter.head["classifier.weight"].shape == (3, WIDTH)


@pytest.mark.parametrize("setting", ["use_dora", "lora_bias", "fan_in_fan_out"])
def test_an_adapter_that_is_not_plain_lora_is_refused(tmp_path: Path, setting: str) -> None:
    root = make_bundle(tmp_path / "bundle", 3, **{setting: True})

    with pytest.raises(ModelError, match=setting):
        read_adapter(root)


def test_an_adapter_changed_after_publishing_is_refused(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle", 3)
    (root / "adapter" / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match="was changed"):
        read_adapter(root)
