"""Training through the command line to a published bundle that loads again, for every architecture and regime."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run, train_config, write_csv, write_yaml
from tiny_models import ARCHITECTURES, rows, tiny_encoder

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

    formats = {"index", "merged"} | ({"adapter", "base_3"} if regime == "lora" else set())
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


@pytest.mark.parametrize("scores", [[0.9, 0.3, 0.4, 0.5], [0.1, 0.8, 0.4, 0.5]])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_continued_run_still_knows_its_best_weights(
    regime: str,
    scores: list[float],
    tiny_bert: Path,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bankintent.training import trainer

    class Killed(trainer.MarkComplete):
        """Dies before the third epoch's checkpoint is whole."""

        def on_save(self, args, state, control, **options):  # type: ignore[no-untyped-def]
            if (state.epoch or 0) >= 3:
                raise KeyboardInterrupt
            super().on_save(args, state, control, **options)

    invent_scores(monkeypatch, scores)
    more = {"epochs": 3, "head_init": "probe"}
    straight = train_config(tmp_path / "a.yaml", tiny_bert, data_dir, tmp_path / "a", **more)
    assert run(multiregime.main, "--config", straight, "--regime", regime).code == 0
    broken = train_config(tmp_path / "b.yaml", tiny_bert, data_dir, Path("b"), **more)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "MarkComplete", Killed)
        assert run(multiregime.main, "--config", broken, "--regime", regime).code == 130

    # From another folder: the checkpoints know their best one by a path.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "b.work", elsewhere / "b.work")
    monkeypatch.chdir(elsewhere)
    result = run(multiregime.main, "--config", broken, "--regime", regime)
    assert result.code == 0, result.err
    assert "Going on from" in result.out
    assert published(tmp_path / "a") == published(elsewhere / "b")
    assert published(tmp_path / "a")["epoch"] == scores.index(max(scores))
    continued = merged_weights(elsewhere / "b")
    for name, weights in merged_weights(tmp_path / "a").items():
        np.testing.assert_array_equal(continued[name], weights)


def test_a_best_checkpoint_that_is_gone_is_no_reason_to_publish_another(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import trainer

    class Removing(trainer.MarkComplete):
        def on_save(self, args, state, control, **options):  # type: ignore[no-untyped-def]
            super().on_save(args, state, control, **options)
            if (state.epoch or 0) >= 2:
                shutil.rmtree(state.best_model_checkpoint)

    invent_scores(monkeypatch, [0.0, 0.8, 0.5])
    monkeypatch.setattr(trainer, "MarkComplete", Removing)
    config = train_config(tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle")
    message = run(multiregime.main, "--config", config, "--regime", "full-ft").one_line_error()
    assert "the checkpoint of the best epoch is gone" in message
    assert not (tmp_path / "bundle").exists()


def test_an_identity_lacks_the_rule_that_runs_without_the_key_had(
    tiny_bert: Path, data_dir: Path
) -> None:
    from bankintent.config import TrainConfig
    from bankintent.corpus import dataset
    from bankintent.training.identity import first_difference, identity

    data = dataset.load(data_dir)

    def rule(**settings: object) -> object:
        config = TrainConfig.model_validate(
            {"model_name": "a/b", "regime": "lora", "output_dir": "out", **settings}
        )
        return identity(config, data)["settings"].get("keep", "as before")

    assert rule(keep="last") == "as before"
    assert rule() == "best"
    assert rule(early_stopping=2) == "as before"
    assert rule(early_stopping=2, keep="last") == "last"
    # The probe is a candidate that it was not.
    assert rule(early_stopping=2, head_init="probe") == "best"

    old = {"settings": {"lr": 0.1}}
    assert first_difference(old, {"settings": {"lr": 0.1, "keep": "best"}}) == (
        "keep is last, now best"
    )


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


def invent_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Each epoch's macro-F1 on validation; the first is that of the probe before training."""
    from bankintent.training.trainer import IntentTrainer

    evaluate = IntentTrainer.evaluate

    def invented(self: IntentTrainer, *args: object, **options: object) -> dict[str, float]:
        measure = self._validator.measure
        score = scores[round(self.state.epoch or 0)]

        def measured(model: object) -> dict[str, float]:
            return measure(model) | {"macro_f1": score}  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(self._validator, "measure", measured)
            return evaluate(self, *args, **options)

    monkeypatch.setattr(IntentTrainer, "evaluate", invented)


def merged_weights(bundle: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(bundle / "merged" / "model.safetensors")


def published(bundle: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((bundle / "metrics.json").read_text())["training"]
    return record["published"]  # type: ignore[return-value]


CONSTANT = {"scheduler": "constant", "warmup": 0}
"""A learning rate that does not depend on the number of epochs."""


@pytest.mark.parametrize("regime", REGIMES)
def test_the_weights_of_the_best_epoch_are_published_and_of_equals_the_first(
    regime: str,
    tiny_bert: Path,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, epochs, more in (("best", 4, {}), ("two", 2, {}), ("last", 4, {"keep": "last"})):
        config = train_config(
            tmp_path / f"{name}.yaml",
            tiny_bert,
            data_dir,
            tmp_path / name,
            epochs=epochs,
            **(CONSTANT | more),
        )
        with monkeypatch.context() as patch:
            invent_scores(patch, [0.0, 0.3, 0.8, 0.8, 0.5])
            result = run(multiregime.main, "--config", config, "--regime", regime)
        assert result.code == 0, result.err
        if name == "best":
            assert "Published: epoch 2 of 4, the best of validation\n" in result.out
            assert "  macro-F1 80.00 %; the last epoch had 50.00 %\n" in result.out

    best = merged_weights(tmp_path / "best")
    last = merged_weights(tmp_path / "last")
    for name, weights in merged_weights(tmp_path / "two").items():
        np.testing.assert_array_equal(best[name], weights)
    assert not np.array_equal(best["classifier.weight"], last["classifier.weight"])

    assert published(tmp_path / "best") == {
        "epoch": 2,
        "of": 4,
        "rule": "best",
        "val_macro_f1": 0.8,
        "probe_val_macro_f1": None,
        "last_val_macro_f1": 0.5,
        "which": "epoch 2 of 4, the best of validation",
        "figures": "macro-F1 80.00 %; the last epoch had 50.00 %",
    }
    assert published(tmp_path / "last")["which"] == "epoch 4 of 4, the last, as keep: last asks"
    card = (tmp_path / "best" / "README.md").read_text()
    assert "Published is epoch 2 of 4, the best of validation (macro-F1 80.00 %;" in card
    # The recipe on a card makes the same model again, also where the identity lacks the key.
    assert "\nkeep: last\n" in (tmp_path / "last" / "README.md").read_text()


@pytest.mark.parametrize("regime", REGIMES)
def test_a_probe_that_no_epoch_beats_is_published(
    regime: str,
    tiny_bert: Path,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor

    config = train_config(
        tmp_path / "train.yaml",
        tiny_bert,
        data_dir,
        tmp_path / "bundle",
        epochs=3,
        head_init="probe",
        lr=0.05,  # enough to ruin any model
    )
    with monkeypatch.context() as patch:
        invent_scores(patch, [0.8, 0.5, 0.8, 0.6])
        result = run(multiregime.main, "--config", config, "--regime", regime)
    assert result.code == 0, result.err
    assert "Published: the probe before training, which no epoch beat (3 trained)\n" in result.out
    assert "  macro-F1 80.00 %; the last epoch had 60.00 %\n" in result.out
    assert published(tmp_path / "bundle")["epoch"] == 0

    # Nothing of the encoder was changed, and the head answers as the probe did.
    before = files_weights(tiny_bert)
    after = merged_weights(tmp_path / "bundle")
    query = "encoder.layer.0.attention.self.query.weight"
    np.testing.assert_array_equal(after[f"bert.{query}"], before[query])
    val = dataset.load(data_dir).read("val")
    logits = Predictor.load(tmp_path / "bundle").logits(val.texts)
    accuracy = float(np.mean(logits.argmax(axis=1) == val.labels))
    assert f"The head starts from a linear probe: validation accuracy {100 * accuracy:.2f} %" in (
        result.out
    )


def files_weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_measuring_the_probe_changes_nothing_in_training(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    invent_scores(monkeypatch, [0.1, 0.2, 0.3])
    for keep in ("best", "last"):
        path = tmp_path / f"{keep}.yaml"
        config = train_config(
            path, tiny_bert, data_dir, tmp_path / keep, head_init="probe", keep=keep
        )
        assert run(multiregime.main, "--config", config, "--regime", "full-ft").code == 0

    best = merged_weights(tmp_path / "best")
    for name, weights in merged_weights(tmp_path / "last").items():
        np.testing.assert_array_equal(best[name], weights)
    figures = published(tmp_path / "best")["figures"]
    assert figures == "macro-F1 30.00 %; the probe had 10.00 %"


@pytest.mark.parametrize("regime", REGIMES)
def test_the_figure_of_the_published_epoch_is_the_published_figure(
    regime: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, bundle, precision="bf16", lr=3e-3, epochs=3
    )
    assert run(multiregime.main, "--config", config, "--regime", regime).code == 0
    record = json.loads((bundle / "metrics.json").read_text())
    assert record["training"]["precision"] == "bf16"
    epoch = record["training"]["history"][record["training"]["published"]["epoch"] - 1]
    for metric in ("accuracy", "macro_f1"):
        assert record["metrics"]["val"][metric] == epoch[f"val_{metric}"]


def test_validation_is_in_float32_whatever_training_is_in(tiny_bert: Path, data_dir: Path) -> None:
    import torch
    from accelerate import Accelerator

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones
    from bankintent.training.encoding import encode
    from bankintent.training.losses import IntentLoss
    from bankintent.training.validating import Validator

    data = dataset.load(data_dir)
    val = data.read("val")
    backbone = backbones.load_backbone(str(tiny_bert), data.labels, 32)
    expected = Predictor(backbone.model, backbone.tokenizer, data.labels).logits(val.texts, 4)
    model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(backbone.model)

    rows = encode(val, backbone.tokenizer)
    batch = backbone.tokenizer.pad(
        [{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt"
    )
    in_bf16 = model(**batch).logits.detach().float().numpy()
    assert not np.allclose(in_bf16, expected, atol=1e-6)

    validator = Validator(rows, backbone.tokenizer, 4, IntentLoss(0.0, None), "bf16")
    np.testing.assert_array_equal(validator._compute_logits(model), expected)
    labels = torch.tensor(val.labels)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(expected), labels)
    assert validator.measure(model)["loss"] == pytest.approx(loss.item(), abs=1e-6)
    # Training goes on in bf16.
    np.testing.assert_array_equal(model(**batch).logits.detach().float().numpy(), in_bf16)


def test_early_stopping_counts_from_the_best_epoch_and_not_from_the_probe(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.9, 0.3, 0.4, 0.6, 0.5, 0.6, 0.7]
    for keep, epoch in (("best", 0), ("last", 5)):
        config = train_config(
            tmp_path / f"{keep}.yaml",
            tiny_bert,
            data_dir,
            tmp_path / keep,
            epochs=6,
            early_stopping=2,
            head_init="probe",
            keep=keep,
        )
        with monkeypatch.context() as patch:
            invent_scores(patch, scores)
            result = run(multiregime.main, "--config", config, "--regime", "head-only")
        assert result.code == 0, result.err
        record = published(tmp_path / keep)
        assert (record["epoch"], record["of"]) == (epoch, 5)


def test_a_run_that_stopped_early_trains_no_further_when_it_is_continued(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.export import publish as export

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    invent_scores(monkeypatch, [0.0, 0.3, 0.6, 0.5, 0.4, 0.9])
    for name in "ab":
        config = train_config(
            tmp_path / f"{name}.yaml",
            tiny_bert,
            data_dir,
            tmp_path / name,
            epochs=5,
            early_stopping=2,
        )
        if name == "b":
            with monkeypatch.context() as patch:
                patch.setattr(export, "export", killed)
                assert run(multiregime.main, "--config", config, "--regime", "lora").code == 130
        result = run(multiregime.main, "--config", config, "--regime", "lora")
        assert result.code == 0, result.err

    assert "Going on from" in result.out
    assert published(tmp_path / "a") == published(tmp_path / "b")
    assert published(tmp_path / "b")["of"] == 4
    continued = merged_weights(tmp_path / "b")
    for name, weights in merged_weights(tmp_path / "a").items():
        np.testing.assert_array_equal(continued[name], weights)


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
    assert record["metrics"]["val"]["macro_f1"] == max(history)
    assert record["training"]["published"]["epoch"] == history.index(max(history)) + 1


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
        str(tmp_path / "trained"), LabelSchema(("claim", "refund", "transfer")), 32
    )
    assert others.new_modules == ("classifier",)
    assert others.kept_rows == 0
    weight = backbones.output_layer(again.model, 3).weight
    assert not weight.isclose(backbones.output_layer(others.model, 3).weight).any()


@pytest.mark.parametrize(
    "names",
    [
        ("Exchange", "card_lost", "refund"),  # as many labels
        ("Exchange", "card_lost", "refund", "top_up", "transfer"),  # more
        ("refund", "top_up"),  # fewer, two
        ("card_lost", "top_up"),  # fewer, none of them new
    ],
)
@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_intents_that_a_trained_head_knows_keep_their_rows(
    architecture: str, names: tuple[str, ...], encoders: dict[str, Path], tmp_path: Path
) -> None:
    import torch

    from bankintent.inference.predictor import Predictor
    from bankintent.labels import LabelSchema
    from bankintent.training import backbones

    trained = LabelSchema(("top_up", "card_lost", "Exchange"))
    first = backbones.load_backbone(str(encoders[architecture]), trained, 32)
    head = backbones.output_layer(first.model, 3)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([3.0, 2.0, 1.0]))
    first.model.save_pretrained(tmp_path / "trained")
    first.tokenizer.save_pretrained(tmp_path / "trained")
    texts = ["i lost my card", "top up"]
    logits = Predictor(first.model, first.tokenizer, trained).logits(texts)

    labels = LabelSchema(names)
    again = backbones.load_backbone(str(tmp_path / "trained"), labels, 32)
    shared = [name for name in names if name in trained.names]
    new = [name for name in names if name not in trained.names]
    assert again.kept_rows == len(shared)
    assert again.new_modules == (("classifier",) if new else ())
    found = Predictor(again.model, again.tokenizer, labels).logits(texts)
    for name in shared:
        np.testing.assert_allclose(
            found[:, names.index(name)], logits[:, trained.names.index(name)], atol=1e-5
        )
    layer = backbones.output_layer(again.model, len(names))
    assert layer.out_features == len(names)
    for name in new:
        row = layer.weight[names.index(name)]
        assert 0 < row.abs().max() < 1
        assert layer.bias[names.index(name)] == 0
        assert not any(torch.allclose(row, old) for old in head.weight)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("head_init", ["random", "probe"])
def test_a_run_goes_on_from_a_bundle_with_other_intents(
    head_init: str, regime: str, trained: Path, tmp_path: Path, run: Run
) -> None:
    import etl

    pairs = [(text, label) for text, label in rows() if label != "top_up"]
    pairs += [(f"give me my money back please, {number}", "refund") for number in range(20)]
    source = write_csv(tmp_path / "more.csv", pairs)
    data = write_yaml(tmp_path / "d.yaml", dataset_name=str(source), output_dir=str(tmp_path / "d"))
    assert run(etl.main, "--config", data).code == 0

    config = train_config(
        tmp_path / "t.yaml",
        trained / "bundle",
        tmp_path / "d",
        tmp_path / "next",
        head_init=head_init,
        lr=1e-6,
        keep="last",
    )
    result = run(multiregime.main, "--config", config, "--regime", regime)
    assert result.code == 0, result.err
    kept = {
        "random": "2 of 3 intents keep their rows of the trained head.",
        "probe": "head_init: probe fits the head anew; that of 2 of 3 intents is not kept.",
    }
    assert kept[head_init] in result.out

    before = merged_weights(trained / "bundle")["classifier.weight"]
    after = merged_weights(tmp_path / "next")["classifier.weight"]
    # In order of their names: card_lost, Exchange, top_up before, refund in the place of top_up.
    is_near = np.abs(after[:2] - before[:2]).max() < 1e-4
    assert is_near == (head_init == "random")
    assert np.abs(after[2] - before[2]).max() > 1e-3


def test_the_screen_says_what_is_done_before_anything_that_takes_time(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = train_config(
        tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle", head_init="probe"
    )
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == f"Training head-only on {tiny_bert}"
    assert lines[1] == "48 sentences of 3 intents from data"
    named = [line for line in lines if line.endswith(" ...")]
    assert named == [
        "Loading PyTorch and transformers ...",
        "Loading the encoder ...",
        "Reading 54 sentences once with the frozen encoder ...",
        "Fitting a linear probe of the encoder ...",
        "Publishing: saving, loading again in a fresh process, comparing ...",
    ]
    # A table of epochs: a header, the probe, and the two epochs, in 80 columns.
    (header,) = [number for number, line in enumerate(lines) if "train loss" in line]
    table = lines[header : header + 4]
    assert [line.split()[0] for line in table] == ["epoch", "probe", "1/2", "2/2"]
    assert len({len(line) for line in table}) == 1
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_a_line_of_progress_fits_a_terminal() -> None:
    from bankintent.training.progress import EPOCH_COLUMNS, duration

    assert sum(EPOCH_COLUMNS.values()) <= 80
    for name, width in EPOCH_COLUMNS.items():
        assert len(name) < width
    assert duration(7.4) == "7 s"
    assert len(duration(59_999)) < EPOCH_COLUMNS["left"]


@pytest.mark.parametrize(
    ("language", "model", "is_said"),
    [
        ("de", "bundled/all-MiniLM-L6-v2", True),
        ("de", "sentence-transformers/all-MiniLM-L6-v2", True),
        ("de", "xlm-roberta-base", False),
        ("en", "bundled/all-MiniLM-L6-v2", False),
        (None, "bundled/all-MiniLM-L6-v2", False),
    ],
)
def test_another_language_than_the_encoder_reads_is_pointed_out(
    language: str | None,
    model: str,
    is_said: bool,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import replace

    from bankintent.config import TrainConfig
    from bankintent.corpus import dataset
    from bankintent.corpus.language import MULTILINGUAL_ENCODER
    from bankintent.training import run as training

    shares = {language: 1.0} if language else {}
    data = dataset.load(data_dir)
    data = replace(data, manifest=replace(data.manifest, languages=shares))
    config = TrainConfig(model_name=model, regime="lora", output_dir=Path("out"))
    training._say_language_note(config, data)
    out = capsys.readouterr().out
    assert ("read as German; the embedded encoder reads English" in out) == is_said
    assert (f"--set model_name={MULTILINGUAL_ENCODER}" in out) == is_said


def test_a_summary_without_a_mistake_gives_no_interval_of_macro_f1() -> None:
    from bankintent.training import publication

    validation = SimpleNamespace(cross=None, intervals={"accuracy": [0.9749, 1.0]})
    values = {"val": {"accuracy": 1.0, "macro_f1": 1.0}}
    record: Any = SimpleNamespace(validation=validation, metrics=values)
    assert publication._validation_figures(record) == [
        "validation accuracy 100.00 % (95 % interval 97.49 to 100.00)",
        "validation macro-F1 100.00 %",
    ]
