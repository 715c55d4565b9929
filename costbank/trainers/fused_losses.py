"""Find out, without a batch, whether a model uses its `loss_function`, or a fused loss that replaces it."""

import inspect
from typing import Any

from costbank.errors import UsageError
from costbank.trainers.adapters import unwrap_peft

__all__ = ["check_uses_loss_function", "refuse_fused_losses"]

# The packages that replace a model's forward with one that computes cross-entropy without logits.
_FUSED = {
    "liger_kernel": (
        "Liger's fused linear cross-entropy",
        "turn it off: use_liger_kernel=False, or liger_kernel_config={'fused_linear_cross_entropy': False}",
    ),
    "cut_cross_entropy": ("cut cross-entropy (CCE)", "do not patch the model with it"),
    "unsloth": (
        "unsloth's own cross-entropy",
        "give the trainer compute_loss_func=compute_loss_func(bank) instead, and set UNSLOTH_RETURN_LOGITS=1 in the "
        "environment before training",
    ),
}


def check_uses_loss_function(model: Any) -> None:
    """Check that the forward of a model calls `self.loss_function`, and that no package has replaced it.

    Raises:
        UsageError: it does not, so that a loss which is set there would silently have no effect.
    """
    base = unwrap_peft(model)
    name = type(base).__name__
    function = _forward_of(base)
    if function is None:
        return
    package = (function.__module__ or "").split(".")[0]
    if package in _FUSED:
        what, hint = _FUSED[package]
        raise UsageError(
            f"the forward of {name} was replaced by {function.__module__}.{function.__qualname__}: {what} would take "
            "the place of this loss",
            hint,
        )
    if "loss_function" not in _names(function.__code__):
        raise UsageError(
            f"{name} computes its loss itself and never calls model.loss_function",
            "use a Trainer with EMOTrainerMixin, or give it compute_loss_func=compute_loss_func(bank)",
        )


def refuse_fused_losses(settings: dict[str, Any]) -> None:
    """Refuse settings of a trainer that turn on a loss which takes the place of this one.

    Args:
        settings: values of settings by their names.

    Raises:
        UsageError: one of them is on; the message names it.
    """
    active = [name for name, value in settings.items() if value]
    if active:
        shown = ", ".join(f"{name}={settings[name]!r}" for name in active)
        raise UsageError(
            f"{shown}: another loss would take the place of this one",
            f"turn off {', '.join(active)}",
        )


def _forward_of(model: Any) -> Any:
    """The innermost function behind `model.forward`, with decorators removed; None if it is not written in Python."""
    forward = model.forward
    # accelerate keeps the original under this name when it wraps a model for mixed precision.
    forward = inspect.unwrap(getattr(forward, "__func__", forward))
    return forward if inspect.isfunction(forward) else None


def _names(code: Any) -> set[str]:
    """The names that a function uses, also in functions inside it."""
    inner = (_names(constant) for constant in code.co_consts if inspect.iscode(constant))
    return set(code.co_names).union(*inner)
