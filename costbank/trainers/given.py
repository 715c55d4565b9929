"""The loss that a trainer is given, or the bank that stands for one."""

from pathlib import Path
from typing import Any

from torch import Tensor

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss
from costbank.loss.costs import Costs

__all__ = ["as_bank", "as_loss", "check_loss"]

Loss = EMOLoss | LinearEMOLoss


def as_loss(given: Any, argument: str, kind: type[EMOLoss] | type[LinearEMOLoss]) -> EMOLoss | LinearEMOLoss:
    """The loss that an argument gives.

    Args:
        given: a loss, or a bank.
        argument: its name, for the error.
        kind: of the loss that a bank stands for.

    Raises:
        UsageError: it is neither.
    """
    return kind(given) if isinstance(given, Bank) else check_loss(given, argument, kind)


def check_loss(given: Any, argument: str, kind: type[EMOLoss] | type[LinearEMOLoss]) -> EMOLoss | LinearEMOLoss:
    """Check that an argument is a loss, and return it.

    Raises:
        UsageError: it is not; the hint says how a loss of that kind is made of it.
    """
    # As torch.compile wraps a module: a loss is left out of graphs anyway.
    given = getattr(given, "_orig_mod", given)
    if isinstance(given, Loss):
        return given
    if isinstance(given, type):
        raise UsageError(f"{argument} is the class {given.__name__} itself", f"give {kind.__name__}(bank)")
    what = "missing" if given is None else f"of type {type(given).__name__}"
    raise UsageError(f"{argument} is {what}, and neither EMOLoss nor LinearEMOLoss", f"give {_made(given, kind)}")


def as_bank(given: Any, argument: str) -> Bank | None:
    """The bank that an argument gives, if any.

    Raises:
        UsageError: it is something else.
    """
    if given is None or isinstance(given, Bank):
        return given
    hint = f"open_bank({str(given)!r})" if isinstance(given, str | Path) else "a bank, as open_bank(name) opens it"
    raise UsageError(f"{argument} is of type {type(given).__name__}, and not a bank", f"give {hint}")


def _made(given: Any, kind: type) -> str:
    if isinstance(given, str | Path):
        return f"{kind.__name__}(open_bank({str(given)!r}))"
    if isinstance(given, Costs):
        return f"{kind.__name__}(costs)"
    if isinstance(given, EMOOptions):
        return f"{kind.__name__}(bank, options)"
    if isinstance(given, Tensor):
        return f"{kind.__name__}(DenseCosts(rows))"
    return f"{kind.__name__}(bank)"
