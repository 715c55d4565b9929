"""EMO losses: cross-entropy joined with the expected cost of a frozen bank (arXiv 2310.04691).

from costbank import open_bank
from costbank.loss import EMOLoss

loss_of = EMOLoss(open_bank("my-bank"))
loss = loss_of(logits, labels)
"""

from costbank.errors import require

require("torch", "train")

from costbank.loss.costs import DenseCosts  # noqa: E402
from costbank.loss.functional import EMOResult, emo_loss  # noqa: E402
from costbank.loss.module import EMOLoss  # noqa: E402
from costbank.loss.options import EMOOptions  # noqa: E402
from costbank.loss.rows import EMOParts  # noqa: E402

__all__ = ["DenseCosts", "EMOLoss", "EMOOptions", "EMOParts", "EMOResult", "emo_loss"]
