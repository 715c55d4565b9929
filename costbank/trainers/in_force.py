"""The line in the log that says which bank a trainer's loss uses."""

import logging
import os
import sys

from costbank.loss import EMOLoss, LinearEMOLoss, Schedule

__all__ = ["announce", "bank_of", "describe"]

_LOG = logging.getLogger(__name__)
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def bank_of(loss: EMOLoss | LinearEMOLoss) -> str:
    """The `name@id` of the bank of a loss's costs."""
    return "no bank" if loss.costs is None else loss.costs.bank


def describe(loss: EMOLoss | LinearEMOLoss) -> str:
    """The bank and the options of a loss, in one line."""
    options = loss.options
    words = [f"objective {options.objective}"]
    if not options.is_cross_entropy:
        words.append(f"mixing {options.mixing}")
        if options.mixing in ("fixed", "interpolate"):
            weight = options.weight
            shown = f"{weight.start:g} to {weight.end:g}" if isinstance(weight, Schedule) else f"{weight:g}"
            words.append(f"weight {shown}")
    return f"bank {bank_of(loss)}, {', '.join(words)}"


def announce(loss: EMOLoss | LinearEMOLoss, place: str) -> None:
    """Log, in the first process, that a loss is in force.

    The line goes to the logger `costbank` with the level INFO. If nothing would show it there, it goes to standard
    error, so that no line means that the loss is not in force.

    Args:
        loss: the loss.
        place: what uses it, such as `axolotl`.
    """
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    if rank != "0":
        return
    line = f"costbank: the loss is in force in {place}: {describe(loss)}"
    if _LOG.isEnabledFor(logging.INFO) and _LOG.hasHandlers():
        _LOG.info(line)
    else:
        print(line, file=sys.stderr, flush=True)
