"""`pooling: mean` in every family: the masked mean, in a plain class, through training and export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import checked_in_this_process, train_in
from serving_fixtures import LABELS as NAMES
from serving_fixtures import reference_of, require_features
from tiny_architectures import tiny_classifier
from tiny_models import rows

from bankintent.config import ExportSection, TrainConfig
from bankintent.errors import ModelError
from bankintent.inference.adapters.tenants import open_base
from bankintent.labels import LabelSchema
from bankintent.training.pooling_families import (
    APPENDED,
    BY_OPTION,
    IMPOSSIBLE,
    OPTION,
    SHIFT,
)

LABELS = LabelSchema(NAMES)
TEXTS = [text for text, _ in rows(6)] + [
    "rate",
    "i want to add funds to my account with the card that i lost on the train",
]
EVERY_TIME = ("deberta-v2", "distilbert", "electra", "nomic_bert", "xmod")
"""Of every kind of layer, of head and of option one; the others are proofs."""

FAMILIES = [
    name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.proof)
    for name in sorted(APPENDED)
]
OTHERS = ("bert", "electra", "roberta")
REGIMES = ("head-only", "lora", "full-ft")


def load(folder: Path, pooling: str = "mean", name: str = "") -> Any:
    """The model in a folder; that of an architecture is written there first."""
    from bankintent.training import backbones

    if name:
        tiny_classifier(name, folder)
    return backbones.load_backbone(str(folder), LABELS, 32, pooling=pooling)


def hidden_states(backbone: Any) -> Any:
    """(texts, positions, hidden) of a batch of TEXTS, and its mask, (texts, positions, 1)."""
    import torch

    batch = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = backbone.model.eval().base_model(**batch).last_hidden_state
    return states, batch["attention_mask"].unsqueeze(-1)


def masked_mean(backbone: Any) -> Any:
    """(texts, hidden), computed by hand."""
    states, mask = hidden_states(backbone)
    return (states * mask).sum(1) / mask.sum(1)


def head_inputs(backbone: Any, texts: list[str]) -> Any:
    """(texts, hidden) float32: what the last layer reads."""
    from bankintent.inference.predictor import Predictor

    return Predictor(backbone.model, backbone.tokenizer, LABELS).outputs(texts).features


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_appended_layer_gives_the_masked_mean_up_to_its_norm(
    architecture: str, tmp_path: Path
) -> None:
    import torch
    from torch.nn import functional

    from bankintent.training.pooling import WEIGHT

    plain = load(tmp_path, "first", architecture)
    pooled = load(tmp_path)
    assert type(pooled.model) is type(plain.model)
    layers = plain.model.config.num_hidden_layers
    assert pooled.model.config.num_hidden_layers == layers + 1

    mean = masked_mean(plain)
    width = mean.shape[-1:]
    states, _ = hidden_states(plain)
    found = hidden_states(pooled)[0][:, 0]
    expected = functional.layer_norm(WEIGHT * mean + states[:, 0], width)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    agreement = functional.cosine_similarity(found, functional.layer_norm(mean, width))
    # Of random tokens the mean is small beside the residual; of real ones it is not.
    assert agreement.min() > 0.97, agreement


@pytest.mark.parametrize("architecture", FAMILIES)
def test_padding_does_not_move_the_mean(architecture: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, name=architecture)
    together = head_inputs(backbone, TEXTS)
    alone = [head_inputs(backbone, [text])[0] for text in TEXTS]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_head_passes_the_mean_on_to_its_classifier(architecture: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, name=architecture)
    mean = hidden_states(backbone)[0][:, 0].numpy()
    read = head_inputs(backbone, TEXTS)
    family = APPENDED[architecture]
    if not family.shift:
        np.testing.assert_allclose(read, np.tanh(mean), atol=1e-5)
        return

    # ReLU and GELU keep numbers above -SHIFT, GELU to 0.17 of them at most.
    kept = np.maximum(mean, -SHIFT)
    is_relu = architecture == "distilbert"
    np.testing.assert_allclose(read - SHIFT, kept, atol=1e-5 if is_relu else 0.18)
    np.testing.assert_allclose((read - SHIFT)[mean > 0], mean[mean > 0], atol=5e-3)
    assert np.corrcoef(read.ravel(), mean.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("architecture", ["distilbert", "electra"])
def test_a_new_classifier_sees_the_mean_without_its_shift(
    architecture: str, tmp_path: Path
) -> None:
    from bankintent.inference.head_inputs import output_layer

    backbone = load(tmp_path, name=architecture)
    layer = output_layer(backbone.model, len(LABELS))
    weight = layer.weight.detach().numpy()
    read = head_inputs(backbone, TEXTS)
    expected = (read - SHIFT) @ weight.T
    found = read @ weight.T + layer.bias.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("architecture", [*FAMILIES, *BY_OPTION])
def test_a_saved_model_takes_the_mean_and_is_not_given_it_again(
    architecture: str, tmp_path: Path
) -> None:
    first = load(tmp_path / "encoder", name=architecture)
    assert not first.took_mean
    expected = head_inputs(first, TEXTS)
    first.model.save_pretrained(tmp_path / "saved")
    first.tokenizer.save_pretrained(tmp_path / "saved")

    for pooling in ("mean", "first"):
        again = load(tmp_path / "saved", pooling)
        assert again.took_mean
        assert again.kept_rows == len(LABELS)
        assert again.model.config.num_hidden_layers == first.model.config.num_hidden_layers
        np.testing.assert_allclose(head_inputs(again, TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_layer_is_known_without_its_marker(architecture: str, tmp_path: Path) -> None:
    import torch

    from bankintent.training.pooling import MARKER, takes_mean

    assert not takes_mean(load(tmp_path, "first", architecture).model)
    model = load(tmp_path).model
    delattr(model.config, MARKER)
    with torch.no_grad():
        # As far as fine-tuning moves a weight.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert takes_mean(model)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_student_keeps_the_layer_that_takes_the_mean(architecture: str, tmp_path: Path) -> None:
    from bankintent.training.methods.distillation import make_student

    teacher = load(tmp_path / "encoder", name=architecture)
    student, _ = make_student(teacher.model, 2)
    student.save_pretrained(tmp_path / "student")
    teacher.tokenizer.save_pretrained(tmp_path / "student")
    again = load(tmp_path / "student")
    assert again.took_mean
    assert again.model.config.num_hidden_layers == 2


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("architecture", [*FAMILIES, *BY_OPTION])
def test_each_regime_learns_from_the_mean(architecture: str, regime: str, tmp_path: Path) -> None:
    import torch

    from bankintent.training import regimes
    from bankintent.training.forward_check import require_trainable

    backbone = load(tmp_path, name=architecture)
    values = {"model_name": "tiny", "regime": regime, "output_dir": "out", "max_length": 32}
    config = TrainConfig.model_validate(values | {"pooling": "mean"})
    require_trainable(backbone, config)
    # Without dropout a small step makes the loss smaller for certain.
    model = regimes.prepare(backbone, config.regime, config.lora).eval()
    batch = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
    labels = torch.arange(len(TEXTS)) % len(LABELS)

    def compute_loss() -> Any:
        return torch.nn.functional.cross_entropy(model(**batch).logits, labels)

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    before = compute_loss()
    before.backward()
    optimizer.step()
    assert compute_loss() < before


@pytest.mark.parametrize("architecture", FAMILIES)
def test_keys_and_values_of_the_appended_layer_get_gradients(
    architecture: str, tmp_path: Path
) -> None:
    backbone = load(tmp_path, name=architecture)
    family = APPENDED[architecture]
    layer = backbone.model.base_model.get_submodule(family.layers)[-1]
    batch = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
    backbone.model.eval()(**batch).logits.square().sum().backward()
    moved = (family.fused or family.value, family.output, family.feed_forward[0])
    for name in moved:
        assert layer.get_submodule(name).weight.grad.abs().max() > 0, name
    if family.fused is None:
        key = family.keys[0].replace("*", "")
        assert layer.get_submodule(key).weight.grad.abs().max() > 0


@pytest.mark.parametrize("shared", [True, False])
def test_positions_of_deberta_weigh_nothing(shared: bool, tmp_path: Path) -> None:
    from tiny_models import tiny_encoder
    from torch.nn import functional

    tiny_encoder("deberta-v2", tmp_path, share_att_key=shared)
    mean = masked_mean(load(tmp_path, "first"))
    found = hidden_states(load(tmp_path))[0][:, 0]
    expected = functional.layer_norm(mean, mean.shape[-1:])
    assert functional.cosine_similarity(found, expected).min() > 0.97


@pytest.mark.proof
@pytest.mark.parametrize("architecture", sorted(APPENDED))
def test_the_exported_graph_answers_alike(architecture: str, tmp_path: Path) -> None:
    import torch

    from bankintent.export import onnx_export
    from bankintent.inference.head_inputs import output_layer
    from bankintent.inference.predictor import Predictor

    backbone = load(tmp_path / "encoder", name=architecture)
    torch.manual_seed(1)
    with torch.no_grad():
        layer = output_layer(backbone.model, len(LABELS))
        layer.weight.normal_()
    predictor = Predictor(backbone.model, backbone.tokenizer, LABELS)
    with torch.no_grad():
        # No label has all texts.
        layer.bias -= torch.from_numpy(predictor.logits(TEXTS).mean(axis=0))
    folder = tmp_path / "onnx"
    reference = reference_of(predictor, TEXTS)
    published = onnx_export.write_formats(
        predictor, "tiny", folder, reference, TEXTS, ExportSection(int8=False)
    )
    assert max(published.formats["onnx"]["largest_logit_difference"].values()) < 1e-4, published
    require_features(folder, ["onnx"], predictor, TEXTS)


@pytest.mark.parametrize(
    "architecture", ["distilbert", *(pytest.param(n, marks=pytest.mark.proof) for n in OTHERS)]
)
def test_tenants_share_a_base_that_takes_the_mean(architecture: str, tmp_path: Path) -> None:
    from bankintent.export import shared_base
    from bankintent.inference.predictor import Predictor

    encoder = tiny_classifier(architecture, tmp_path / "encoder")
    pairs = {"a": rows(), "b": [row for row in rows() if row[1] != "Exchange"]}
    bundles = []
    for name, own in pairs.items():
        folder = tmp_path / name
        folder.mkdir()
        with checked_in_this_process():
            train_in(folder, own, encoder, pooling="mean", prefix="card: ", epochs=1, lr=1e-2)
        bundles.append(folder / "bundle")
    shared_base.export(bundles[0], tmp_path / "base")
    expected = [Predictor.load(bundle).logits(TEXTS) for bundle in bundles]

    for place in (bundles[0], tmp_path / "base"):
        base = open_base(place, threads=1)
        first, second = (base.load(bundle) for bundle in bundles)
        tokens = first.tokenize(TEXTS)
        mixed = base.mixed_outputs(list(zip([first, second] * 10, tokens, strict=True)))
        for row, outputs in enumerate(mixed):
            np.testing.assert_allclose(outputs.logits[0], expected[row % 2][row], atol=1e-4)


@pytest.mark.parametrize("architecture", sorted(IMPOSSIBLE))
def test_families_whose_layers_cannot_take_the_mean_say_why(
    architecture: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as error:
        load(tmp_path, name=architecture)
    message = str(error.value)
    assert f"not possible for {architecture} models: {IMPOSSIBLE[architecture]}" in message
    assert "\n" not in message


def test_the_refusal_of_an_unknown_family_lists_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pooling: mean is not known for gpt2 models") as error:
        load(tmp_path, name="gpt2")
    for name in (*APPENDED, *BY_OPTION):
        assert name in str(error.value)


def test_a_setting_that_moves_the_mean_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    tiny_classifier("roformer", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.rotary_value = True
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="without rotary_value: False"):
        load(tmp_path)


@pytest.mark.parametrize("architecture", BY_OPTION)
def test_an_own_option_is_turned_on_and_adds_no_layer(architecture: str, tmp_path: Path) -> None:
    plain = load(tmp_path, "first", architecture)
    backbone = load(tmp_path)
    assert getattr(backbone.model.config, OPTION) == "mean"
    layers = plain.model.config.num_hidden_layers
    assert backbone.model.config.num_hidden_layers == layers
