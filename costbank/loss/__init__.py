"""EMO losses: cross-entropy combined with the expected cost from a frozen bank (arXiv 2310.04691).

from costbank import open_bank
from costbank.loss import EMOLoss

loss_of = EMOLoss(open_bank("my-bank"))
loss = loss_of(logits, labels)
"""

from costbank.errors import require

# Before the imports that need it: a missing torch is an error that names the extra to install.
require("torch", "train")

from costbank.loss.costs import Costs, DenseCosts, LowRankCosts, NeighborCosts, open_costs  # noqa: E402
from costbank.loss.engine.result import EMOParts, EMOResult  # noqa: E402
from costbank.loss.engine.targets import SoftTargets  # noqa: E402
from costbank.loss.functional import emo_loss, emo_loss_with_parts  # noqa: E402
from costbank.loss.linear import linear_emo_loss, linear_emo_loss_with_parts  # noqa: E402
from costbank.loss.module import EMOLoss, LinearEMOLoss  # noqa: E402
from costbank.loss.options import EMOOptions, Schedule  # noqa: E402
from costbank.loss.parallel import (  # noqa: E402
    parallel_emo_loss,
    parallel_emo_loss_with_parts,
    parallel_linear_emo_loss,
    parallel_linear_emo_loss_with_parts,
)
from costbank.loss.transport import exact_transport_loss, exact_transport_loss_with_parts  # noqa: E402

__all__ = [
    "Costs",
    "DenseCosts",
    "EMOLoss",
    "EMOOptions",
    "EMOParts",
    "EMOResult",
    "LinearEMOLoss",
    "LowRankCosts",
    "NeighborCosts",
    "Schedule",
    "SoftTargets",
    "emo_loss",
    "emo_loss_with_parts",
    "exact_transport_loss",
    "exact_transport_loss_with_parts",
    "linear_emo_loss",
    "linear_emo_loss_with_parts",
    "open_costs",
    "parallel_emo_loss",
    "parallel_emo_loss_with_parts",
    "parallel_linear_emo_loss",
    "parallel_linear_emo_loss_with_parts",
]
