"""Shared by the serving tests: a tiny classifier on disk, its bundle, and a model that waits."""

import json
import os
import string
import time
from pathlib import Path
from typing import Any

import numpy as np

HTML_LABEL = '<img src=x onerror="document.title=`run`">'
LABELS = ("card_arrival", "change_pin", HTML_LABEL, "exchange_rate", "lost_or_stolen_card")
MAX_LENGTH = 32
CARD = (
    "---\ntags: [x]\n---\n"
    "# tiny\n\n"
    "A **card** with <script>document.title='run'</script> and ![x](http://a.test/x)\n"
)
"""A card that tries to run a script and to load a picture."""

WORDS = "card my pin change lost rate has not arrived"


def write_tiny_model(folder: Path, tokenizer: Any = None) -> Path:
    """A random BERT of five labels as a plain Hugging Face folder."""
    import torch
    from tiny_models import tiny_config, tiny_tokenizer
    from transformers import BertForSequenceClassification

    if tokenizer is None:
        every_character = " ".join(string.ascii_lowercase + string.digits + string.punctuation)
        tokenizer = tiny_tokenizer([WORDS, every_character], model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    config = tiny_config(
        "bert",
        tokenizer,
        initializer_range=0.4,  # wide, so that texts get different answers
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_tiny_bundle(folder: Path) -> Path:
    """The tiny model as a sealed bundle with only merged/ in it."""
    from bankintent.bundle import layout
    from bankintent.labels import LabelSchema

    folder.mkdir(parents=True)
    write_tiny_model(folder / layout.MERGED)
    LabelSchema(LABELS).save(folder / layout.LABELS)
    (folder / layout.CARD).write_text(CARD)
    layout.seal(folder, {"name": "tiny", "base_model": "tiny-bert"})
    return folder


def write_evaluation(evals: Path, name: str) -> Path:
    """An evaluation as `python -m eval` writes it, as far as the card shows it."""
    from matplotlib.figure import Figure

    from bankintent.labels import LabelSchema

    folder = evals / name
    folder.mkdir(parents=True)
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().imshow(np.eye(5))
    figure.savefig(folder / "confusion.png")

    checkpoint = {"name": name, "labels_hash": LabelSchema(LABELS).hash}
    (folder / "metrics.json").write_text(json.dumps({"checkpoint": checkpoint}))
    return folder


class WaitingRuntime:
    """A model that works only while the file `hold` is absent: "yes..." is label 0, otherwise 1.

    `poison` in a text makes its batch fail; each text that it began is appended to the file
    `started`.
    """

    def __init__(self, folder: Path) -> None:
        from bankintent.inference.runtime import ModelFacts

        self.folder = folder
        self.policy: Any = None
        self.workers = 1
        self._texts: list[str] = []
        self.wait("loading")
        self.facts = ModelFacts(
            "waiting", "1", ("yes", "no"), "h", "none", 0, 100, "a test's", folder
        )

    def wait(self, name: str) -> None:
        while (self.folder / name).exists():
            time.sleep(0.005)

    def tokenize(self, texts: list[str]) -> list[Any]:
        """As many tokens as words, each the number of the text."""
        from bankintent.inference.runtime import Tokens

        tokens = []
        for text in texts:
            ids = [len(self._texts)] * len(text.split())
            self._texts.append(text)
            tokens.append(Tokens({"input_ids": ids}, False))
        return tokens

    def outputs(self, items: list[Any]) -> Any:
        from bankintent.inference.runtime import Outputs

        texts = [self._texts[item.features["input_ids"][0]] for item in items]
        with (self.folder / "started").open("a") as file:
            file.writelines(f"{text}\n" for text in texts)

        self.wait("hold")
        if any("poison" in text for text in texts):
            raise ValueError("the text is poison")
        rows = [[1, 0] if text.startswith("yes") else [0, 1] for text in texts]
        return Outputs(np.array(rows, dtype=np.float32), None)


def waiting_app() -> Any:
    """The app over a WaitingRuntime in the working directory, for `uvicorn --factory`."""
    from bankintent.config import ServeConfig
    from bankintent.configfile import load
    from bankintent.serving.app import create_app
    from bankintent.serving.bound_server import BoundServer

    settings = load(ServeConfig, Path(os.environ["SERVE_CONFIG"]))
    return BoundServer(create_app(settings, lambda _: lambda: WaitingRuntime(Path.cwd())))


def write_exported_bundle(folder: Path) -> Path:
    """The tiny model as a sealed bundle with merged/ and every format of onnx/ that passes its gate."""
    from bankintent.bundle import layout
    from bankintent.config import ExportSection
    from bankintent.export import onnx_export
    from bankintent.inference.predictor import Predictor
    from bankintent.labels import LabelSchema

    write_tiny_bundle(folder)
    (folder / layout.MANIFEST).unlink()
    predictor = Predictor.load(
        layout.Checkpoint(folder, LabelSchema(LABELS), folder / layout.MERGED, None, None)
    )
    reference = reference_of(predictor, TEXTS)
    published = onnx_export.write_formats(
        predictor, "tiny-bert", folder / layout.ONNX, reference, TEXTS[::2], ExportSection()
    )
    parity = {"formats": published.formats, "left_out": published.left_out}
    layout.seal(folder, {"name": "tiny", "base_model": "tiny-bert", "parity": parity})
    return folder


TEXTS = [
    f"{'my card has not arrived ' * (i % 4)}{word} {i}"
    for i in range(16)
    for word in ("pin", "rate", "lost")
]


def reference_of(predictor: Any, texts: list[str]) -> Any:
    """The ReferenceAnswers of a predictor whose every answer counts as right: of the third of the texts that it is surest of."""
    from bankintent.export.gate import ReferenceAnswers

    logits = predictor.logits(texts)
    best, second = np.sort(logits, axis=1)[:, -1], np.sort(logits, axis=1)[:, -2]
    sure = np.argsort(second - best)[: len(texts) // 3]
    return ReferenceAnswers([texts[i] for i in sure], logits[sure].argmax(axis=1), logits[sure])


def head_of(predictor: Any) -> tuple[np.ndarray, np.ndarray]:
    """The weight (labels, width) and bias (labels,) of the last layer."""
    from bankintent.inference.head_inputs import output_layer

    layer = output_layer(predictor.model, len(LABELS))
    weight = layer.weight.detach().numpy()
    return weight, np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()


def require_equation(outputs: Any, predictor: Any, atol: float = 1e-5) -> None:
    """Features times the last layer are the logits."""
    weight, bias = head_of(predictor)
    assert outputs.features is not None
    assert outputs.features.dtype == np.float32
    assert outputs.features.shape == (len(outputs), weight.shape[1])
    np.testing.assert_allclose(outputs.features @ weight.T + bias, outputs.logits, atol=atol)


def require_features(folder: Path, formats: list[str], predictor: Any, texts: list[str]) -> None:
    """The features of each format times the last layer are its logits; those of float32 are the predictor's."""
    from bankintent.inference.exported_runtime import KINDS, ExportedModel

    expected = predictor.outputs(texts)
    for name in formats:
        model = ExportedModel(folder, KINDS[name], 1)
        outputs = model.outputs(model.tokenize(texts))
        # In bf16 the last product is rounded too; in int8 it is not.
        require_equation(outputs, predictor, atol=0.1 if name == "openvino" else 1e-4)
        if name == "onnx":
            np.testing.assert_allclose(outputs.features, expected.features, atol=1e-4)
