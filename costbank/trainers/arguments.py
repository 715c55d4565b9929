"""Arguments of trainers: a loss, or a bank (also by its name, path or URL) from which the default loss is made."""

from pathlib import Path
from typing import Any

from torch import Tensor

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import Costs, EMOLoss, EMOOptions, LinearEMOLoss
from costbank.opening import open_bank

__all__ = ["as_bank", "as_loss", "bank_if_named", "check_loss"]

Loss = EMOLoss | LinearEMOLoss


def as_loss(value: Any, argument: str, kind: type[EMOLoss] | type[LinearEMOLoss]) -> EMOLoss | LinearEMOLoss:
    """The loss for an argument: the argument itself, or the default loss of a bank.

    Args:
        value: a loss, a bank, or a bank's name, path or URL.
        argument: the argument's name, for the error.
        kind: the class of the loss that is made from a bank.

    Raises:
        UsageError: `value` is none of these.
        CostbankError: the bank cannot be bank_if_named; see `open_bank`.
    """
    value = bank_if_named(value)
    return kind(value) if isinstance(value, Bank) else check_loss(value, argument, kind)


def bank_if_named(value: Any) -> Any:
    """The bank that a name, a path or a URL refers to; any other value is returned as it is."""
    return open_bank(value) if isinstance(value, str | Path) else value


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
    """The bank for an argument: a bank, a bank's name, path or URL, or None.

    Raises:
        UsageError: it is none of these.
        CostbankError: the bank cannot be bank_if_named; see `open_bank`.
    """
    value = bank_if_named(value)
    if value is None or isinstance(value, Bank):
        return value
    hint = "give a bank, as open_bank(name) returns it, or its name, path or URL"
    raise UsageError(f"{argument} is of type {type(value).__name__}, not a bank", hint)


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
