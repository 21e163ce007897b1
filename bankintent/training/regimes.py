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
        return self.trainable / self.total


def prepare(backbone: Backbone, regime: Regime, lora: LoraSection) -> PreTrainedModel | PeftModel:
    """Freeze and wrap the model for a regime. Full fine-tuning leaves it as it is.

    Raises ModelError where `lora.target_modules` names nothing in this model.
    """
    model = backbone.model
    match regime:
        case "head-only":
            for parameter in model.parameters():
                parameter.requires_grad = False
            for module in head_modules(model):
                module.requires_grad_(True)
            return model
        case "lora":
            return get_peft_model(
                model,
                LoraConfig(
                    task_type=TaskType.SEQ_CLS,
                    r=lora.r,
                    lora_alpha=lora.alpha,
                    lora_dropout=lora.dropout,
                    target_modules=target_modules(backbone, lora),
                    modules_to_save=list(backbone.new_modules),
                ),
            )
        case "full-ft":
            return model


def head_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Everything behind the encoder: pooler, dense layers of the head, classifier."""
    heads = [module for name, module in model.named_children() if name != model.base_model_prefix]
    pooler = getattr(model.base_model, "pooler", None)
    return heads + ([pooler] if isinstance(pooler, nn.Module) else [])


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Last name components of the encoder's linear layers, for example query, key, value, dense."""
    heads = {id(child) for module in head_modules(model) for child in module.modules()}
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in heads
    }
    return sorted(names)


def target_modules(backbone: Backbone, lora: LoraSection) -> list[str]:
    """The linear modules to adapt; names that match nothing are in `unmatched_targets`."""
    available = linear_modules(backbone.model)
    if lora.target_modules == "auto":
        return available
    matched = [
        name for name in lora.target_modules if name not in unmatched_targets(backbone.model, lora)
    ]
    if not matched:
        raise ModelError(
            f"none of lora.target_modules ({', '.join(lora.target_modules)}) is a module of {backbone.name}",
            f"Its linear modules are {', '.join(available)}; auto takes them all",
        )
    return matched


def unmatched_targets(model: PreTrainedModel, lora: LoraSection) -> list[str]:
    """Configured names that match no module, which PEFT passes over without a word."""
    if lora.target_modules == "auto":
        return []
    modules = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [
        target
        for target in lora.target_modules
        if not any(name == target or name.endswith(f".{target}") for name in modules)
    ]


def count_parameters(model: nn.Module) -> Parameters:
    """Trainable and total weights; the frozen originals behind PEFT's trained copies count in neither.

    PEFT keeps `original_module` beside each trained copy, although only one of the two is ever used.
    """
    used = [p for name, p in model.named_parameters() if ".original_module." not in name]
    return Parameters(sum(p.numel() for p in used if p.requires_grad), sum(p.numel() for p in used))


def fast_adapters(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block PEFT leaves the inputs of adapters as they are.

    Under autocast it would turn every one into float32, only to have it turned back: about a tenth of a step.
    """
    if isinstance(model, PeftModel):
        return disable_input_dtype_casting(model)
    return nullcontext()


def set_training_mode(model: nn.Module, regime: Regime) -> None:
    """Training mode for what learns; a head-only run's frozen encoder stays in evaluation mode, without dropout."""
    model.train()
    if regime == "head-only":
        assert isinstance(model, PreTrainedModel)
        model.eval()
        for module in head_modules(model):
            module.train()
