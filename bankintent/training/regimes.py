"""The one place where head-only, LoRA and full fine-tuning differ: which weights learn."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel

from bankintent.config import LoraSection, Regime
from bankintent.errors import ModelError
from bankintent.training.backbones import Backbone


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
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules(backbone, lora),
        # PEFT by itself saves only `classifier` and `score`: any other new module of the head
        # would be neither trained nor saved, without a warning.
        modules_to_save=list(backbone.new_modules),
    )

    return get_peft_model(backbone.model, config)


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
    """Last name components of the encoder's linear layers, for example query, key, value, dense."""
    in_head = set()
    for head_module in head_modules(model):
        in_head |= set(head_module.modules())

    names = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module not in in_head:
            names.add(name.rpartition(".")[2])
    return sorted(names)


def target_modules(backbone: Backbone, lora: LoraSection) -> list[str]:
    """The linear modules to adapt; names that match nothing are in `unmatched_targets`.

    Raises ModelError where no name matches.
    """
    available = linear_modules(backbone.model)
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
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
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
