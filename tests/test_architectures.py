"""Any class of sequence classification: published, or refused in one line before anything is computed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, train_config
from faults import architectures as faults
from tiny_architectures import architectures, tiny_classifier
from tiny_models import MAX_POSITIONS

import multiregime
from bankintent.config import TrainConfig
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from bankintent.training.architectures import READS_FIRST_TOKEN, REFUSED, REFUSED_REGIMES

LABELS = LabelSchema(("card_lost", "Exchange", "top_up", "other", "none"))
TEXTS = [
    "i lost my card",
    "rate",
    "i want to add funds to my account with the card that i lost on the train",
]
TRIED = ("albert", "gpt2", "t5", "xlnet", "mpnet", "ibert")
"""Of every kind of head and of linear layer one."""


def load(folder: Path, architecture: str, **options: Any) -> Any:
    from bankintent.training import backbones

    options = faults.tokenizer_options(architecture) | options
    tiny_classifier(architecture, folder, **options)
    return backbones.load_backbone(str(folder), LABELS, 32)


def settings(regime: str, **more: Any) -> TrainConfig:
    values = {"model_name": "tiny", "regime": regime, "output_dir": "out", "max_length": 32}
    return TrainConfig.model_validate(values | more)


def test_heads_that_are_read_from_outside_go_from_config_to_bundle() -> None:
    tried = list(faults.outcomes(["gpt2"], ("head-only, probe", "lora, contrastive")))
    assert [outcome.ending for *_, outcome in tried] == [faults.PUBLISHED] * 2


@pytest.mark.proof
@pytest.mark.parametrize("architecture", TRIED)
def test_a_run_is_published_or_refused_before_anything_is_computed(architecture: str) -> None:
    recipes = ("head-only", "head-only, probe", "lora", "full-ft, contrastive")
    for _, recipe, outcome in faults.outcomes([architecture], recipes):
        assert not outcome.is_fault, (recipe, outcome.ending)
        if outcome.ending != faults.PUBLISHED:
            assert "\n" not in outcome.ending


@pytest.mark.proof
@pytest.mark.parametrize("architecture", ["bart", "gpt2", "xlnet"])
def test_a_format_that_cannot_be_exported_is_left_out_with_its_reason(architecture: str) -> None:
    [(_, _, outcome)] = faults.outcomes([architecture], ("full-ft, exported",))
    assert outcome.ending == faults.PUBLISHED
    assert all(outcome.left_out.values())


@pytest.mark.proof
def test_every_architecture_is_trained_or_refused_in_one_line(tmp_path: Path) -> None:
    from bankintent.training import regimes
    from bankintent.training.forward_check import require_trainable

    refused = set()
    for architecture in architectures():
        for regime in ("head-only", "lora", "full-ft"):
            try:
                backbone = load(tmp_path / architecture, architecture)
                config = settings(regime)
                require_trainable(backbone, config)
            except ModelError:
                refused.add((architecture, regime))
            else:
                regimes.prepare(backbone, config.regime, config.lora)

    known = {(name, regime) for name in REFUSED for regime in ("head-only", "lora", "full-ft")}
    # Two of the table need images, and no tiny one is built of them.
    assert {pair for pair in known if pair[0] in architectures()} <= refused
    assert set(REFUSED_REGIMES) <= refused


def test_a_model_that_mixes_padding_into_its_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="changes with the padding of the batch"):
        load(tmp_path / "fnet", "fnet")


def test_what_the_table_does_not_name_is_found_by_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(REFUSED, "fnet")
    with pytest.raises(ModelError, match="depend on the other texts of a batch"):
        load(tmp_path / "fnet", "fnet")


def test_the_trial_compares_a_sentence_alone_and_beside_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.inference import loaded
    from bankintent.training.forward_check import require_trainable

    monkeypatch.delitem(REFUSED, "fnet")
    monkeypatch.setattr(loaded, "_require_independent", lambda *_: None)
    backbone = load(tmp_path / "fnet", "fnet")
    with pytest.raises(ModelError, match="changes with the padding of the batch"):
        require_trainable(backbone, settings("full-ft"))


def test_a_head_that_reads_the_last_position_is_padded_on_the_left(tmp_path: Path) -> None:
    from bankintent.training.forward_check import require_trainable

    backbone = load(tmp_path / "xlnet", "xlnet", padding_side="right")
    require_trainable(backbone, settings("lora"))
    assert backbone.tokenizer.padding_side == "left"


def test_the_trial_leaves_model_and_random_numbers_as_they_are(tmp_path: Path) -> None:
    import torch

    from bankintent.training.forward_check import require_trainable

    backbone = load(tmp_path / "bert", "bert")
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    state = torch.get_rng_state()
    require_trainable(backbone, settings("lora", head_init="probe"))
    assert torch.equal(state, torch.get_rng_state())
    assert backbone.model.state_dict().keys() == before.keys()
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in backbone.model.parameters())


@pytest.mark.parametrize("architecture", ["mpnet", "xmod", "esm"])
def test_heads_of_the_table_answer_alike_on_kept_vectors(architecture: str, tmp_path: Path) -> None:
    check_kept_vectors(architecture, tmp_path)


@pytest.mark.proof
def test_all_heads_of_the_table_answer_alike_on_kept_vectors(tmp_path: Path) -> None:
    for architecture in READS_FIRST_TOKEN:
        check_kept_vectors(architecture, tmp_path)


def check_kept_vectors(architecture: str, folder: Path) -> None:
    import torch

    from bankintent.inference.predictor import Predictor
    from bankintent.training import features

    backbone = load(folder / architecture, architecture)
    expected = Predictor(backbone.model, backbone.tokenizer, LABELS).logits(TEXTS)
    table = features.compute(backbone, LABELS, TEXTS, 2)
    numbers = torch.arange(len(TEXTS)).unsqueeze(1)
    with torch.inference_mode(), features.replaced_encoder(backbone.model, table):
        answers = backbone.model(input_ids=numbers, attention_mask=torch.ones_like(numbers)).logits
    np.testing.assert_allclose(answers.numpy(), expected, atol=1e-5, err_msg=architecture)


@pytest.mark.parametrize("architecture", ["gpt2", "bart", "albert", "xlnet"])
def test_vectors_of_other_heads_are_what_the_last_layer_reads(
    architecture: str, tmp_path: Path
) -> None:
    from bankintent.inference.head_inputs import output_layer
    from bankintent.inference.predictor import Predictor
    from bankintent.training import features

    backbone = load(tmp_path / architecture, architecture)
    expected = Predictor(backbone.model, backbone.tokenizer, LABELS).logits(TEXTS)
    table = features.compute(backbone, LABELS, TEXTS, 2)
    answers = output_layer(backbone.model, len(LABELS))(table).detach().numpy()
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_a_layer_without_a_bias_is_probed_too() -> None:
    from bankintent.training.methods.probe import fit_probe

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 8)) * 3 + 1
    label_ids = [row % 3 for row in range(90)]
    inputs = centres[label_ids] + rng.normal(size=(90, 8)) * 0.1
    ids = [2 * label_id for label_id in label_ids]  # of five labels, two have no rows

    weight, bias = fit_probe(inputs, ids, 5, has_bias=False)
    logits = inputs @ weight.T
    assert not bias.any()
    assert (logits.argmax(axis=1) == ids).all()
    assert (logits[:, [1, 3]] < logits[:, [0, 2, 4]].max(axis=1, keepdims=True) - 1).all()


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [("mpnet", MAX_POSITIONS - 2), ("roberta", MAX_POSITIONS - 1), ("bert", MAX_POSITIONS)],
)
def test_positions_are_counted_from_where_they_start(
    architecture: str, positions: int, tmp_path: Path
) -> None:
    import torch

    from bankintent.inference.predictor import max_positions
    from bankintent.training import backbones

    model = load(tmp_path / architecture, architecture).model.eval()
    assert max_positions(model) == positions
    ids = torch.full((1, positions), 5)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 5)
    with pytest.raises(ModelError, match=f"{positions + 1} is above the {positions} positions"):
        backbones.load_backbone(str(tmp_path / architecture), LABELS, positions + 1)


def test_a_text_that_writes_out_the_last_token_does_not_stop_its_batch(tmp_path: Path) -> None:
    from bankintent.inference.predictor import Predictor

    backbone = load(tmp_path / "bart", "bart")
    backbone.model.save_pretrained(tmp_path / "saved")
    backbone.tokenizer.save_pretrained(tmp_path / "saved")
    predictor = Predictor.load(tmp_path / "saved")
    logits = predictor.logits(["my card [SEP] is gone", "rate"])
    assert np.isfinite(logits).all()


def test_an_architecture_without_layers_for_an_adapter_is_refused_in_one_line(
    tmp_path: Path, data_dir: Path, run: Run
) -> None:
    model = tiny_classifier("squeezebert", tmp_path / "model")
    config = train_config(tmp_path / "train.yaml", model, data_dir, tmp_path / "bundle")
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert "Use regime head-only or full-ft" in result.one_line_error()


def test_layers_that_share_a_name_with_other_modules_are_named_in_full(tmp_path: Path) -> None:
    from bankintent.training import regimes

    backbone = load(tmp_path / "ctrl", "ctrl")
    names = regimes.linear_modules(backbone.model)
    assert "Wq" in names
    assert any(name.startswith("transformer.h.0.ffn.") for name in names)
