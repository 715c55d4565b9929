"""The changes that PEFT makes to a model, as far as a loss depends on them. PEFT itself is not imported."""

from typing import Any

from torch import nn

from costbank.errors import UsageError

__all__ = ["active_module", "check_adapters", "unwrap_peft", "virtual_token_count"]

# Types of prompt learning whose virtual tokens have hidden states. A prefix has only keys and values.
_TYPES_WITH_VIRTUAL_HIDDEN_STATES = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
# Settings by which an adapter adds a term to the model's own loss: AdaLoRA's, and the loss of shadow models.
_EXTRA_LOSS_SETTINGS = ("orth_reg_weight", "auxiliary_loss_weight")


def unwrap_peft(model: Any) -> Any:
    """The model inside PEFT's wrapper, or the model itself if PEFT does not wrap it."""
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    # PeftMixedModel has no get_base_model.
    return model.base_model.model if type(model).__name__ == "PeftMixedModel" else model


def virtual_token_count(model: Any) -> int:
    """The number of virtual tokens that prompt learning puts before each row; 0 if it does not lengthen the rows."""
    config = getattr(model, "active_peft_config", None)
    if config is None or config.peft_type not in _TYPES_WITH_VIRTUAL_HIDDEN_STATES:
        return 0
    return config.num_virtual_tokens


def check_adapters(model: Any) -> None:
    """Check that no adapter adds a term to the model's own loss, because this loss replaces the model's.

    Raises:
        UsageError: AdaLoRA with its regularization, shadow models with their loss, or context-aware prompt tuning.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None:
        return
    if config.peft_type == "CPT":
        raise UsageError("context-aware prompt tuning (CPT) computes a loss of its own", "use prompt tuning or LoRA")
    for name in _EXTRA_LOSS_SETTINGS:
        if getattr(config, name, 0):
            raise UsageError(
                f"{type(config).__name__} adds {name}={getattr(config, name)} times a loss of its own to the model's "
                "loss, which this loss replaces",
                f"use LoRA, or set {name}=0",
            )


def active_module(module: nn.Module) -> nn.Module:
    """The module that a forward pass calls: the active adapter's copy, if it is one of PEFT's `modules_to_save`."""
    copies: Any = getattr(module, "modules_to_save", None)
    if copies is None:
        return module
    wrapper: Any = module
    active = wrapper.active_adapters
    if wrapper.disable_adapters or not active or active[0] not in copies:
        return wrapper.original_module
    return copies[active[0]]
