"""What a checkpoint says of the loss that it was trained with, and whether a loss is that one."""

from dataclasses import asdict
from typing import Any

from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss
from costbank.loss.costs import same_pin

__all__ = ["PIN_KEY", "check_pin", "pin_of"]

PIN_KEY = "costbank"
"""Under which a checkpoint holds its pin."""

# How the loss is computed, or when it gives up; they do not change what the loss is.
_FREE = ("chunk_rows", "nan_logits", "accumulate")


def pin_of(loss: EMOLoss | LinearEMOLoss) -> dict[str, Any]:
    """The costs and options of a loss, as JSON can hold them."""
    options = asdict(loss.options)
    return {"costs": loss.pin, "options": {name: options[name] for name in options if name not in _FREE}}


def check_pin(saved: dict[str, Any], loss: EMOLoss | LinearEMOLoss, *, free: tuple[str, ...] = ()) -> None:
    """Check that training goes on with the costs and options that it began with.

    The name that a bank is kept under may change, its id may not. An option that the checkpoint does not know, being
    older than it, had its default.

    Args:
        saved: a `pin_of` from a checkpoint.
        loss: what is to be trained with now.
        free: names of options that may change.

    Raises:
        UsageError: it does not; both are named.
    """
    now, before = pin_of(loss), {"costs": saved["costs"], "options": {**asdict(EMOOptions()), **saved["options"]}}
    if not same_pin(now["costs"], before["costs"]):
        raise UsageError(
            f"the checkpoint was trained with the costs {before['costs']}, and this loss has {now['costs']}",
            "open the bank that it names; to change costs on purpose, load the weights alone and begin a new run",
        )
    changed = [
        f"{name}={before['options'][name]!r}, now {value!r}"
        for name, value in now["options"].items()
        if name not in free and value != before["options"][name]
    ]
    if changed:
        raise UsageError(
            f"the checkpoint was trained with {'; '.join(changed)}",
            "give the options that it names; to change them on purpose, load the weights alone and begin a new run",
        )
