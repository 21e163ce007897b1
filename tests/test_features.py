"""Frozen encoders run once, and masked mean pooling inside the plain classes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Run, train_config
from tiny_architectures import tiny_classifier
from tiny_models import ARCHITECTURES, rows, tiny_encoder

import multiregime
from bankintent.labels import LabelSchema

LABELS = LabelSchema(("card_lost", "Exchange", "top_up"))
TEXTS = [text for text, _ in rows(6)] + [
    "rate",
    "i want to add funds to my account with the card that i lost on the train",
]
POOLED = ("bert", "roberta", "modernbert", "distilbert")


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [(name, pooling) for name in ARCHITECTURES for pooling in ("first", "mean")],
)
def test_the_head_answers_alike_on_cached_features_and_behind_its_encoder(
    architecture: str, pooling: str, tmp_path: Path
) -> None:
    import torch

    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones, features

    encoder = tiny_encoder(architecture, tmp_path / "encoder")
    backbone = backbones.load_backbone(str(encoder), LABELS, 32, pooling=pooling)
    expected = Predictor(backbone.model, backbone.tokenizer, LABELS).logits(TEXTS)
    found = features.frozen(backbone, LABELS, TEXTS, 4, tmp_path / "cache")
    numbers = torch.arange(len(TEXTS)).unsqueeze(1)
    with torch.inference_mode(), features.replaced_encoder(backbone.model, found.table):
        answers = backbone.model(input_ids=numbers, attention_mask=torch.ones_like(numbers)).logits
    np.testing.assert_allclose(answers.numpy(), expected, atol=1e-5)
    after = Predictor(backbone.model, backbone.tokenizer, LABELS).logits(
        TEXTS
    )  # its own encoder is back
    np.testing.assert_array_equal(after, expected)


def test_features_are_read_again_only_for_the_same_texts_weights_and_length(tmp_path: Path) -> None:
    import torch

    from bankintent.training import backbones, features

    encoder, cache = str(tiny_encoder("bert", tmp_path / "encoder")), tmp_path / "cache"

    def frozen(texts: list[str], length: int = 32, change: float = 0.0) -> features.FrozenVectors:
        backbone = backbones.load_backbone(encoder, LABELS, length)
        with torch.no_grad():
            backbone.model.bert.encoder.layer[0].output.dense.bias[0] += change
        return features.frozen(backbone, LABELS, texts, 4, cache)

    first = frozen(TEXTS)
    assert not first.is_cached
    again = frozen(TEXTS)
    assert again.is_cached
    torch.testing.assert_close(again.table, first.table, rtol=0, atol=0)
    assert not frozen(TEXTS[:-1]).is_cached
    assert not frozen(TEXTS, length=5).is_cached
    changed = frozen(TEXTS, change=0.5)
    assert not changed.is_cached
    assert not torch.allclose(changed.table, first.table, atol=1e-3)

    for path in (cache / "features").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    mended = frozen(TEXTS)
    assert not mended.is_cached
    torch.testing.assert_close(mended.table, first.table, rtol=0, atol=0)


def test_a_second_head_only_run_does_not_run_the_encoder_for_training(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import features

    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "a", epochs=1)
    first = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert "one pass of the frozen encoder" in first.out, first.err

    def fail(*_: object) -> None:
        raise AssertionError("the encoder was run again")

    monkeypatch.setattr(features, "compute", fail)
    second = run(
        multiregime.main,
        "--config",
        config,
        "--regime",
        "head-only",
        "--set",
        "output_dir=b",
        "--set",
        "lr=0.1",
    )
    assert second.code == 0, second.err
    assert "read from" in second.out


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_the_mean_layer_gives_the_normalised_masked_mean_at_every_position(
    architecture: str, tmp_path: Path
) -> None:
    import torch
    from torch.nn import functional

    from bankintent.training import backbones

    encoder = str(tiny_encoder(architecture, tmp_path / "encoder"))
    plain, pooled = (
        backbones.load_backbone(encoder, LABELS, 32, pooling=pooling)
        for pooling in ("first", "mean")
    )
    assert type(plain.model) is type(pooled.model)
    assert pooled.model.config.num_hidden_layers == plain.model.config.num_hidden_layers + 1
    batch = plain.tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    plain.model.eval(), pooled.model.eval()
    with torch.inference_mode():
        hidden = plain.model.base_model(**batch).last_hidden_state
        found = pooled.model.base_model(**batch).last_hidden_state[:, 0]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    expected = functional.layer_norm(mean, mean.shape[-1:])
    agreement = functional.cosine_similarity(found, expected)
    # The residual token beside 20 times the mean is what keeps it from being exact.
    assert agreement.min() > 0.99, agreement
    first = functional.cosine_similarity(
        functional.layer_norm(hidden[:, 0], mean.shape[-1:]), expected
    )
    assert agreement.min() > first.min()


def test_every_weight_of_the_mean_layer_that_is_needed_gets_a_gradient(tiny_bert: Path) -> None:
    from bankintent.training import backbones

    backbone = backbones.load_backbone(str(tiny_bert), LABELS, 32, pooling="mean")
    batch = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
    backbone.model(**batch).logits.square().sum().backward()
    attention = backbone.model.bert.encoder.layer[-1].attention.self
    for linear in (
        attention.key,
        attention.value,
        backbone.model.bert.encoder.layer[-1].output.dense,
    ):
        assert linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("architecture", "regime"),
    [
        ("bert", "lora"),
        ("roberta", "full-ft"),
        ("modernbert", "lora"),
        ("deberta-v2", "lora"),
        ("distilbert", "lora"),
        ("electra", "head-only"),
    ],
)
def test_pooling_survives_training_and_export(
    architecture: str, regime: str, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from transformers import AutoConfig

    encoder = tiny_encoder(architecture, tmp_path / "encoder")
    config = train_config(
        tmp_path / "train.yaml",
        encoder,
        data_dir,
        tmp_path / "bundle",
        pooling="mean",
        head_init="probe",
        epochs=1,
    )
    result = run(multiregime.main, "--config", config, "--regime", regime)
    assert result.code == 0, (
        result.err
    )  # publication compares adapter, base and merged in a fresh process
    merged = AutoConfig.from_pretrained(tmp_path / "bundle" / "merged")
    assert merged.num_hidden_layers == (2 if architecture == "modernbert" else 3)
    assert getattr(merged, "classifier_pooling", "mean") == "mean"


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("architecture", POOLED)
def test_going_on_from_a_bundle_appends_no_second_mean_layer(
    architecture: str, pooling: str, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from transformers import AutoConfig

    from bankintent.inference.predictor import Predictor

    encoder = tiny_encoder(architecture, tmp_path / "encoder")
    places = [encoder, tmp_path / "one", tmp_path / "two" / "merged", tmp_path / "three"]
    layers = []
    for start, name, own in zip(
        places, ("one", "two", "three"), ("mean", pooling, pooling), strict=False
    ):
        path = tmp_path / f"{name}.yaml"
        more = {"pooling": own, "epochs": 1, "lr": 1e-6}
        config = train_config(path, start, data_dir, tmp_path / name, **more)
        result = run(multiregime.main, "--config", config, "--regime", "full-ft")
        assert result.code == 0, result.err
        layers.append(AutoConfig.from_pretrained(tmp_path / name / "merged").num_hidden_layers)

        goes_on = name != "one"
        assert ("3 of 3 intents keep their rows" in result.out) == goes_on
        says = "reads the mean of the tokens, in its last layer, and goes on to" in result.out
        assert says == (goes_on and pooling == "first")
    assert layers == [2 if architecture == "modernbert" else 3] * 3

    # A step of 1e-6 changes next to nothing: the third model is still the first.
    first = Predictor.load(tmp_path / "one").logits(TEXTS)
    assert np.ptp(first) > 1e-3
    np.testing.assert_allclose(
        Predictor.load(tmp_path / "three").logits(TEXTS), first, atol=np.ptp(first) / 20
    )


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_a_mean_layer_without_its_marker_is_known_by_its_weights(
    architecture: str, tmp_path: Path
) -> None:
    import json

    import torch

    from bankintent.training import backbones
    from bankintent.training.pooling import MARKER

    encoder = tiny_encoder(architecture, tmp_path / "encoder")
    plain = backbones.load_backbone(str(encoder), LABELS, 32)
    assert not plain.took_mean
    first = backbones.load_backbone(str(encoder), LABELS, 32, pooling="mean")
    assert not first.took_mean
    with torch.no_grad():
        # As far as fine-tuning moves a weight.
        for parameter in first.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    first.model.save_pretrained(tmp_path / "old")
    first.tokenizer.save_pretrained(tmp_path / "old")

    path = tmp_path / "old" / "config.json"
    config = json.loads(path.read_text())
    assert config.pop(MARKER) == "mean"
    path.write_text(json.dumps(config))
    again = backbones.load_backbone(str(tmp_path / "old"), LABELS, 32, pooling="mean")
    assert again.took_mean
    assert again.model.config.num_hidden_layers == 3
    assert again.kept_rows == 3
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)


def test_a_head_that_read_the_first_token_is_made_new_for_the_mean(tmp_path: Path) -> None:
    import torch

    from bankintent.training import backbones

    encoder = tiny_encoder("bert", tmp_path / "encoder")
    first = backbones.load_backbone(str(encoder), LABELS, 32)
    first.model.save_pretrained(tmp_path / "first")
    first.tokenizer.save_pretrained(tmp_path / "first")
    mean = backbones.load_backbone(str(tmp_path / "first"), LABELS, 32, pooling="mean")
    assert (mean.kept_rows, mean.took_mean) == (0, False)
    assert mean.new_modules == ("classifier",)
    assert not torch.equal(mean.model.classifier.weight, first.model.classifier.weight)


def test_pooling_that_an_architecture_cannot_do_is_refused_in_one_line(
    data_dir: Path, tmp_path: Path, run: Run
) -> None:
    encoder = tiny_classifier("mpnet", tmp_path / "encoder")
    config = train_config(
        tmp_path / "train.yaml", encoder, data_dir, tmp_path / "bundle", pooling="mean"
    )
    message = run(multiregime.main, "--config", config, "--regime", "lora").one_line_error()
    assert "pooling: mean is not possible for mpnet" in message
    assert not (tmp_path / "bundle").exists()
