"""The one place where head-only, LoRA and full fine-tuning differ: which weights learn."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bankintent.config import LoraSection, Regime
from bankintent.errors import ModelError
from bankintent.training.backbones import Backbone

LINEAR = (nn.Linear, Conv1D)
"""Layers that an adapter takes; GPT-2 and its relatives have the second kind."""


@dataclass(frozen=True)
class Parameters:
    """Counts of weights; `total` is what one forward pass holds, adapter included."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        """Trainable of all weights, at most one."""
        return self.trainable / self.total


def prepare(backbone: Backbone, regime: Regime, lora: LoraSection) -> PreTrainedModel | PeftModel:
    """Freeze and wrap the model for a regime. Full fine-tuning leaves it as it is.

    Raises ModelError where `lora.target_modules` names nothing in this model.
    """
    match regime:
        case "head-only":
            _freeze_encoder(backbone.model)
            return backbone.model
        case "lora":
            return _add_adapter(backbone, lora)
        case "full-ft":
            return backbone.model


def _freeze_encoder(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    # After the encoder, which a pooler is a part of.
    for module in head_modules(model):
        module.requires_grad_(True)


def _add_adapter(backbone: Backbone, lora: LoraSection) -> PeftModel:
    return _wrap(backbone.model, _adapter_config(backbone, lora), backbone.name)


def require_adapter(backbone: Backbone, lora: LoraSection) -> None:
    """Raise ModelError where the model cannot take the adapter; the model stays as it is."""
    config = _adapter_config(backbone, lora)
    try:
        # Without memory for weights: the trial is of names and kinds of modules.
        with torch.device("meta"):
            outline = type(backbone.model)(backbone.model.config)
    # A boundary: not every class can be built so, and the adapter itself comes later.
    except Exception:  # noqa: BLE001
        return
    _wrap(outline, config, backbone.name)


def _adapter_config(backbone: Backbone, lora: LoraSection) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules(backbone, lora),
        # PEFT by itself saves only `classifier` and `score`: any other new module of the head
        # would be neither trained nor saved, without a warning.
        modules_to_save=list(backbone.new_modules),
        # The weights of a Conv1D lie the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.model.modules()),
    )


def _wrap(model: PreTrainedModel, config: LoraConfig, name: str) -> PeftModel:
    try:
        with warnings.catch_warnings():
            # Of targets that PEFT adds by itself for mixtures of experts, not of those asked for.
            warnings.simplefilter("ignore", RuntimeWarning)
            return get_peft_model(model, config)
    except ValueError as error:
        cause = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"PEFT cannot adapt {name}: {cause}",
            "Set lora.target_modules: auto, or use regime full-ft or head-only",
        ) from None


def head_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Everything behind the encoder: pooler, dense layers of the head, classifier."""
    modules = []
    for name, module in model.named_children():
        if name != model.base_model_prefix:
            modules.append(module)

    # BERT's pooler is a part of the encoder in name, and the first layer of the head in use.
    pooler = getattr(model.base_model, "pooler", None)
    if isinstance(pooler, nn.Module):
        modules.append(pooler)
    return modules


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Last name components of the encoder's linear layers, for example query, key, value, dense.

    Where a module of another kind has the same one, a layer is named in full.
    """
    in_head = set()
    for head_module in head_modules(model):
        in_head |= set(head_module.modules())

    layers = set()
    others = set()
    for name, module in model.named_modules():
        if not isinstance(module, LINEAR):
            others.add(_last_component(name))
        elif module not in in_head:
            layers.add(name)

    names = set()
    for name in layers:
        last = _last_component(name)
        names.add(name if last in others else last)
    return sorted(names)


def _last_component(name: str) -> str:
    return name.rpartition(".")[2]


def target_modules(backbone: Backbone, lora: LoraSection) -> list[str]:
    """The linear modules to adapt; names that match nothing are in `unmatched_targets`.

    Raises ModelError where no name matches.
    """
    available = linear_modules(backbone.model)
    if not available:
        raise ModelError(
            f"{backbone.name} has no linear layers that an adapter could take",
            "Use regime full-ft or head-only, or name another encoder",
        )
    if lora.target_modules == "auto":
        return available

    unmatched = unmatched_targets(backbone.model, lora)
    matched = [target for target in lora.target_modules if target not in unmatched]
    if not matched:
        targets = ", ".join(lora.target_modules)
        raise ModelError(
            f"none of lora.target_modules ({targets}) is a module of {backbone.name}",
            f"Its linear modules are {', '.join(available)}; auto takes them all",
        )
    return matched


def unmatched_targets(model: PreTrainedModel, lora: LoraSection) -> list[str]:
    """Configured names that match no module; PEFT ignores them without a warning."""
    if lora.target_modules == "auto":
        return []
    names = [name for name, module in model.named_modules() if isinstance(module, LINEAR)]
    return [target for target in lora.target_modules if not _matches_any(target, names)]


def _matches_any(target: str, names: list[str]) -> bool:
    """Whether PEFT finds a module of that name: the whole name, or its last components."""
    return any(f".{name}".endswith(f".{target}") for name in names)


def count_parameters(model: nn.Module) -> Parameters:
    """Trainable and total weights, without the originals behind PEFT's trained copies.

    PEFT keeps an `original_module` for each trained copy, although only one of the two is used.
    """
    trainable = 0
    total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()

    return Parameters(trainable, total)


def fast_adapters(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block PEFT leaves the inputs of adapters as they are.

    Under autocast it would turn every one into float32, only to have it turned back: about a tenth
    of a step.
    """
    if isinstance(model, PeftModel):
        return disable_input_dtype_casting(model)
    return nullcontext()


def set_training_mode(model: nn.Module, regime: Regime) -> None:
    """Training mode for what learns; a frozen encoder stays in evaluation mode, without dropout.

    It must be called at every step: the Trainer calls `model.train()` at each.
    """
    model.train()
    if regime == "head-only":
        assert isinstance(model, PreTrainedModel)
        model.eval()
        for module in head_modules(model):
            module.train()
