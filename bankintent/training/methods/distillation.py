"""A trained model's answers taught to a copy of it with fewer layers: another point between speed and quality.

Knowledge distillation (Hinton et al., 2015): the student learns, beside the labels, what its teacher says of every
training sentence, also of the intents that it holds for wrong. It starts as DistilBERT did (Sanh et al., 2019), from
some of the layers of its teacher, with the teacher's embeddings and head, and is a plain model of the same class.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import ModuleList, functional
from transformers import AutoConfig, PreTrainedModel

from bankintent import console, hub
from bankintent.bundle import layout
from bankintent.config import DistillSection, TrainConfig
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import ConfigError, ModelError
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.measures import metrics
from bankintent.training.backbones import Backbone
from bankintent.training.regimes import count_parameters

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Teacher:
    """A trained model on disk that was found fit to teach."""

    name: str
    base_model: str
    """What the teacher itself was made from."""
    weights_hash: str
    """sha256 over the weights: two teachers of one name may not be the same."""
    data_hash: str | None
    """Of the data that it was trained on, where it says so."""


@dataclass(frozen=True)
class Lesson:
    """A student that has learned nothing yet, and what its teacher says."""

    student: Backbone
    logits: Floats
    """(training rows, labels): the teacher's answers, in float32 and without dropout."""
    facts: dict[str, Any]
    """What the bundle records of the teacher."""


def open_teacher(config: TrainConfig, labels: LabelSchema) -> Teacher:
    """Find the trained model that `model_name` names, a bundle or a plain folder, and check it against what is wanted.

    Raises ModelError where there is no such model or it was changed, LabelError where its labels are not `labels`,
    ConfigError where the student would not be smaller than it.
    """
    assert config.distill is not None
    name, layers = config.model_name, config.distill.layers
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(
            f"distill: needs a trained model to learn from, and {name} is no folder",
            "Set model_name to a bundle such as artifacts/models/banking77-full-ft",
        )
    checkpoint = layout.open_checkpoint(path)
    if checkpoint.adapter is not None:
        raise ModelError(
            f"{name} holds no {layout.MERGED}/, which a student starts from",
            "Name a bundle that does",
        )
    checkpoint.labels.require_same(labels, name, "the data")
    with hub.explained(f'the model "{name}"'):
        kind = AutoConfig.from_pretrained(
            str(checkpoint.model), local_files_only=True, trust_remote_code=False
        )
    depth = int(getattr(kind, "num_hidden_layers", 0))
    if layers >= depth:
        raise ConfigError(
            f"distill.layers is {layers}, and the teacher {checkpoint.name} has {depth}",
            "Ask for fewer layers",
        )
    manifest = checkpoint.manifest or {}
    return Teacher(
        checkpoint.name,
        manifest.get("base_model", name),
        layout.weights_hash(path),
        manifest.get("data_hash"),
    )


def prepare(
    config: TrainConfig, data: Dataset, backbone: Backbone, train: SplitData, val: SplitData
) -> Lesson:
    """Ask the teacher, loaded as `backbone`, about every row, once, and make the student; the teacher is done then.

    Raises ModelError where its checkpoint lacks a part of the classifier, or its architecture cannot lose layers.
    """
    if backbone.new_modules:
        raise ModelError(
            f"{backbone.name} was not trained: it lacks {', '.join(backbone.new_modules)}",
            "Name a trained model",
        )
    assert config.distill is not None
    started, teacher = time.perf_counter(), open_teacher(config, data.labels)
    student, kept = make_student(backbone.model, config.distill.layers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = Predictor(backbone.model.to(device), backbone.tokenizer, data.labels)
    logits = predictor.logits(train.texts + val.texts, config.eval_batch_size)
    facts: dict[str, Any] = {
        "name": teacher.name,
        "weights_sha256": teacher.weights_hash,
        "same_data": teacher.data_hash == data.hash,
        "layers": backbone.model.config.num_hidden_layers,
        "kept_layers": [index + 1 for index in kept],
        "parameters": count_parameters(backbone.model).total,
        "val": metrics.summary(logits[len(train) :], np.asarray(val.labels)),
    }
    console.say(
        f"Teacher {teacher.name}: validation accuracy {100 * facts['val']['accuracy']:.2f} %, asked in"
        f" {time.perf_counter() - started:.0f} s. The student starts as its layers"
        f" {', '.join(map(str, facts['kept_layers']))} of {facts['layers']}"
    )
    if not facts["same_data"]:
        console.say(
            f"note: {teacher.name} does not record this very data as what it was trained on; where it has seen rows of"
            " the validation or test split, figures of its student on them are too good"
        )
    return Lesson(
        replace(backbone, name=teacher.base_model, model=student), logits[: len(train)], facts
    )


def make_student(teacher: PreTrainedModel, layers: int) -> tuple[PreTrainedModel, list[int]]:
    """A model of the teacher's class with some of its layers and all its other weights, and the layers' indices.

    It is built anew from its config, as `from_pretrained` will build it, so that what it is after training is what is
    loaded. Raises ModelError for an architecture whose layers are shared or not alike.
    """
    stack, depth = find_layers(teacher), teacher.config.num_hidden_layers
    kept = spread(depth, layers)
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in kept]
    student = type(teacher)(config)
    try:
        student.load_state_dict(_renumbered(teacher.state_dict(), stack, kept))
    except RuntimeError:
        raise ModelError(
            f"distill: the layers of this {config.model_type} model are not alike, so that {layers} of its {depth}"
            " make no model",
            "Ask for another number of layers",
        ) from None
    return student, kept


def find_layers(model: PreTrainedModel) -> str:
    """The name of the encoder's list of layers, whatever the architecture calls it; ModelError where it has none."""
    depth = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, part in model.named_modules()
        if isinstance(part, ModuleList) and len(part) == depth
    ]
    if len(found) != 1:
        raise ModelError(
            f"distill: a {model.config.model_type} model has no list of layers of its own to take from",
            "Use a teacher such as BERT, RoBERTa, DistilBERT, DeBERTa, ELECTRA or ModernBERT",
        )
    return found[0]


def spread(depth: int, layers: int) -> list[int]:
    """Indices of `layers` of `depth` layers, evenly spread, the last always among them and the first from two on.

    The first layer made the embeddings readable; the last is what the head knows, and with mean pooling it is the
    layer that takes the mean.
    """
    if layers == 1:
        return [depth - 1]
    return [round(index * (depth - 1) / (layers - 1)) for index in range(layers)]


def _renumbered(
    weights: dict[str, torch.Tensor], stack: str, kept: list[int]
) -> dict[str, torch.Tensor]:
    """The weights without the layers that are not kept, the others numbered from zero."""
    numbers = {str(old): new for new, old in enumerate(kept)}
    found = {}
    for name, tensor in weights.items():
        if not name.startswith(f"{stack}."):
            found[name] = tensor
            continue
        number, _, rest = name.removeprefix(f"{stack}.").partition(".")
        if number in numbers:
            found[f"{stack}.{numbers[number]}.{rest}"] = tensor
    return found


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's answers from the teacher's, in nats, summed over the batch.

    Both are logits, (batch, labels), divided by the temperature; times its square, so that the gradient keeps its size
    (Hinton et al., 2015, section 2).
    """
    log_student = functional.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=-1)
    return (
        functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
        * temperature**2
    )


class TaughtLoss:
    """The loss on the labels, and on rows that come with their teacher's logits the divergence from those."""

    def __init__(self, on_labels: Callable[..., torch.Tensor], section: DistillSection) -> None:
        self._on_labels = on_labels
        self._section = section

    def __call__(
        self,
        outputs: Any,
        labels: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """`labels` are (batch,), as validation has them, or a pair with the teacher's (batch, labels)."""
        if isinstance(labels, torch.Tensor):
            return self._on_labels(outputs, labels, num_items_in_batch)
        labels, teacher = labels
        count = num_items_in_batch if num_items_in_batch is not None else len(labels)
        taught = divergence(outputs.logits, teacher, self._section.temperature) / count
        weight = self._section.weight
        return (1 - weight) * self._on_labels(outputs, labels, count) + weight * taught
