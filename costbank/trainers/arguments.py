"""Arguments of trainers: a loss, or a bank from which the default loss is made."""

from pathlib import Path
from typing import Any

from torch import Tensor

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import Costs, EMOLoss, EMOOptions, LinearEMOLoss

__all__ = ["as_bank", "as_loss", "check_loss"]

Loss = EMOLoss | LinearEMOLoss


def as_loss(value: Any, argument: str, kind: type[EMOLoss] | type[LinearEMOLoss]) -> EMOLoss | LinearEMOLoss:
    """The loss for an argument: the argument itself, or the default loss of a bank.

    Args:
        value: a loss or a bank.
        argument: the argument's name, for the error.
        kind: the class of the loss that is made from a bank.

    Raises:
        UsageError: `value` is neither.
    """
    return kind(value) if isinstance(value, Bank) else check_loss(value, argument, kind)


def check_loss(value: Any, argument: str, kind: type[EMOLoss] | type[LinearEMOLoss]) -> EMOLoss | LinearEMOLoss:
    """Check that an argument is a loss, and return it.

    Raises:
        UsageError: it is not; the hint says how to make a loss of class `kind` from it.
    """
    # torch.compile wraps modules. The compiler does not look into a loss anyway.
    value = getattr(value, "_orig_mod", value)
    if isinstance(value, Loss):
        return value
    if isinstance(value, type):
        raise UsageError(f"{argument} is the class {value.__name__} itself", f"give {kind.__name__}(bank)")
    actual = "missing" if value is None else f"of type {type(value).__name__}, not EMOLoss or LinearEMOLoss"
    raise UsageError(f"{argument} is {actual}", f"give {_loss_from(value, kind)}")


def as_bank(value: Any, argument: str) -> Bank | None:
    """Check that an argument is a bank or None, and return it.

    Raises:
        UsageError: it is neither.
    """
    if value is None or isinstance(value, Bank):
        return value
    hint = f"open_bank({str(value)!r})" if isinstance(value, str | Path) else "a bank, as open_bank(name) returns it"
    raise UsageError(f"{argument} is of type {type(value).__name__}, not a bank", f"give {hint}")


def _loss_from(value: Any, kind: type) -> str:
    """Code that makes a loss from a value that is not a loss."""
    if isinstance(value, str | Path):
        return f"{kind.__name__}(open_bank({str(value)!r}))"
    if isinstance(value, Costs):
        return f"{kind.__name__}(costs)"
    if isinstance(value, EMOOptions):
        return f"{kind.__name__}(bank, options)"
    if isinstance(value, Tensor):
        return f"{kind.__name__}(DenseCosts(rows))"
    return f"{kind.__name__}(bank)"
