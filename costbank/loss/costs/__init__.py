"""What losses need of a bank: costs in three forms, or the distributions of `neighbor_smoothing`."""

from costbank.loss.costs.base import Costs, same_pin
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.fitting import fit_width, width_hint
from costbank.loss.costs.float8 import RoundingError
from costbank.loss.costs.neighbors import NeighborCosts
from costbank.loss.costs.opening import FORMS, open_costs, open_smoothing
from costbank.loss.costs.smoothing import (
    LEAST_SUM,
    DenseSmoothing,
    NeighborSmoothing,
    SmoothingOptions,
    smooth_dense,
    smooth_neighbors,
)

__all__ = [
    "FORMS",
    "LEAST_SUM",
    "Costs",
    "DenseCosts",
    "DenseSmoothing",
    "LowRankCosts",
    "NeighborCosts",
    "NeighborSmoothing",
    "RoundingError",
    "SmoothingOptions",
    "fit_width",
    "open_costs",
    "open_smoothing",
    "same_pin",
    "smooth_dense",
    "smooth_neighbors",
    "width_hint",
]
