"""What a loss must know about PEFT's changes to a model; PEFT itself is not imported."""

from typing import Any

from torch import nn

from costbank.errors import UsageError

__all__ = ["base_of", "check_adapters", "in_use", "virtual_tokens"]

# The kinds of prompt learning whose tokens have hidden states; a prefix has keys and values alone.
_LENGTHENING = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
# Factors of what a kind of adapter adds to the loss that a model makes itself: AdaLoRA's, and that of shadows.
_OWN_LOSSES = ("orth_reg_weight", "auxiliary_loss_weight")


def base_of(model: Any) -> Any:
    """The model that PEFT wraps; one that it does not wrap is that itself."""
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    # One of mixed adapters has no method for it.
    return model.base_model.model if type(model).__name__ == "PeftMixedModel" else model


def virtual_tokens(model: Any) -> int:
    """How many virtual tokens prompt learning puts before each row; 0 where it does not lengthen hidden states."""
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config is not None and config.peft_type in _LENGTHENING else 0


def check_adapters(model: Any) -> None:
    """Check that the adapters of a model need nothing from its own loss, which a loss of ours takes the place of.

    Raises:
        UsageError: AdaLoRA with its regularization, shadows with their loss, or context-aware prompt tuning.
    """
    config = getattr(model, "active_peft_config", None)
    if config is None:
        return
    if config.peft_type == "CPT":
        raise UsageError("context-aware prompt tuning (CPT) is a loss of its own", "take prompt tuning, or LoRA")
    for name in _OWN_LOSSES:
        if getattr(config, name, 0):
            raise UsageError(
                f"{type(config).__name__} adds {name}={getattr(config, name)} times a loss of its own to the model's, "
                "which this loss takes the place of",
                f"take LoRA, or give it {name}=0",
            )


def in_use(module: nn.Module) -> nn.Module:
    """The module that is called: of one that PEFT trains whole (`modules_to_save`), the active adapter's copy."""
    copies: Any = getattr(module, "modules_to_save", None)
    if copies is None:
        return module
    wrapper: Any = module
    active = wrapper.active_adapters
    if wrapper.disable_adapters or not active or active[0] not in copies:
        return wrapper.original_module
    return copies[active[0]]
