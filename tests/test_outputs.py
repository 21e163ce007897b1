"""Features beside the logits: the same in every runtime, and nothing more to compute."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from serving_fixtures import (
    LABELS,
    TEXTS,
    reference_of,
    require_equation,
    require_features,
    write_exported_bundle,
    write_tiny_model,
)
from tiny_architectures import tiny_classifier
from tiny_models import ARCHITECTURES

from bankintent.bundle import layout
from bankintent.bundle.layout import Checkpoint
from bankintent.config import ExportSection
from bankintent.export import feature_gate, onnx_export
from bankintent.export.feature_gate import ReferenceFeatures
from bankintent.export.first_token import narrow_to_first_token
from bankintent.inference.exported_inputs import FormatSettings
from bankintent.inference.exported_runtime import KINDS, ExportedModel
from bankintent.inference.runtime import Outputs, OutputTable
from bankintent.labels import LabelSchema

SCHEMA = LabelSchema(LABELS)
WIDE = "wide.onnx"
SENTENCES = [
    "i lost my card",
    "rate",
    "how do i top up my card today " * 3,
    "card is gone",
    "pin 4",
]


def load(folder: Path) -> Any:
    """A classifier with SCHEMA's labels from a folder, as a predictor."""
    from bankintent.inference.predictor import Predictor

    return Predictor.load(Checkpoint(folder, SCHEMA, folder, None, None))


def family(architecture: str, folder: Path) -> Any:
    """A tiny random classifier of an architecture, as a predictor."""
    from bankintent.inference.predictor import Predictor
    from bankintent.training.backbones import load_backbone

    backbone = load_backbone(str(tiny_classifier(architecture, folder)), SCHEMA, 32)
    return Predictor(backbone.model, backbone.tokenizer, SCHEMA)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT of the serving tests as a bundle with every format that passes its gate.

    WIDE is its graph before the last layer is narrowed.
    """
    folder = tmp_path_factory.mktemp("outputs")

    def keep_and_narrow(model: ir.Model) -> int:
        ir.save(model, folder / WIDE)
        return narrow_to_first_token(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "narrow_to_first_token", keep_and_narrow)
        bundle = write_exported_bundle(folder / "bundle")
    (folder / WIDE).rename(bundle / WIDE)
    return bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same model as a predictor."""
    return load(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.mark.parametrize(
    "architecture", [*ARCHITECTURES, "mpnet", "albert", "xlm", "bart", "flaubert"]
)
def test_features_times_the_last_layer_are_the_logits(architecture: str, tmp_path: Path) -> None:
    predictor = family(architecture, tmp_path / "model")
    outputs = predictor.outputs(SENTENCES, batch_size=2)
    require_equation(outputs, predictor)
    np.testing.assert_array_equal(outputs.logits, predictor.logits(SENTENCES, batch_size=2))

    # In any order and batch a text has the same features.
    alone = [predictor.outputs([text]).features[0] for text in SENTENCES]
    np.testing.assert_allclose(outputs.features, alone, atol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_head_that_runs_on_every_token_gives_no_features(
    architecture: str, tmp_path: Path
) -> None:
    outputs = family(architecture, tmp_path / "model").outputs(SENTENCES, batch_size=2)
    assert outputs.features is None
    assert np.isfinite(outputs.logits).all()


def test_a_model_whose_last_layer_cannot_be_found_gives_no_features(tiny: Any) -> None:
    import torch

    class Tripled(torch.nn.Module):
        """Its answer is not what its last layer gives."""

        def __init__(self) -> None:
            super().__init__()
            self.model = tiny.model

        def forward(self, **batch: Any) -> Any:
            output = self.model(**batch)
            output.logits = output.logits * 3
            return output

    predictor = type(tiny)(Tripled(), tiny.tokenizer, SCHEMA)
    outputs = predictor.outputs(SENTENCES)
    assert outputs.features is None
    np.testing.assert_allclose(outputs.logits, 3 * tiny.logits(SENTENCES), rtol=1e-5)

    with_another_size = LabelSchema((*LABELS, "one more"))
    assert type(tiny)(tiny.model, tiny.tokenizer, with_another_size).head()._layer is None


def test_recording_leaves_nothing_in_the_model(tiny: Any) -> None:
    tiny.outputs(SENTENCES)
    assert not any(module._forward_hooks for module in tiny.model.modules())


def test_every_runtime_gives_the_features_of_the_model(exported: Path, tiny: Any) -> None:
    from bankintent.inference.torch_runtime import TorchRuntime

    expected = tiny.outputs(TEXTS)
    require_equation(expected, tiny)

    checkpoint = Checkpoint(exported, SCHEMA, exported / layout.MERGED, None, None)
    runtime = TorchRuntime(checkpoint, threads=1)
    served = runtime.outputs(runtime.tokenize(TEXTS))
    np.testing.assert_allclose(served.features, expected.features, atol=1e-5)

    kinds = layout.read_manifest(exported).formats
    assert {"onnx", "onnx-int8"} <= set(kinds)
    for name in kinds:
        model = ExportedModel(exported / layout.ONNX, KINDS[name], 1)
        items = model.tokenize(TEXTS)
        outputs = model.outputs(items)
        is_exact = name == "onnx"
        # In bf16 the last product is rounded too; in int8 it is not.
        require_equation(outputs, tiny, atol=0.1 if name == "openvino" else 1e-4)
        if is_exact:
            np.testing.assert_allclose(outputs.features, expected.features, atol=1e-4)

        alone = np.concatenate([model.outputs([item]).features for item in items])
        np.testing.assert_allclose(outputs.features, alone, atol=1e-5 if is_exact else 0.05)
        np.testing.assert_array_equal(model.logits(items), outputs.logits)


def test_threads_take_the_features_of_their_own_batch(exported: Path) -> None:
    from bankintent.inference.torch_runtime import TorchRuntime

    checkpoint = Checkpoint(exported, SCHEMA, exported / layout.MERGED, None, None)
    runtime = TorchRuntime(checkpoint, threads=4, workers=4)
    batches = [runtime.tokenize([text]) for text in TEXTS]
    expected = [runtime.outputs(batch).features for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, own in zip(pool.map(runtime.outputs, batches), expected, strict=True):
            np.testing.assert_allclose(found.features, own, atol=1e-6)


def test_the_second_output_keeps_the_last_layer_as_narrow(exported: Path) -> None:
    both = ir.load(exported / WIDE)
    plain = ir.load(exported / WIDE)
    assert [value.name for value in both.graph.outputs] == ["logits", "features"]
    del plain.graph.outputs[1]

    narrowed = narrow_to_first_token(plain)
    assert narrowed > 10
    assert narrow_to_first_token(both) == narrowed
    assert operations(both.graph) == operations(plain.graph)


@pytest.mark.proof
@pytest.mark.parametrize("architecture", ["albert", "mpnet", "flaubert"])
def test_every_exported_family_gives_its_features(architecture: str, tmp_path: Path) -> None:
    """Those of ARCHITECTURES are exported in test_export.py, and asked for their features there."""
    predictor = family(architecture, tmp_path / "model")
    folder = tmp_path / "onnx"
    published = onnx_export.write_formats(
        predictor, "tiny", folder, reference_of(predictor, TEXTS), TEXTS[::2], ExportSection()
    )
    assert "onnx" in published.formats
    require_features(folder, list(published.formats), predictor, TEXTS)


def operations(graph: ir.Graph) -> list[str]:
    """The kind of each operation, in order."""
    return [node.op_type for node in graph]


def test_int8_multiplies_no_more_for_the_features(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported / layout.ONNX, tmp_path / "onnx")
    graph = ir.load(folder / "model_int8.onnx").graph
    with_features = operations(graph)
    features = graph.outputs[1]
    assert features.name == "features"
    assert features.uses()[0].node.outputs[0].name == "logits"

    model = ir.load(folder / "model.onnx")
    del model.graph.outputs[1]
    ir.save(model, folder / "model.onnx")
    settings = FormatSettings.load(folder)
    dataclasses.replace(settings, features=0).save(folder)
    onnx_export.write_int8(folder, TEXTS[::2])
    assert operations(ir.load(folder / "model_int8.onnx").graph) == with_features


def test_a_bundle_from_before_has_logits_alone(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported / layout.ONNX, tmp_path / "onnx")
    current = ExportedModel(folder, KINDS["onnx"], 1)
    expected = current.outputs(current.tokenize(TEXTS))

    values = json.loads((folder / "runtime.json").read_text())
    del values["features"]
    (folder / "runtime.json").write_text(json.dumps(values))
    model = ir.load(folder / "model.onnx")
    del model.graph.outputs[1]
    ir.save(model, folder / "model.onnx")

    older = ExportedModel(folder, KINDS["onnx"], 1)
    outputs = older.outputs(older.tokenize(TEXTS))
    assert outputs.features is None
    np.testing.assert_array_equal(outputs.logits, expected.logits)


class Changed:
    """A format whose features are changed on their way out."""

    def __init__(self, model: ExportedModel, change: Any) -> None:
        self.tokenize = model.tokenize
        self._model = model
        self._change = change

    def outputs(self, items: Any) -> Outputs:
        outputs = self._model.outputs(items)
        return Outputs(outputs.logits, self._change(outputs.features))


def test_features_that_differ_do_not_pass_their_gate(exported: Path, tiny: Any) -> None:
    model = ExportedModel(exported / layout.ONNX, KINDS["onnx"], 1)
    reference = feature_gate.compute_reference(tiny, reference_of(tiny, TEXTS))
    assert reference is not None
    assert feature_gate.judge_float32(model, reference).reason is None
    assert feature_gate.judge_reduced(model, reference).reason is None

    shifted = feature_gate.judge_float32(Changed(model, lambda rows: rows + 0.01), reference)
    assert "a feature differs by 1.0e-02" in str(shifted.reason)
    rng = np.random.default_rng(0)
    noisy = Changed(model, lambda rows: rows + rng.normal(0, rows.std() / 4, rows.shape))
    reason = feature_gate.judge_reduced(noisy, reference).reason
    assert "the cosine of its features is 0." in str(reason)
    for judge in (feature_gate.judge_float32, feature_gate.judge_reduced):
        broken = judge(Changed(model, lambda rows: rows * np.nan), reference)
        assert broken.reason is not None


def test_a_part_that_all_features_share_hides_no_difference() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(size=(40, 8)).astype(np.float32)
    shared = np.float32(100)

    class Random:
        def tokenize(self, texts: list[str]) -> list[Any]:
            return list(texts)

        def outputs(self, items: list[Any]) -> Outputs:
            rows = rng.normal(size=(len(items), 8)).astype(np.float32) + shared
            return Outputs(rows, rows)

    reference = ReferenceFeatures(["a"] * 40, own + shared)
    assert feature_gate.judge_reduced(Random(), reference).reason is not None


def test_a_format_whose_features_fail_is_left_out_with_the_reason(
    exported: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "onnx"

    def copy_onnx(*_: object) -> None:
        for name in ("model.onnx", "runtime.json", "tokenizer.json"):
            shutil.copy(exported / layout.ONNX / name, folder / name)

    monkeypatch.setattr(onnx_export, "write_onnx", copy_onnx)
    monkeypatch.setattr(feature_gate, "COSINE", 1.1)
    published = onnx_export.write_formats(
        tiny, "tiny", folder, reference_of(tiny, TEXTS), TEXTS[::2], ExportSection()
    )
    assert set(published.formats) == {"onnx"}
    assert "largest_difference" in published.formats["onnx"]["features"]
    assert "the limit is 1.1" in published.left_out["onnx-int8"]
    assert not (folder / "model_int8.onnx").exists()


def test_outputs_are_put_together_in_any_order() -> None:
    table = OutputTable(3, 2)
    table.fill([2, 0], Outputs(np.array([[2, 2], [0, 0]]), np.array([[22.0], [20.0]])))
    table.fill([1], Outputs(np.array([[1, 1]]), np.array([[21.0]])))
    outputs = table.outputs()
    assert outputs.logits[:, 0].tolist() == [0, 1, 2]
    assert outputs.features is not None
    assert outputs.features[:, 0].tolist() == [20, 21, 22]

    row = outputs.row(1)
    assert row.logits.tolist() == [1, 1]
    assert row.features is not None
    assert row.features.base is None  # its own memory: a cache keeps no batch
    assert Outputs(outputs.logits, None).row(0).features is None
    assert OutputTable(0, 2).outputs().logits.shape == (0, 2)
