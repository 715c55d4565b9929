"""Losses with costs from a frozen bank: labels softened towards similar tokens, and EMO (arXiv 2310.04691).

from costbank import open_bank
from costbank.loss import EMOLoss

loss_of = EMOLoss(open_bank("my-bank"))
loss = loss_of(logits, labels)
"""

from costbank.errors import require

# A missing torch is an error that names the extra to install, so the check stands before the imports that need torch.
# ruff: noqa: E402
require("torch", "train")

from costbank.loss.costs import (
    Costs,
    DenseCosts,
    DenseSmoothing,
    LowRankCosts,
    NeighborCosts,
    NeighborSmoothing,
    RoundingError,
    SmoothingOptions,
    open_costs,
    open_smoothing,
    smooth_dense,
    smooth_neighbors,
)
from costbank.loss.engine.result import EMOParts, EMOResult
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.functional import emo_loss, emo_loss_with_parts
from costbank.loss.linear import linear_emo_loss, linear_emo_loss_with_parts
from costbank.loss.module import EMOLoss, LinearEMOLoss
from costbank.loss.options import EMOOptions, Schedule
from costbank.loss.parallel import (
    parallel_emo_loss,
    parallel_emo_loss_with_parts,
    parallel_linear_emo_loss,
    parallel_linear_emo_loss_with_parts,
)
from costbank.loss.transport import exact_transport_loss, exact_transport_loss_with_parts

__all__ = [
    "Costs",
    "DenseCosts",
    "DenseSmoothing",
    "EMOLoss",
    "EMOOptions",
    "EMOParts",
    "EMOResult",
    "LinearEMOLoss",
    "LowRankCosts",
    "NeighborCosts",
    "NeighborSmoothing",
    "RoundingError",
    "Schedule",
    "SmoothingOptions",
    "SoftTargets",
    "emo_loss",
    "emo_loss_with_parts",
    "exact_transport_loss",
    "exact_transport_loss_with_parts",
    "linear_emo_loss",
    "linear_emo_loss_with_parts",
    "open_costs",
    "open_smoothing",
    "parallel_emo_loss",
    "parallel_emo_loss_with_parts",
    "parallel_linear_emo_loss",
    "parallel_linear_emo_loss_with_parts",
    "smooth_dense",
    "smooth_neighbors",
]
