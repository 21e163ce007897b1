"""Knowledge distillation: a copy of a trained model with fewer layers learns the model's answers.

The student learns, beyond the labels, its teacher's logits for every training sentence, those of
the wrong intents included (Hinton et al., 2015). It starts as DistilBERT did (Sanh et al., 2019),
from some of the layers of its teacher, with the teacher's embeddings and head, and is a plain model
of the same class.
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
from bankintent.bundle.layout import Checkpoint
from bankintent.config import DistillSection, TrainConfig
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import ConfigError, ModelError
from bankintent.inference.predictor import Predictor
from bankintent.inference.runtime import require_finite
from bankintent.labels import LabelSchema
from bankintent.measures import metrics
from bankintent.training import processes
from bankintent.training.backbones import Backbone
from bankintent.training.losses import NO_ROW
from bankintent.training.regimes import count_parameters

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Teacher:
    """A trained model on disk that was checked and can teach."""

    name: str
    base_model: str
    """The model that the teacher itself was made from."""
    weights_hash: str
    """sha256 over the weights: two teachers of one name may not be the same."""
    data_hash: str | None
    """Hash of the data that it was trained on, where it records one."""


@dataclass(frozen=True)
class TeacherRecord:
    """The record of a teacher in its student's bundle."""

    name: str
    weights_sha256: str
    same_data: bool
    """Whether it was trained on the student's data."""
    layers: int
    kept_layers: list[int]
    """The layers that the student starts from, counted from one."""
    parameters: int
    val: dict[str, float]
    """Its metrics on the validation rows."""


@dataclass(frozen=True)
class Lesson:
    """A student before training, and its teacher's answers."""

    student: Backbone
    logits: Floats
    """(training rows, labels): the teacher's answers, in float32 and without dropout."""
    teacher: TeacherRecord


def open_teacher(config: TrainConfig, labels: LabelSchema) -> Teacher:
    """Find and check the trained model that `model_name` names, a bundle or a plain folder.

    Raises ModelError where there is no such model or it was changed, LabelError where its labels
    are not `labels`, ConfigError where the student would not be smaller than it.
    """
    assert config.distill is not None
    name = config.model_name
    checkpoint = _open_merged(name)
    # The logits of both are compared label by label.
    checkpoint.labels.require_same(labels, name, "the data")
    _require_smaller(config.distill.layers, checkpoint, name)

    base_model = name
    data_hash = None
    if checkpoint.manifest is not None:
        base_model = checkpoint.manifest.base_model or name
        data_hash = checkpoint.manifest.data_hash
    weights_hash = layout.weights_hash(Path(name).expanduser())
    return Teacher(checkpoint.name, base_model, weights_hash, data_hash)


def _open_merged(name: str) -> Checkpoint:
    """The verified checkpoint of a model folder; ModelError where it is missing or an adapter."""
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
    return checkpoint


def _require_smaller(layers: int, checkpoint: Checkpoint, name: str) -> None:
    """Raise ConfigError where a student of that many layers has as many as its teacher."""
    with hub.explained(f'the model "{name}"'):
        model_config = AutoConfig.from_pretrained(
            str(checkpoint.model), local_files_only=True, trust_remote_code=False
        )

    depth = int(getattr(model_config, "num_hidden_layers", 0))
    if layers >= depth:
        raise ConfigError(
            f"distill.layers is {layers}, and the teacher {checkpoint.name} has {depth}",
            "Ask for fewer layers",
        )


def prepare_student(
    config: TrainConfig, data: Dataset, backbone: Backbone, train: SplitData, val: SplitData
) -> Lesson:
    """Make the student and compute the answers of the teacher, loaded as `backbone`, to all rows.

    Each row is computed once; the teacher is not needed in training. Raises ModelError where its
    checkpoint lacks a part of the classifier, or its architecture cannot lose layers.
    """
    assert config.distill is not None
    _require_trained_head(backbone)

    started = time.perf_counter()
    teacher = open_teacher(config, data.labels)
    student, layers = make_student(backbone.model, config.distill.layers)

    def answer() -> torch.Tensor:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predictor = Predictor(backbone.model.to(device), backbone.tokenizer, data.labels)
        logits = predictor.logits([*train.texts, *val.texts], config.eval_batch_size)
        require_finite(logits, f"the teacher {teacher.name}")
        return torch.from_numpy(logits)

    logits = processes.table_from_main(answer).numpy()
    train_logits = logits[: len(train)]
    val_logits = logits[len(train) :]

    kept_layers = [index + 1 for index in layers]  # people count from one
    record = TeacherRecord(
        name=teacher.name,
        weights_sha256=teacher.weights_hash,
        same_data=teacher.data_hash == data.hash,
        layers=backbone.model.config.num_hidden_layers,
        kept_layers=kept_layers,
        parameters=count_parameters(backbone.model).total,
        val=metrics.summary(val_logits, np.asarray(val.labels)),
    )
    _print_student(record, time.perf_counter() - started)

    student_backbone = replace(backbone, name=teacher.base_model, model=student)
    return Lesson(student_backbone, train_logits, record)


def _require_trained_head(backbone: Backbone) -> None:
    # transformers fills a head that is not in the checkpoint with random numbers.
    if backbone.new_modules:
        raise ModelError(
            f"{backbone.name} was not trained: it lacks {', '.join(backbone.new_modules)}",
            "Name a trained model",
        )


def _print_student(teacher: TeacherRecord, seconds: float) -> None:
    """Print what the teacher achieves and which of its layers the student takes."""
    name = teacher.name
    accuracy = 100 * teacher.val["accuracy"]
    layers = ", ".join(map(str, teacher.kept_layers))
    console.say(
        f"Teacher {name}: validation accuracy {accuracy:.2f} %, its answers computed in"
        f" {seconds:.0f} s. The student starts as its layers {layers} of {teacher.layers}"
    )

    if not teacher.same_data:
        console.say(
            f"note: {name} does not record this very data as what it was trained on; where it has"
            " seen rows of the validation or test split, figures of its student on them are too"
            " good"
        )


def make_student(teacher: PreTrainedModel, layers: int) -> tuple[PreTrainedModel, list[int]]:
    """A model of the teacher's class with some of its layers and all its other weights.

    Returns the model and the indices of the layers. It is built anew from its config, as
    `from_pretrained` will build it, so that what it is after training is what is loaded. Raises
    ModelError for an architecture whose layers are shared or not alike.
    """
    stack = find_layers(teacher)
    depth = teacher.config.num_hidden_layers
    indices = spread(depth, layers)

    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = layers
    # ModernBERT lists for each layer which tokens it attends to.
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in indices]

    student = type(teacher)(config)
    weights = _renumbered(teacher.state_dict(), stack, indices)
    try:
        student.load_state_dict(weights)
    except RuntimeError:
        raise ModelError(
            f"distill: the layers of this {config.model_type} model are not alike, so that"
            f" {layers} of its {depth} make no model",
            "Ask for another number of layers",
        ) from None
    return student, indices


def find_layers(model: PreTrainedModel) -> str:
    """The name of the encoder's list of layers, which every architecture calls otherwise.

    Raises ModelError where it has none.
    """
    depth = getattr(model.config, "num_hidden_layers", None)
    stacks = []
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == depth:
            stacks.append(name)

    # None in ALBERT, whose layers are one and the same.
    if len(stacks) != 1:
        kind = model.config.model_type
        raise ModelError(
            f"distill: a {kind} model has no list of layers of its own to take from",
            "Use a teacher such as BERT, RoBERTa, DistilBERT, DeBERTa, ELECTRA or ModernBERT",
        )
    return stacks[0]


def spread(depth: int, layers: int) -> list[int]:
    """Indices of `layers` of `depth` layers, evenly spread.

    The last layer is always among them, and the first from two on. The first layer made the
    embeddings readable; the last is what the head knows, and with mean pooling it is the layer
    that takes the mean.
    """
    if layers == 1:
        return [depth - 1]
    return [round(index * (depth - 1) / (layers - 1)) for index in range(layers)]


def _renumbered(
    weights: dict[str, torch.Tensor], stack: str, indices: list[int]
) -> dict[str, torch.Tensor]:
    """The weights without the layers that are not in `indices`, the others numbered from zero."""
    new_numbers = {str(old): new for new, old in enumerate(indices)}
    prefix = f"{stack}."

    renumbered = {}
    for name, tensor in weights.items():
        if not name.startswith(prefix):
            renumbered[name] = tensor
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        if number in new_numbers:
            renumbered[f"{prefix}{new_numbers[number]}.{rest}"] = tensor
    return renumbered


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's answers from the teacher's, in nats.

    Both are logits, (batch, labels), divided by the temperature. The sum over the batch is
    multiplied by the square of the temperature, so that the gradient keeps its size (Hinton et al.,
    2015, section 2).
    """
    log_student = functional.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=-1)
    total = functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return total * temperature**2


class TaughtLoss:
    """The loss on the labels and, where rows come with their teacher's logits, the divergence."""

    def __init__(self, label_loss: Callable[..., torch.Tensor], section: DistillSection) -> None:
        self._label_loss = label_loss
        self._section = section

    def __call__(
        self,
        outputs: Any,
        labels: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """The Trainer's `compute_loss_func`.

        `labels` are (batch,) label ids, as of validation rows, or a pair of those and the
        teacher's logits, (batch, labels).
        """
        if isinstance(labels, torch.Tensor):
            return self._label_loss(outputs, labels, num_items_in_batch)

        label_ids, teacher = labels
        # The Trainer counts over all parts of an accumulated batch, so that their losses add up.
        count = len(label_ids) if num_items_in_batch is None else num_items_in_batch
        # A filler of another process's batch has no label, and teaches nothing.
        is_row = label_ids != NO_ROW
        logits = outputs.logits[is_row]
        on_teacher = divergence(logits, teacher[is_row], self._section.temperature) / count
        on_labels = self._label_loss(outputs, label_ids, count)
        weight = self._section.weight
        return (1 - weight) * on_labels + weight * on_teacher
