"""Costs for training in three forms: all rows, rows with fewer dimensions, or neighbors and a mean for other tokens."""

from costbank.loss.costs.base import Costs, same_pin
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.fitting import fit_dense, width_hint
from costbank.loss.costs.neighbors import NeighborCosts
from costbank.loss.costs.opening import FORMS, open_costs

__all__ = [
    "FORMS",
    "Costs",
    "DenseCosts",
    "LowRankCosts",
    "NeighborCosts",
    "fit_dense",
    "open_costs",
    "same_pin",
    "width_hint",
]
