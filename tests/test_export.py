"""The formats of onnx/: what is written, what the gates let through, and the fate of the rest."""

import json
import re
import shutil
import time
from io import StringIO
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import Run, train_config
from rich.console import Console
from serving_fixtures import LABELS, TEXTS, reference_of, require_features, write_tiny_model
from tiny_models import ARCHITECTURES, tiny_encoder

import multiregime
from bankintent import console, process, progress
from bankintent.bundle import formats, layout
from bankintent.config import ExportSection
from bankintent.errors import ModelError
from bankintent.export import gate, int8, onnx_export, steps
from bankintent.export.gate import ReferenceAnswers
from bankintent.inference.exported_runtime import KINDS, REDUCED_TOLERANCE, ExportedModel
from bankintent.labels import LabelSchema

WORDS = [
    "i",
    "lost",
    "my",
    "card",
    "top",
    "up",
    "add",
    "funds",
    "exchange",
    "rate",
    "euros",
    "number",
    "app",
    "today",
]
SENTENCES = [" ".join(np.random.default_rng(i).choice(WORDS, 1 + i % 15)) for i in range(48)]


def wide_classifier(architecture: str, folder: Path):
    """A random classifier whose answers differ from text to text, as a predictor."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from bankintent.inference.head_inputs import output_layer
    from bankintent.inference.predictor import Predictor

    tiny_encoder(architecture, folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0, 1.0 if "embeddings" in name else 0.3)
    model.config.id2label = dict(enumerate(LABELS))
    model.save_pretrained(folder)
    predictor = Predictor.load(layout.Checkpoint(folder, LabelSchema(LABELS), folder, None, None))
    with torch.no_grad():  # no label has all texts
        output_layer(predictor.model, len(LABELS)).bias -= torch.from_numpy(
            predictor.logits(SENTENCES).mean(axis=0)
        )
    return predictor


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """The tiny BERT of the serving tests as a predictor."""
    from bankintent.inference.predictor import Predictor

    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Predictor.load(layout.Checkpoint(folder, LabelSchema(LABELS), folder, None, None))


@pytest.fixture(scope="module")
def float_folder(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An onnx/ with model.onnx alone."""
    folder = tmp_path_factory.mktemp("float") / "onnx"
    onnx_export.write_formats(
        tiny, "tiny", folder, reference_of(tiny, TEXTS), [], ExportSection(int8=False)
    )
    return folder


@pytest.mark.parametrize(
    "architecture",
    [
        name if name in ("bert", "modernbert") else pytest.param(name, marks=pytest.mark.proof)
        for name in ARCHITECTURES
    ],
)
def test_an_exported_classifier_answers_as_the_trained_one(
    architecture: str, tmp_path: Path
) -> None:
    import onnxruntime

    predictor = wide_classifier(architecture, tmp_path / "model")
    folder = tmp_path / "onnx"
    reference = reference_of(predictor, SENTENCES)
    assert len(set(reference.label_ids)) > 1
    published = onnx_export.write_formats(
        predictor, "tiny", folder, reference, SENTENCES[::2], ExportSection()
    )
    assert max(published.formats["onnx"]["largest_logit_difference"].values()) < 1e-4, published
    assert set(published.formats) | set(published.left_out) == set(KINDS)
    assert (folder / "model_int8.onnx").exists() == ("onnx-int8" in published.formats)
    for figures in published.formats.values():
        assert figures["rows"] == len(reference.texts)

    # Any batch and any length, by the names of the tokenizer, without our own code.
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert session.get_outputs()[0].name == "logits"
    for texts in (SENTENCES[:1], ["card"], SENTENCES[3:10]):
        feeds = dict(predictor.tokenizer(texts, padding=True, return_tensors="np"))
        assert {(i.name, i.type) for i in session.get_inputs()} == {
            (name, "tensor(int64)") for name in feeds
        }
        np.testing.assert_allclose(session.run(None, feeds)[0], predictor.logits(texts), atol=1e-4)

    require_features(folder, list(published.formats), predictor, SENTENCES)

    # The last layer works on one position where it can, and no path of this machine is inside.
    graph = ir.load(folder / "model.onnx").graph
    narrow = {node.op_type for node in graph if is_narrow(node)}
    assert {"MatMul", "LayerNormalization", "Gelu"} <= narrow
    content = (folder / "model.onnx").read_bytes()
    assert not re.search(rb"site-packages|transformers/models|\.py", content)


def is_narrow(node: ir.Node) -> bool:
    """Whether an operation works on one position."""
    positions = [str(output.shape[1]) for output in node.outputs if len(output.shape or ()) > 1]
    return "1" in positions


def test_int8_passes_its_gate_and_is_the_same_in_every_batch(
    tiny, float_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(float_folder, tmp_path / "onnx")
    onnx_export.write_int8(folder, TEXTS[::2])
    model = ExportedModel(folder, KINDS["onnx-int8"], 1)
    verdict = gate.judge_reduced(model, reference_of(tiny, TEXTS))
    assert verdict.reason is None, verdict
    assert verdict.figures["neighbours"]["largest_logit_difference"] == 0.0
    assert verdict.figures["largest_logit_difference"] > 1e-3  # it does compute in eight bits
    assert not list(folder.glob("observed*"))


def test_dynamic_int8_fails_the_gate_because_it_depends_on_the_batch(
    tiny, float_folder: Path, tmp_path: Path
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    folder = shutil.copytree(float_folder, tmp_path / "onnx")
    quantize_dynamic(
        folder / "model.onnx",
        folder / "model_int8.onnx",
        per_channel=True,
        op_types_to_quantize=["MatMul"],
    )
    model = ExportedModel(folder, KINDS["onnx-int8"], 1)
    verdict = gate.judge_reduced(model, reference_of(tiny, TEXTS))
    assert verdict.reason is not None
    assert "answers depend on the batch" in verdict.reason


class Wrong:
    """A model whose logits are changed on their way out."""

    def __init__(self, model: ExportedModel, change) -> None:
        self.tokenize, self._model, self._change = model.tokenize, model, change

    def logits(self, items):
        return self._change(self._model.logits(items))


def test_gates_refuse_what_differs(tiny, float_folder: Path) -> None:
    model = ExportedModel(float_folder, KINDS["onnx"], 1)
    reference = reference_of(tiny, TEXTS)
    assert gate.judge_float32(model, reference).reason is None
    assert gate.judge_reduced(model, reference).reason is None

    shifted = gate.judge_float32(Wrong(model, lambda logits: logits + 0.01), reference)
    assert "a logit differs by 1.0e-02" in str(shifted.reason)
    mirrored = gate.judge_reduced(Wrong(model, lambda logits: -logits), reference)
    assert "points of accuracy, the limit is 0.2" in str(mirrored.reason)
    assert "of the labels, the limit is 99 %" in str(mirrored.reason)

    def shift_by_batch_size(logits):
        return logits + len(logits) * np.abs(logits).max() / 10

    dependent = gate.judge_reduced(Wrong(model, shift_by_batch_size), reference)
    assert "depend on the batch (0 labels" in str(dependent.reason)
    broken = gate.judge_reduced(Wrong(model, lambda logits: logits * np.nan), reference)
    assert broken.reason == "a logit is not finite"
    broken = gate.judge_float32(Wrong(model, lambda logits: logits * np.nan), reference)
    assert "a logit differs by nan" in str(broken.reason)

    # Accuracy is measured on the true labels: where the reference was wrong too, nothing is lost.
    zeros = np.zeros(len(reference.texts), dtype=int)
    ordinary = gate.judge_reduced(model, ReferenceAnswers(reference.texts, zeros, reference.logits))
    assert ordinary.reason is None
    assert ordinary.figures["lost_accuracy"] == 0


def test_what_cannot_be_exported_is_left_out_with_its_reason(
    tiny, tmp_path: Path, monkeypatch
) -> None:
    reference = reference_of(tiny, TEXTS)

    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    record = tmp_path / "steps.txt"
    with monkeypatch.context() as patch, steps.recorded(record):
        patch.setattr(onnx_export, "write_int8", refuse)
        published = onnx_export.write_formats(
            tiny, "tiny", tmp_path / "a", reference, TEXTS, ExportSection()
        )
    begun = record.read_text().splitlines()
    assert begun[:2] == ["making and checking onnx", "making and checking onnx-int8"]
    assert len(begun) == steps.count(ExportSection()) - steps.count(ExportSection(onnx=False))
    assert published.left_out["onnx-int8"] == "RuntimeError: no such operator"
    assert "onnx" in published.formats
    assert not (tmp_path / "a" / "model_int8.onnx").exists()

    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "export_graph", refuse)
        published = onnx_export.write_formats(
            tiny, "tiny", tmp_path / "b", reference, TEXTS, ExportSection()
        )
    assert published.left_out == {"onnx": "RuntimeError: no such operator"}
    assert not (tmp_path / "b").exists()


def test_a_run_publishes_its_formats_and_says_so(published: Path) -> None:
    bundle = published / "bundle"
    printed = (published / "output.txt").read_text()
    assert {"model.onnx", "tokenizer.json", "runtime.json"} <= {
        path.name for path in (bundle / "onnx").iterdir()
    }
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert "onnx/model.onnx" in manifest["files"]
    parity = json.loads((bundle / "metrics.json").read_text())["parity"]
    assert parity == manifest["parity"]
    assert set(parity["formats"]) | set(parity["left_out"]) == set(KINDS)
    card = (bundle / "README.md").read_text()
    assert "- onnx: float32, every logit within" in card
    assert "onnx: float32, every logit within" in printed
    for name, reason in parity["left_out"].items():
        assert f"{name} was left out: {reason}" in card
    layout.verify(bundle, layout.read_manifest(bundle), "onnx")


def test_an_exporter_that_dies_takes_no_model_with_it(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.export import fresh_check

    real_run = process.run_module

    def killed(module: str, arguments: list[Path], log: Path) -> str:
        """As if the process had ended while it wrote onnx/."""
        real_run(module, arguments, log)
        staging, check = arguments
        (check / fresh_check.FORMATS).unlink()
        (staging / "onnx").mkdir()
        return "ended by signal 9 (is memory short?)"

    monkeypatch.setattr(process, "run_module", killed)
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.0)
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle, epochs=1)
    result = run(multiregime.main, "--config", config, "--regime", "full-ft")
    assert result.code == 0, result.err
    assert "onnx was left out: its export was cut off: ended by signal 9" in result.out
    assert not (bundle / "onnx").exists()

    prefix = f"{steps.TITLE}: "
    said = [line for line in result.out.splitlines() if line.startswith(prefix)]
    assert [line.removeprefix(prefix) for line in said[1:]] == [
        "saving the model",
        "answering the validation split",
        "loading it in a fresh process",
        "comparing the saved forms",
        "reading the training sentences with the published model",
        "writing the records, sealing",
    ]
    # The step of the index is counted by what writes it.
    assert len(said[1:]) == steps.count(ExportSection(onnx=False)) + 1


def test_what_is_left_out_is_told_with_its_limit_its_cost_and_what_to_do() -> None:
    float32 = {"rows": 64, "largest_logit_difference": {"batch 1": 9e-6}}
    openvino = {"rows": 431, "accuracy": 0.78, "lost_accuracy": -0.0046, "agreement": 0.993}
    reasons = {
        "onnx-int8": "it agrees on 97.9 % of the labels, the limit is 99 %",
        "openvino": "it loses 0.24 points of accuracy, the limit is 0.2; answers depend on ...",
    }
    parity = {"formats": {"onnx": float32}, "left_out": reasons}
    assert formats.summarise_formats(parity) == [
        "onnx: float32, every logit within 9e-06 of the trained model",
        "onnx-int8 was left out: it agrees on 97.9 % of the labels, the limit is 99 %",
        "openvino was left out: it loses 0.24 points of accuracy, the limit is 0.2",
        "float32 is served instead, about half as fast",
        "what to do: see README.md in the bundle",
    ]
    *_, cost = formats.describe_formats(parity)
    assert "float32 is served instead, about half as fast. Nothing has to be done" in cost
    assert reasons["openvino"] in formats.describe_formats(parity)[2]

    # What is served is the fastest that is left; where that lost nothing, there is nothing to say.
    slower = {"onnx": float32, "openvino": openvino}
    parity = {"formats": slower, "left_out": {"onnx-int8": "RuntimeError: " + 60 * "no such "}}
    lines = formats.summarise_formats(parity)
    assert lines[1] == "openvino: accuracy 78.00 % (0.46 points more), 99.3 % same labels"
    assert "bf16 is served instead, about three quarters as fast" in lines[-2]
    assert max(map(len, lines)) <= formats.WIDTH
    fastest = {"formats": {"onnx-int8": openvino}, "left_out": {"openvino": reasons["openvino"]}}
    assert not any("instead" in line for line in formats.describe_formats(fastest))


@pytest.mark.parametrize("agreement", [0.98999, 0.98])
def test_a_figure_outside_its_limit_never_looks_as_if_it_kept_it(agreement: float) -> None:
    logits = np.zeros((gate.GATE_ROWS, 2))
    logits[:, 0] = 1
    changed = logits.copy()
    flips = int(np.ceil((1 - agreement) * gate.GATE_ROWS))
    changed[:flips] = [0, 1]

    class Flipped:
        def tokenize(self, texts: list[str]) -> list[int]:
            return [int(text) for text in texts]

        def logits(self, items: list[int]) -> np.ndarray:
            return changed[items]

    texts = [str(row) for row in range(gate.GATE_ROWS)]
    label_ids = np.zeros(gate.GATE_ROWS, dtype=int)
    verdict = gate.judge_reduced(Flipped(), ReferenceAnswers(texts, label_ids, logits))
    share = re.search(r"agrees on ([\d.]+) %", str(verdict.reason))
    assert share is not None
    assert float(share[1]) < 99


def test_the_steps_of_publishing_fit_a_terminal_and_come_from_both_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "stdout", terminal)
    monkeypatch.setattr(steps, "POLL_SECONDS", 0.01)
    file = tmp_path / "steps.txt"

    with steps.shown(2):
        steps.begin("loading it in a fresh process")
        terminal.print("between")
        with steps.followed(file):
            # As the other process writes them: the second line is not yet whole.
            file.write_text("making and checking onnx-int8\nmaking an")
            deadline = time.monotonic() + 30
            while "onnx-int8" not in screen.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)

    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
    assert max(map(len, lines)) <= 80
    assert any(
        re.match(r"Publishing: loading it in a fresh process .* 1/2 ", line) for line in lines
    )
    assert any(
        re.match(r"Publishing: making and checking onnx-int8 .* 2/2 ", line) for line in lines
    )
    assert not any("making an " in line for line in lines)


def test_a_check_that_ends_well_without_a_result_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.bundle.work import WorkFolder
    from bankintent.export import publish
    from bankintent.export.fresh_check import CheckRequest

    monkeypatch.setattr(process, "run_module", lambda *_, **__: None)
    request = CheckRequest(
        texts=["a"], label_ids=[0], calibration=[], backbone="tiny", export=ExportSection()
    )
    logits = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ModelError, match="loaded again: the check left no result"):
        publish.check_parity(logits, logits, request, WorkFolder(tmp_path))


def test_int8_evens_out_large_channels_and_computes_what_it_simulated(tmp_path: Path) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 16)).astype(np.float32)
    values[:, 3] *= 60
    weight = rng.normal(size=(16, 8)).astype(np.float32)
    x = ir.Value(
        name="x", shape=ir.Shape(["batch", "seq", 16]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    w = ir.Value(
        name="w",
        shape=ir.Shape([16, 8]),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(weight),
    )
    product = ir.node("MatMul", [x, w])
    product.outputs[0].name = "y"
    product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    product.outputs[0].shape = ir.Shape(["batch", "seq", 8])
    graph = ir.Graph(
        [x], product.outputs, nodes=[product], initializers=[w], opset_imports={"": 20}
    )
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "float.onnx")

    assert int8.quantise(tmp_path / "float.onnx", tmp_path / "int8.onnx", {"x": values}) == 1
    session = onnxruntime.InferenceSession(
        str(tmp_path / "int8.onnx"), providers=["CPUExecutionProvider"]
    )
    computed = session.run(None, {"x": values[None]})[0][0]
    scheme = int8.choose_scheme(values, weight)
    assert scheme.even is not None
    simulated = int8.simulate(values, weight, scheme)
    np.testing.assert_allclose(computed, simulated, rtol=1e-3, atol=1e-2)

    exact = values @ weight
    uneven_scheme = int8.fit_scheme(values, values, weight, 0.0)
    uneven = int8.simulate(values, weight, uneven_scheme)
    assert np.square(computed - exact).mean() < np.square(uneven - exact).mean() / 3


def test_tolerances_of_reduced_precision_are_relative_to_the_logits() -> None:
    assert KINDS["onnx"].tolerance == 0
    assert KINDS["onnx-int8"].tolerance == KINDS["openvino"].tolerance == REDUCED_TOLERANCE
