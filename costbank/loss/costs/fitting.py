"""Fit a bank's dense costs to logits of another width: added tokens, the padding of a head, or removed rows."""

from dataclasses import replace

import torch
from torch import Tensor

from costbank.errors import ShapeError
from costbank.loss.costs.base import UNNAMED, Costs
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.neighbors import NeighborCosts
from costbank.loss.costs.smoothing import DenseSmoothing, NeighborSmoothing

__all__ = ["WIDEST", "fit_width", "width_hint"]

WIDEST = 1.25
"""The largest width of logits, as a multiple of a bank's size. Wider logits are likely those of another model."""


def fit_width(
    costs: DenseCosts | NeighborSmoothing, width: int, bank_size: int, explicit: str
) -> DenseCosts | NeighborSmoothing:
    """The same costs for logits of a given width.

    Ids beyond the bank cost 1 to every token, like tokens without a vector, and keep their whole label in
    `neighbor_smoothing`. Rows beyond the logits are dropped if none of them has a vector.

    Args:
        costs: the dense costs or the distributions of a bank, of any width.
        width: the width of the logits.
        bank_size: the number of tokens of the bank.
        explicit: code for the hint that fits the costs without these checks.

    Raises:
        ShapeError: the logits are wider than `WIDEST` times the bank, or lack a token that has a vector.
    """
    has_vector = costs.has_vector if isinstance(costs, DenseCosts) else costs.weights.any(dim=1)
    if width > max(bank_size, 1) * WIDEST:
        reason = f"more than {WIDEST - 1:.0%} wider"
    elif lacking := int(has_vector[width:].sum()):
        reason = f"{lacking:,} of the ids without logits have vectors"
    elif isinstance(costs, DenseSmoothing):
        factors, softened = (_rows(values[:, None], width)[:, 0] for values in (costs.factors, costs.softened))
        return replace(costs, **_vectors(costs, width), factors=factors, softened=softened)
    elif isinstance(costs, DenseCosts):
        return replace(costs, **_vectors(costs, width))
    else:
        ids = _rows(costs.ids + 1, width) - 1
        here = ids < width
        return replace(
            costs, ids=torch.where(here, ids, -1), weights=torch.where(here, _rows(costs.weights, width), 0.0)
        )
    raise ShapeError(
        f"the logits are {width:,} wide, and {costs.bank} has {bank_size:,} tokens: {reason}",
        f"use the bank of this model's tokenizer; if the token ids match, give {explicit} instead of the bank",
    )


def _vectors(costs: DenseCosts, width: int) -> dict[str, Tensor | None]:
    """The first vectors and their scales, or all of them and zeros."""
    if costs.scales is None:
        return {"vectors": _rows(costs.vectors, width), "scales": None}
    # As bytes, which every device can pad.
    vectors = _rows(costs.vectors.view(torch.uint8), width).view(costs.vectors.dtype)
    return {"vectors": vectors, "scales": _rows(costs.scales[:, None], width)[:, 0]}


def _rows(table: Tensor, count: int) -> Tensor:
    """The first rows of a table, or its rows and zeros."""
    return torch.nn.functional.pad(table, (0, 0, 0, count - len(table)))


def width_hint(costs: Costs, width: int) -> str:
    """Code that makes costs of the same form for logits of this width."""
    if costs.bank == UNNAMED and isinstance(costs, DenseCosts):
        return (
            f"DenseCosts(torch.nn.functional.pad(rows, (0, 0, 0, {width - costs.vocab_size})))"
            if width > costs.vocab_size
            else f"DenseCosts(rows[:{width}])"
        )
    setting = ""
    if isinstance(costs, NeighborSmoothing | DenseSmoothing):
        return f"open_smoothing(bank, vocab_size={width})"
    if isinstance(costs, LowRankCosts):
        setting = f", rank={costs.vectors.shape[1]}"
    elif isinstance(costs, NeighborCosts):
        setting = f", k={costs.ids.shape[1]}"
    return f"open_costs(bank, {costs.form!r}{setting}, vocab_size={width})"
