"""The pin of a loss: the costs and options that a checkpoint was trained with, so that a resumed run has the same."""

from dataclasses import asdict
from typing import Any

from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss
from costbank.loss.costs import same_pin

__all__ = ["PIN_KEY", "check_pin", "make_pin"]

PIN_KEY = "costbank"
"""The key of the pin in a checkpoint."""

# These change how the loss is computed, or when it stops with an error, but not its value.
_NOT_PINNED = ("chunk_rows", "skip_ignored", "nan_logits", "accumulate", "kernels", "weight_gradient")


def make_pin(loss: EMOLoss | LinearEMOLoss) -> dict[str, Any]:
    """The costs and options of a loss, as values that JSON can hold."""
    options = asdict(loss.options)
    return {"costs": loss.pin, "options": {name: options[name] for name in options if name not in _NOT_PINNED}}


def check_pin(saved: dict[str, Any], loss: EMOLoss | LinearEMOLoss, *, may_change: tuple[str, ...] = ()) -> None:
    """Check that training is resumed with the costs and options that it began with.

    The name of a bank may change, but not its id. An option that is newer than the checkpoint is taken to
    have had its default.

    Args:
        saved: the pin from a checkpoint, as `make_pin` returned it.
        loss: the loss of the resumed run.
        may_change: names of options that may differ.

    Raises:
        UsageError: the costs or options differ; the message has both.
    """
    now, before = make_pin(loss), {"costs": saved["costs"], "options": {**asdict(EMOOptions()), **saved["options"]}}
    if not same_pin(now["costs"], before["costs"]):
        raise UsageError(
            f"the checkpoint was trained with the costs {before['costs']}, but this loss has {now['costs']}",
            "open the checkpoint's bank; to change the costs on purpose, load only the weights and start a new run",
        )
    changed = [
        f"{name}={before['options'][name]!r}, now {value!r}"
        for name, value in now["options"].items()
        if name not in may_change and value != before["options"][name]
    ]
    if changed:
        raise UsageError(
            f"the checkpoint was trained with {'; '.join(changed)}",
            "give the checkpoint's options; to change them on purpose, load only the weights and start a new run",
        )
