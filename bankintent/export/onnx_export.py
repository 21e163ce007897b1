"""A saved classifier to the formats of `onnx/`, each kept only where it passes its gate.

The gate runs a format exactly as it is served: the same tokenizer, padding, session and options.
"""

import contextlib
import dataclasses
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from bankintent.config import ExportSection
from bankintent.errors import ModelError
from bankintent.export import gate, int8
from bankintent.export.first_token import narrow_to_first_token
from bankintent.export.gate import Reference, Verdict
from bankintent.inference.exported_runtime import (
    FIELDS,
    KINDS,
    PROBES,
    TOKENIZER,
    ExportedModel,
    Feeds,
    Settings,
)
from bankintent.inference.predictor import Predictor

BATCH = 16
"""Sentences in one pass of calibration."""
NOISY = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")


@dataclasses.dataclass
class Published:
    """What became of each format: the figures of those that passed their gate, the reason of those that did not."""

    formats: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


def publish(
    predictor: Predictor,
    backbone: str,
    folder: Path,
    reference: Reference,
    calibration: list[str],
    wanted: ExportSection,
) -> Published:
    """Write the folder `onnx/`; what fails leaves nothing behind. `calibration` are training sentences."""
    folder.mkdir()
    published, probes = Published(), dict[str, list[list[float]]]()

    def add(
        name: str, write: Callable[[], object], judge: Callable[[ExportedModel, Reference], Verdict]
    ) -> None:
        verdict, answers = attempt(folder, name, write, lambda model: judge(model, reference))
        if verdict.reason is None:
            published.formats[name], probes[name] = verdict.figures, answers
        else:
            published.left_out[name] = verdict.reason

    add("onnx", lambda: write_onnx(predictor, backbone, folder), gate.judge_float32)
    if "onnx" not in published.formats:
        shutil.rmtree(folder)
        return published
    if wanted.int8:
        add("onnx-int8", lambda: write_int8(folder, calibration), gate.judge_reduced)
        if "onnx-int8" not in published.formats:
            (folder / KINDS["onnx-int8"].file).unlink(missing_ok=True)
    if KINDS["openvino"].installed:
        add("openvino", lambda: None, gate.judge_reduced)
    dataclasses.replace(Settings.load(folder), probes=probes).save(folder)
    return published


def attempt(
    folder: Path, name: str, write: Callable[[], object], judge: Callable[[ExportedModel], Verdict]
) -> tuple[Verdict, list[list[float]]]:
    """Write a format, judge it, and take its logits of PROBES. What cannot be written or run is a verdict too."""
    try:
        write()
        model = ExportedModel(folder, KINDS[name], torch.get_num_threads())
        return judge(model), model.logits(model.tokenize(list(PROBES))).tolist()
    except Exception as error:  # noqa: BLE001 (a boundary: exporters and engines fail in many ways, none of them ours)
        cause = next(iter(str(error).strip().splitlines()), "")[:300]
        return Verdict(
            {}, cause if isinstance(error, ModelError) else f"{type(error).__name__}: {cause}"
        ), []


def write_onnx(predictor: Predictor, backbone: str, folder: Path) -> None:
    """model.onnx, tokenizer.json and runtime.json; ModelError where the tokenizer cannot do without transformers."""
    tokenizer, model = predictor.tokenizer, predictor.model.cpu()
    fast = getattr(tokenizer, "backend_tokenizer", None)
    example = tokenizer(["an example of some words", "another"], padding=True, return_tensors="pt")
    if fast is None or not set(example) <= set(FIELDS):
        raise ModelError("its tokenizer works with transformers only")
    fast.no_padding()
    fast.no_truncation()
    (folder / TOKENIZER).write_text(fast.to_str(), encoding="utf-8")
    padding = {
        "input_ids": tokenizer.pad_token_id,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
    }
    Settings(
        inputs=list(example),
        padding={name: int(padding[name]) for name in example},
        padding_side=tokenizer.padding_side,
        max_length=int(tokenizer.model_max_length),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        backbone=backbone or str(model.config.model_type),
        probes={},
    ).save(folder)
    ir.save(export_graph(model, dict(example)), folder / KINDS["onnx"].file)


def export_graph(model: torch.nn.Module, example: dict[str, torch.Tensor]) -> ir.Model:
    """The graph with batch and length left open, its inputs named as the example's keys, its output `logits`."""
    # Of the fused attention the exporter makes more operations, among them a guard for texts that are all padding.
    model.set_attn_implementation("eager")
    with quiet():
        program = torch.onnx.export(
            model,
            kwargs=example,
            input_names=list(example),
            output_names=["logits"],
            dynamo=True,
            dynamic_shapes={name: {0: "batch", 1: "seq"} for name in example},
            verbose=False,
        )
    assert program is not None
    graph: ir.Model = program.model
    ClearMetadataAndDocStringPass()(graph)  # it names the source files of this machine
    narrow_to_first_token(graph)
    return graph


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter from speaking of what it does; its errors are raised all the same."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def write_int8(folder: Path, calibration: list[str]) -> None:
    """model_int8.onnx from model.onnx, its scales measured on some sentences; ModelError where there is no product."""
    source, scratch = folder / KINDS["onnx"].file, folder / "observed.onnx"
    try:
        observed = int8.observe(source, _batches(folder, calibration), scratch)
    finally:
        scratch.unlink(missing_ok=True)
    if not int8.quantise(source, folder / KINDS["onnx-int8"].file, observed):
        raise ModelError("it has no matrix product with constant weights")


def _batches(folder: Path, texts: list[str]) -> Iterator[Feeds]:
    """The model's inputs for some sentences, shortest first."""
    model = ExportedModel(folder, KINDS["onnx"], threads=1)
    items = sorted(model.tokenize(texts), key=len)
    for start in range(0, len(items), BATCH):
        yield model.feeds(items[start : start + BATCH])
