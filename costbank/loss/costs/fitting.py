"""A bank's dense costs for logits of another width: added tokens, the padding of a head, or rows that were cut off."""

from dataclasses import replace

import torch

from costbank.errors import ShapeError
from costbank.loss.costs.base import UNNAMED, Costs
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.neighbors import NeighborCosts

__all__ = ["WIDEST", "fit_dense", "width_hint"]

WIDEST = 1.25
"""Logits may be this much wider than a bank; beyond, they are more likely those of another model."""


def fit_dense(costs: DenseCosts, width: int, bank_size: int, insist: str) -> DenseCosts:
    """The same costs for logits of a width.

    Ids past the bank's cost 1 to every token, as tokens without a vector do. Rows that the logits do not have are left
    out where none of them has a vector, since nothing is lost then.

    Args:
        costs: a bank's, of any width.
        width: of the logits.
        bank_size: how many tokens the bank has.
        insist: what to give in place of the bank, to be named in the hint.

    Raises:
        ShapeError: the logits are wider than `WIDEST` times the bank, or lack tokens that have a vector.
    """
    rows = costs.vectors
    if width > max(bank_size, 1) * WIDEST:
        what = f"more than {WIDEST - 1:.0%} wider"
    elif width < len(rows) and rows[width:].any():
        what = f"{int(rows[width:].any(dim=1).sum()):,} of the ids that they lack have vectors"
    else:
        return replace(costs, vectors=torch.nn.functional.pad(rows, (0, 0, 0, width - len(rows))))
    raise ShapeError(
        f"the logits are {width:,} wide, and {costs.bank} has {bank_size:,} tokens: {what}",
        f"take the bank of this model's tokenizer; if the ids agree, give {insist} in place of the bank",
    )


def width_hint(costs: Costs, width: int) -> str:
    """How to make costs of the same form for logits of a width, if the ids agree."""
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
