"""Make the formats of `onnx/` from a classifier; each is kept only where it passes its gate.

The gate runs a format exactly as it is served: the same tokenizer, padding, session and options.
"""

import contextlib
import dataclasses
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from bankintent.config import ExportSection
from bankintent.errors import ModelError
from bankintent.export import feature_gate, gate, int8, steps
from bankintent.export.feature_gate import ReferenceFeatures
from bankintent.export.features_output import add_features
from bankintent.export.first_token import narrow_to_first_token
from bankintent.export.gate import FormatResults, ReferenceAnswers, Verdict
from bankintent.inference.engines import Feeds
from bankintent.inference.exported_inputs import (
    ENCODING_FIELDS,
    LOGITS,
    PROBES,
    TOKENIZER,
    FormatSettings,
)
from bankintent.inference.exported_runtime import KINDS, ExportedModel
from bankintent.inference.predictor import Predictor

CALIBRATION_BATCH = 16
"""Sentences in one pass of calibration."""
NOISY_LOGGERS = (
    "torch.onnx",
    "torch.onnx._internal.exporter._registration",
    "onnxscript",
    "onnx_ir",
)


@dataclass(frozen=True)
class FormatOutcome:
    """One format that was tried."""

    verdict: Verdict
    probes: list[list[float]]
    """Its logits of PROBES; empty where it could not be run."""

    @property
    def passed(self) -> bool:
        return self.verdict.reason is None


def write_formats(
    predictor: Predictor,
    backbone: str,
    folder: Path,
    reference: ReferenceAnswers,
    calibration: list[str],
    config: ExportSection,
) -> FormatResults:
    """Write the folder `onnx/`; a format that fails leaves nothing in it.

    `calibration` are training sentences. Without the float32 format there is no folder.
    """
    folder.mkdir()
    # Before the export, which moves the model to the CPU.
    features = feature_gate.compute_reference(predictor, reference)

    def judge_float32(model: ExportedModel) -> Verdict:
        verdict = gate.judge_float32(model, reference)
        return _judge_features(verdict, model, features, feature_gate.judge_float32)

    float32 = try_format(
        folder,
        "onnx",
        write=lambda: write_onnx(predictor, backbone, folder, features is not None),
        judge=judge_float32,
    )
    outcomes = {"onnx": float32}
    if not float32.passed:
        shutil.rmtree(folder)
        return _collect(outcomes)

    def judge_reduced(model: ExportedModel) -> Verdict:
        verdict = gate.judge_reduced(model, reference)
        return _judge_features(verdict, model, features, feature_gate.judge_reduced)

    if config.int8:
        outcomes["onnx-int8"] = try_format(
            folder, "onnx-int8", lambda: write_int8(folder, calibration), judge_reduced
        )
        if not outcomes["onnx-int8"].passed:
            (folder / KINDS["onnx-int8"].file).unlink(missing_ok=True)
    if KINDS["openvino"].installed:
        # There is nothing to write: OpenVINO computes model.onnx.
        outcomes["openvino"] = try_format(folder, "openvino", lambda: None, judge_reduced)

    probes = {name: outcome.probes for name, outcome in outcomes.items() if outcome.passed}
    dataclasses.replace(FormatSettings.load(folder), probes=probes).save(folder)
    return _collect(outcomes)


def _judge_features(
    answers: Verdict,
    model: ExportedModel,
    features: ReferenceFeatures | None,
    judge: Callable[[ExportedModel, ReferenceFeatures], Verdict],
) -> Verdict:
    """The verdict on the answers, joined with that on the features where the graph gives them."""
    if features is None or model.settings.features == 0:
        return answers
    return feature_gate.join(answers, judge(model, features))


def _collect(outcomes: dict[str, FormatOutcome]) -> FormatResults:
    results = FormatResults({}, {})
    for name, outcome in outcomes.items():
        reason = outcome.verdict.reason
        if reason is None:
            results.formats[name] = outcome.verdict.figures
        else:
            results.left_out[name] = reason
    return results


def try_format(
    folder: Path,
    name: str,
    write: Callable[[], object],
    judge: Callable[[ExportedModel], Verdict],
) -> FormatOutcome:
    """Write a format, judge it, and take its logits of PROBES.

    A format that cannot be written or run gets a verdict with that reason.
    """
    steps.begin(f"making and checking {name}")
    try:
        write()
        model = ExportedModel(folder, KINDS[name], torch.get_num_threads())
        verdict = judge(model)
        probes = model.logits(model.encode(list(PROBES))).tolist()
    # A boundary: exporters and engines fail in many ways, none of them ours.
    except Exception as error:  # noqa: BLE001
        return FormatOutcome(Verdict({}, _describe_error(error)), [])
    return FormatOutcome(verdict, probes)


def _describe_error(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    cause = lines[0][:300] if lines else ""
    if isinstance(error, ModelError):
        return cause
    return f"{type(error).__name__}: {cause}"


def write_onnx(
    predictor: Predictor, backbone: str, folder: Path, with_features: bool = False
) -> None:
    """Write model.onnx, tokenizer.json and runtime.json.

    `with_features` says that the model gives them, so that the graph should. ModelError where the
    tokenizer needs transformers.
    """
    example = encode_example(predictor.tokenizer)
    graph, width = export_graph(predictor.model.cpu(), example, with_features)
    write_inputs(predictor, backbone, folder, list(example), width)
    ir.save(graph, folder / KINDS["onnx"].file)


def encode_example(tokenizer: Any) -> dict[str, torch.Tensor]:
    """The inputs for which a graph is traced; ModelError where the tokenizer needs transformers."""
    # Two texts of some length: the exporter takes a size of 1 for a constant.
    example = tokenizer(["an example of some words", "another"], padding=True, return_tensors="pt")

    # A tokenizer that is written in Python has no counterpart in `tokenizers`.
    is_fast = getattr(tokenizer, "backend_tokenizer", None) is not None
    # tokenizer.json cannot say that special tokens in a text are words.
    splits = getattr(tokenizer, "split_special_tokens", False)
    if not is_fast or splits or not set(example) <= set(ENCODING_FIELDS):
        raise ModelError("its tokenizer works with transformers only")
    return dict(example)


def write_inputs(
    predictor: Predictor, backbone: str, folder: Path, inputs: list[str], features: int
) -> None:
    """Write tokenizer.json and runtime.json, with which `ExportedInputs` feeds a graph.

    `inputs` are those of `encode_example`, `features` is the width of what the graph gives of them.
    """
    tokenizer = predictor.tokenizer
    # tokenizer.json would keep those of the last call.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    text = tokenizer.backend_tokenizer.to_str()
    (folder / TOKENIZER).write_text(text, encoding="utf-8")

    model = predictor.model
    padding = {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
    }
    settings = FormatSettings(
        inputs=inputs,
        padding={name: int(padding[name]) for name in inputs},
        padding_side=tokenizer.padding_side,
        max_length=int(tokenizer.model_max_length),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        backbone=backbone or str(model.config.model_type),
        probes={},
        features=features,
    )
    settings.save(folder)


def export_graph(
    model: torch.nn.Module, example: dict[str, torch.Tensor], with_features: bool
) -> tuple[ir.Model, int]:
    """The graph of a model, with batch and length left open, and the width of its features.

    Its inputs are named as the example's keys, its outputs `logits` and, where the width is not 0,
    `features`.
    """
    use_plain_attention(model)
    open_axes = {name: {0: "batch", 1: "seq"} for name in example}
    graph = trace(model, example, open_axes, list(example))
    width = add_features(graph.graph) if with_features else 0
    narrow_to_first_token(graph)
    return graph, width


def use_plain_attention(model: Any) -> None:
    """Compute attention step by step.

    Of the fused attention the exporter makes more operations, among them a guard for texts that are
    all padding.
    """
    model.set_attn_implementation("eager")


def trace(
    model: torch.nn.Module,
    arguments: dict[str, Any],
    open_axes: dict[str, Any],
    names: list[str] | None = None,
) -> ir.Model:
    """The graph of a model for some arguments, which gives `logits`; its open axes have names.

    Without `names` the inputs are called after the arguments and their places in them.
    """
    with quiet_exporter():
        program = torch.onnx.export(
            model,
            kwargs=arguments,
            input_names=names,
            output_names=[LOGITS],
            dynamo=True,
            dynamic_shapes=open_axes,
            verbose=False,
        )
    assert program is not None

    graph: ir.Model = program.model
    # The exporter notes the source files of this machine in the graph.
    ClearMetadataAndDocStringPass()(graph)
    return graph


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's logs and warnings; its errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_int8(folder: Path, calibration: list[str]) -> None:
    """Write model_int8.onnx from model.onnx, its scales measured on some sentences.

    ModelError where the graph has no matrix product to quantise.
    """
    source = folder / KINDS["onnx"].file
    observed_model = folder / "observed.onnx"
    try:
        values = int8.observe(source, _calibration_feeds(folder, calibration), observed_model)
    finally:
        observed_model.unlink(missing_ok=True)

    if int8.quantise(source, folder / KINDS["onnx-int8"].file, values) == 0:
        raise ModelError("it has no matrix product with constant weights")


def _calibration_feeds(folder: Path, texts: list[str]) -> Iterator[Feeds]:
    """The model's inputs for some sentences, in batches, shortest first."""
    model = ExportedModel(folder, KINDS["onnx"], threads=1)
    items = sorted(model.tokenize(texts), key=len)
    for start in range(0, len(items), CALIBRATION_BATCH):
        yield model.feeds(items[start : start + CALIBRATION_BATCH])
