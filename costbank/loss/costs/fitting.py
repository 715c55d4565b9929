"""Fit a bank's dense costs to logits of another width: added tokens, the padding of a head, or removed rows."""

from dataclasses import replace

import torch

from costbank.errors import ShapeError
from costbank.loss.costs.base import UNNAMED, Costs
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.neighbors import NeighborCosts

__all__ = ["WIDEST", "fit_dense", "width_hint"]

WIDEST = 1.25
"""The largest width of logits, as a multiple of a bank's size. Wider logits are likely those of another model."""


def fit_dense(costs: DenseCosts, width: int, bank_size: int, explicit: str) -> DenseCosts:
    """The same costs for logits of a given width.

    Ids beyond the bank cost 1 to every token, like tokens without a vector. Rows beyond the logits are dropped if none
    of them has a vector.

    Args:
        costs: the costs of a bank, of any width.
        width: the width of the logits.
        bank_size: the number of tokens of the bank.
        explicit: code for the hint that fits the costs without these checks.

    Raises:
        ShapeError: the logits are wider than `WIDEST` times the bank, or lack a token that has a vector.
    """
    rows = costs.vectors
    if width > max(bank_size, 1) * WIDEST:
        reason = f"more than {WIDEST - 1:.0%} wider"
    elif width < len(rows) and rows[width:].any():
        reason = f"{int(rows[width:].any(dim=1).sum()):,} of the ids without logits have vectors"
    else:
        return replace(costs, vectors=torch.nn.functional.pad(rows, (0, 0, 0, width - len(rows))))
    raise ShapeError(
        f"the logits are {width:,} wide, and {costs.bank} has {bank_size:,} tokens: {reason}",
        f"use the bank of this model's tokenizer; if the token ids match, give {explicit} instead of the bank",
    )


def width_hint(costs: Costs, width: int) -> str:
    """Code that makes costs of the same form for logits of this width."""
    if costs.bank == UNNAMED and isinstance(costs, DenseCosts):
        return (
            f"DenseCosts(torch.nn.functional.pad(rows, (0, 0, 0, {width - costs.vocab_size})))"
            if width > costs.vocab_size
            else f"DenseCosts(rows[:{width}])"
        )
    setting = ""
    if isinstance(costs, LowRankCosts):
        setting = f", rank={costs.vectors.shape[1]}"
    elif isinstance(costs, NeighborCosts):
        setting = f", k={costs.ids.shape[1]}"
    return f"open_costs(bank, {costs.form!r}{setting}, vocab_size={width})"
