"""Training through the command line to a published bundle that loads again, for every architecture and regime."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Run, train_config
from tiny_models import ARCHITECTURES, tiny_encoder

import multiregime
from bankintent import files, process
from bankintent.bundle import layout

REGIMES = ("head-only", "lora", "full-ft")


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: tiny_encoder(name, folder / name) for name in ARCHITECTURES}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_goes_from_command_to_reloaded_bundle(
    architecture: str,
    regime: str,
    encoders: dict[str, Path],
    data_dir: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    from bankintent.inference.predictor import Predictor

    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", encoders[architecture], data_dir, bundle)
    result = run(multiregime.main, "--config", config, "--regime", regime)
    assert result.code == 0, result.err

    formats = {"merged"} | ({"adapter", "base_3"} if regime == "lora" else set())
    assert {path.name for path in bundle.iterdir() if path.is_dir()} == formats
    assert {"labels.json", "metrics.json", "config.yaml", "README.md", "manifest.json"} <= set(
        files.list_files(bundle)
    )
    parity = json.loads((bundle / "manifest.json").read_text())["parity"][
        "largest_logit_difference"
    ]
    assert len(parity) == 2 * (2 if regime == "lora" else 1)
    assert max(parity.values()) <= 1e-4
    assert not files.work_dir(bundle).exists()

    # The published folder, opened as a user would, agrees with the adapter on its base.
    texts = ["i lost my card", "exchange"]
    merged = Predictor.load(bundle).logits(texts)
    assert merged.shape == (2, 3)
    if regime == "lora":
        shutil.rmtree(bundle / "merged")
        adapter = layout.open_checkpoint(bundle)
        assert adapter.format == "base + adapter"
        np.testing.assert_allclose(Predictor.load(adapter).logits(texts), merged, atol=1e-4)


@pytest.mark.fresh_process
@pytest.mark.parametrize(
    "architecture",
    ["bert", *(pytest.param(name, marks=pytest.mark.proof) for name in ARCHITECTURES[1:])],
)
def test_a_fresh_process_gives_the_answers_of_the_trained_model(
    architecture: str,
    encoders: dict[str, Path],
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_module = process.run_module
    modules = []

    def watched(module: str, arguments: list[str | Path], log: Path) -> str | None:
        modules.append(module)
        return run_module(module, arguments, log)

    monkeypatch.setattr(process, "run_module", watched)
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", encoders[architecture], data_dir, bundle)
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert result.code == 0, result.err
    assert modules == ["bankintent.export.fresh_check"]
    parity = json.loads((bundle / "manifest.json").read_text())["parity"]
    assert len(parity["largest_logit_difference"]) == 4
    assert max(parity["largest_logit_difference"].values()) <= 1e-4


def test_lora_changes_only_what_it_says_and_trains_every_new_head_module(
    encoders: dict[str, Path], data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from safetensors.numpy import load_file

    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", encoders["deberta-v2"], data_dir, bundle)
    assert run(multiregime.main, "--config", config, "--regime", "lora").code == 0
    adapter = load_file(bundle / "adapter" / "adapter_model.safetensors")
    heads = {name for name in adapter if "lora_" not in name}
    assert any("pooler" in name for name in heads)
    assert any("classifier" in name for name in heads)
    base, merged = (load_file(bundle / name / "model.safetensors") for name in ("base_3", "merged"))
    changed = {name for name in base if not np.array_equal(base[name], merged[name])}
    assert {"pooler.dense.weight", "classifier.weight", "classifier.bias"} <= changed
    assert not any("embeddings" in name or "LayerNorm" in name for name in changed)


def test_head_only_leaves_the_encoder_untouched_and_in_evaluation_mode(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModelForSequenceClassification

    from bankintent.training.regimes import set_training_mode

    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle)
    assert run(multiregime.main, "--config", config, "--regime", "head-only").code == 0
    before, after = (
        load_file(tiny_bert / "model.safetensors"),
        load_file(bundle / "merged" / "model.safetensors"),
    )
    encoder = [name for name in before if not name.startswith("pooler")]
    assert encoder
    for name in encoder:
        np.testing.assert_array_equal(before[name], after[f"bert.{name}"])
    assert not np.array_equal(before["pooler.dense.weight"], after["bert.pooler.dense.weight"])

    model = AutoModelForSequenceClassification.from_pretrained(bundle / "merged")
    set_training_mode(model, "head-only")
    assert not model.bert.encoder.layer[0].training
    assert not model.bert.embeddings.dropout.training
    assert model.classifier.training
    set_training_mode(model, "full-ft")
    assert all(
        module.training for module in model.modules() if isinstance(module, torch.nn.Dropout)
    )


def test_merged_works_in_plain_transformers_without_this_package(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    from bankintent.inference.predictor import Predictor

    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle)
    assert run(multiregime.main, "--config", config, "--regime", "full-ft").code == 0
    predictor = Predictor.load(bundle)
    expected = predictor.labels.names[int(predictor.logits(["i lost my card"]).argmax())]
    program = (
        "import sys; from transformers import pipeline\n"
        f"p = pipeline('text-classification', model={str(bundle / 'merged')!r})\n"
        "print(p('i lost my card')[0]['label'], 'bankintent' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == [expected, "False"], done.stderr


def test_unmatched_lora_targets_are_named_and_none_matching_fails(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    lora = {"r": 4, "target_modules": ["query", "output_proj"]}
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "a", lora=lora, epochs=1
    )
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert result.code == 0, result.err
    assert '"output_proj", which matches nothing' in result.out

    config = train_config(
        tmp_path / "train.yaml",
        tiny_bert,
        data_dir,
        tmp_path / "b",
        lora={"target_modules": ["q_proj"]},
    )
    message = run(multiregime.main, "--config", config, "--regime", "lora").one_line_error()
    assert "q_proj" in message
    assert "query" in message
    assert not (tmp_path / "b").exists()


def test_a_finished_run_is_left_alone_and_another_configuration_refused(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle, epochs=1)
    assert run(multiregime.main, "--config", config, "--regime", "full-ft").code == 0
    before = (bundle / "manifest.json").read_bytes()
    assert "nothing to do" in run(multiregime.main, "--config", config, "--regime", "full-ft").out
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    changed = train_config(tmp_path / "other.yaml", other, data_dir, tmp_path / "second", epochs=1)
    assert run(multiregime.main, "--config", changed, "--regime", "full-ft").code == 0
    tiny_encoder("bert", other, seed=1)
    assert (
        "another model"
        in run(multiregime.main, "--config", changed, "--regime", "full-ft").one_line_error()
    )
    message = run(
        multiregime.main, "--config", config, "--regime", "full-ft", "--set", "lr=0.5"
    ).one_line_error()
    assert "lr is 0.001, now 0.5" in message
    assert "--overwrite" in message
    assert (bundle / "manifest.json").read_bytes() == before
    again = run(
        multiregime.main,
        "--config",
        config,
        "--regime",
        "full-ft",
        "--set",
        "lr=0.002",
        "--overwrite",
    )
    assert again.code == 0, again.err
    assert yaml.safe_load((bundle / "config.yaml").read_text())["lr"] == 0.002


def test_a_bundle_that_recorded_what_was_off_is_found_finished(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle, epochs=1)
    words = ("--config", config, "--regime", "full-ft")
    assert run(multiregime.main, *words).code == 0
    manifest = json.loads((bundle / "manifest.json").read_text())
    settings = manifest["identity"]["settings"]
    assert None not in settings.values()
    assert "label_names" not in settings

    settings |= {"revision": None, "early_stopping": None, "label_names": False}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "nothing to do" in run(multiregime.main, *words).out
    message = run(multiregime.main, *words, "--set", "early_stopping=1").one_line_error()
    assert "early_stopping is None, now 1" in message


def test_an_interrupted_run_continues_to_the_same_weights(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    from bankintent.training import trainer

    straight = train_config(tmp_path / "a.yaml", tiny_bert, data_dir, tmp_path / "a", epochs=3)
    assert run(multiregime.main, "--config", straight, "--regime", "lora").code == 0

    class Killed(trainer.MarkComplete):
        """Dies while the second checkpoint is being written: its folder stands, incomplete."""

        def on_save(self, args, state, control, **options):  # type: ignore[no-untyped-def]
            if (state.epoch or 0) >= 2:
                raise KeyboardInterrupt
            super().on_save(args, state, control, **options)

    broken = train_config(tmp_path / "b.yaml", tiny_bert, data_dir, tmp_path / "b", epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "MarkComplete", Killed)
        stopped = run(multiregime.main, "--config", broken, "--regime", "lora")
    assert stopped.code == 130
    assert "Run the same command again" in stopped.err
    assert not (tmp_path / "b").exists()
    newest = max(
        (tmp_path / "b.work" / "checkpoints").glob("checkpoint-*"),
        key=lambda p: int(p.name.split("-")[1]),
    )
    (newest / "adapter_model.safetensors").write_bytes(b"half")

    other = run(
        multiregime.main, "--config", broken, "--regime", "lora", "--set", "lr=0.5"
    ).one_line_error()
    assert "interrupted run with other settings" in other
    result = run(multiregime.main, "--config", broken, "--regime", "lora")
    assert result.code == 0, result.err
    assert "Going on from" in result.out
    first, second = (load_file(tmp_path / name / "merged" / "model.safetensors") for name in "ab")
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_publication_stops_where_the_saved_model_answers_otherwise(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.export import publish as export

    real = export.compute_logits
    monkeypatch.setattr(export, "compute_logits", lambda *args: real(*args) + 0.01)
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "bundle", epochs=1
    )
    message = run(multiregime.main, "--config", config, "--regime", "lora").one_line_error()
    assert "answers otherwise than the trained one" in message
    assert "1.0e-02" in message
    assert not (tmp_path / "bundle").exists()


def test_a_persistent_overflow_stops_with_the_setting_to_change(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training.losses import IntentLoss

    real = IntentLoss.__call__
    monkeypatch.setattr(
        IntentLoss,
        "__call__",
        lambda *args, **options: real(*args, **options) * float("nan"),
    )
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "bundle", batch_size=2
    )
    message = run(multiregime.main, "--config", config, "--regime", "full-ft").one_line_error()
    assert "overflowed in 10 steps" in message
    assert "lower lr, or precision: fp32" in message
    assert not (tmp_path / "bundle").exists()
    # With fewer steps in an epoch than that, the evaluation behind it notices first.
    words = ("--config", config, "--regime", "full-ft", "--overwrite", "--set", "batch_size=16")
    assert "the model's answers overflowed" in run(multiregime.main, *words).one_line_error()


def test_early_stopping_keeps_the_best_epoch(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    config = train_config(
        tmp_path / "train.yaml",
        tiny_bert,
        data_dir,
        bundle,
        epochs=30,
        lr=3e-3,
        early_stopping=2,
        scheduler="cosine",
    )
    result = run(multiregime.main, "--config", config, "--regime", "full-ft")
    assert result.code == 0, result.err
    record = json.loads((bundle / "metrics.json").read_text())
    history = [entry["val_macro_f1"] for entry in record["training"]["history"]]
    assert len(history) < 30
    assert record["metrics"]["val"]["macro_f1"] == pytest.approx(max(history), abs=1e-6)


def test_loss_weights_and_smoothing_are_those_of_the_definition() -> None:
    from types import SimpleNamespace

    import torch
    from torch.nn import functional

    from bankintent.training.losses import IntentLoss, class_weights

    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = class_weights(labels.tolist(), 3)
    assert weights[labels].mean().item() == pytest.approx(1.0)
    assert weights.tolist() == pytest.approx([2 / 3, 1.0, 2.0])
    outputs = SimpleNamespace(logits=logits)
    plain = IntentLoss(0.0, None)(outputs, labels)
    assert plain.item() == pytest.approx(functional.cross_entropy(logits, labels).item())
    # Two accumulated half batches sum to the loss of the whole.
    halves = [
        IntentLoss(0.1, weights)(SimpleNamespace(logits=logits[s]), labels[s], num_items_in_batch=6)
        for s in (slice(0, 2), slice(2, 6))
    ]
    whole = (
        functional.cross_entropy(
            logits, labels, weight=weights, label_smoothing=0.1, reduction="sum"
        )
        / 6
    )
    assert sum(halves).item() == pytest.approx(whole.item())


def test_head_learning_rate_reaches_only_the_head(
    encoders: dict[str, Path], data_dir: Path
) -> None:
    from bankintent.corpus import dataset
    from bankintent.training import backbones
    from bankintent.training.trainer import head_parameters

    labels = dataset.load(data_dir).labels
    for architecture, expected in {
        "roberta": 4,
        "deberta-v2": 4,
        "distilbert": 4,
        "bert": 4,
    }.items():
        backbone = backbones.load_backbone(str(encoders[architecture]), labels, 32)
        assert len(head_parameters(backbone.model)) == expected, architecture


def test_precision_is_chosen_by_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bankintent.errors import TrainingError
    from bankintent.training.hardware import pick_precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False}
    )
    assert pick_precision("auto") == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert pick_precision("auto") == "bf16"
    with pytest.raises(TrainingError, match="CUDA"):
        pick_precision("fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert pick_precision("auto") == "fp16"  # a T4
    assert pick_precision("fp32") == "fp32"


def test_long_inputs_are_limited_by_the_positions_of_the_model(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "bundle", max_length=512
    )
    assert (
        "66 positions"
        in run(multiregime.main, "--config", config, "--regime", "lora").one_line_error()
    )


def test_fast_dropout_is_dropout() -> None:
    import torch
    from torch import nn

    from bankintent.training.dropout import fast_dropout

    model = nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.0))
    values = torch.ones(200, 501, requires_grad=True)
    with fast_dropout(model):
        torch.manual_seed(1)
        out = model(values)
        out.sum().backward()
        torch.manual_seed(1)
        assert torch.equal(model(values), out)
        assert not torch.equal(model(values), out)
        assert torch.equal(model.eval()(values), values)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.01)  # seven standard deviations
    for axis in (0, 1):  # no stripes along either axis
        assert (kept.float().mean(dim=axis) - 0.75).abs().max() < 0.2
    assert torch.allclose(out[kept], torch.tensor(1 / 0.75))
    assert torch.equal(values.grad, out.detach())
    torch.manual_seed(1)
    expected = nn.functional.dropout(values, 0.25)
    torch.manual_seed(1)
    assert torch.equal(model.train()(values), expected)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_a_probed_head_answers_as_the_probe(
    architecture: str, encoders: dict[str, Path], data_dir: Path
) -> None:
    import torch

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones, features
    from bankintent.training.methods import probe

    data = dataset.load(data_dir)
    train, val = data.read("train"), data.read("val")
    torch.manual_seed(
        0
    )  # the dense layers of a new head are random, and the probe reads through them
    backbone = backbones.load_backbone(str(encoders[architecture]), data.labels, 32)
    table = features.compute(backbone, data.labels, train.texts + val.texts, 7)
    vectors = features.Features(table, len(train))
    accuracy = probe.warm_start(backbone.model, vectors, train.labels, val.labels)
    predictor = Predictor(backbone.model, backbone.tokenizer, data.labels)
    found = predictor.logits(val.texts).argmax(axis=1)
    assert accuracy == pytest.approx(np.mean(found == val.labels))
    assert (
        np.mean(predictor.logits(train.texts).argmax(axis=1) == train.labels) > 2 / 3
    )  # a random head has a third


def test_a_probe_knows_two_labels_and_labels_without_rows() -> None:
    from bankintent.training.methods.probe import ABSENT, fit_probe

    x = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.2]])
    weight, bias = fit_probe(x, [0, 0, 2, 2], num_labels=3)
    assert bias[1] == ABSENT
    assert (x @ weight.T + bias).argmax(axis=1).tolist() == [0, 0, 2, 2]


def test_a_probed_head_goes_through_lora_to_a_bundle(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = train_config(
        tmp_path / "train.yaml",
        tiny_bert,
        data_dir,
        tmp_path / "bundle",
        head_init="probe",
        epochs=1,
    )
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert result.code == 0, result.err
    assert "starts from a linear probe" in result.out


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_a_trained_head_follows_its_labels_into_another_order_and_is_made_new_for_others(
    architecture: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    from bankintent.inference.predictor import Predictor
    from bankintent.labels import LabelSchema
    from bankintent.training import backbones

    trained = LabelSchema(("top_up", "card_lost", "Exchange"))
    first = backbones.load_backbone(str(encoders[architecture]), trained, 32)
    first.model.save_pretrained(tmp_path / "trained")
    first.tokenizer.save_pretrained(tmp_path / "trained")
    logits = Predictor(first.model, first.tokenizer, trained).logits(["i lost my card", "top up"])

    sorted_labels = LabelSchema.from_names(trained.names)
    again = backbones.load_backbone(str(tmp_path / "trained"), sorted_labels, 32)
    moved = Predictor(again.model, again.tokenizer, sorted_labels).logits(
        ["i lost my card", "top up"]
    )
    assert again.new_modules == ()
    assert again.model.config.id2label == sorted_labels.id2label
    np.testing.assert_array_equal(
        moved, logits[:, [trained.names.index(name) for name in sorted_labels.names]]
    )

    others = backbones.load_backbone(
        str(tmp_path / "trained"), LabelSchema(("Exchange", "card_lost", "refund")), 32
    )
    assert others.new_modules == ("classifier",)
    weight = backbones.output_layer(again.model, 3).weight
    assert not weight.isclose(backbones.output_layer(others.model, 3).weight).any()
