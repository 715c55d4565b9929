"""The loss of NeMo Automodel, which its YAML file names as `_target_` under `loss_fn`."""

from typing import TYPE_CHECKING, Any

from costbank.errors import require
from costbank.trainers.frameworks import require_framework

# Before the imports that need them: if one is missing, the error says what to install.
require("torch", "trainers")
require_framework("nemo_automodel.components.loss.masked_ce", "nemo-automodel")

import torch
from torch import Tensor, nn

from costbank.trainers.in_force import announce
from costbank.trainers.loss_settings import loss_from_settings
from costbank.trainers.model_loss import check_has_logits
from costbank.trainers.split_logits import loss_sum
from costbank.trainers.tokenizer import load_tokenizer

if TYPE_CHECKING:

    class MaskedCrossEntropy(nn.Module):
        ignore_index: int

        def __init__(self, fp32_upcast: bool, ignore_index: int, reduction: str) -> None: ...
else:
    from nemo_automodel.components.loss.masked_ce import MaskedCrossEntropy

__all__ = ["AutomodelEMOLoss"]


class AutomodelEMOLoss(MaskedCrossEntropy):
    """A loss for `loss_fn` in NeMo Automodel's recipes.

    It is a subclass of `MaskedCrossEntropy`, because Automodel replaces a loss that is not by plain cross-entropy if
    the model's forward has no `logits_to_keep`. The labels that the recipes give are already shifted.

    Args:
        bank: the name, path or URL of the bank.
        tokenizer: the folder of the model's tokenizer, its tokenizer.json, or a name in the local cache of Hugging
            Face. The recipe does not give the loss its tokenizer, so this is required.
        preset, objective, mixing, weight: options of costbank's `EMOLoss`.
        **options: further options by name.

    Raises:
        TokenizerError: the tokenizer is not the bank's.
        UsageError: an option is invalid.
        CostbankError: the bank cannot be opened.
    """

    def __init__(
        self,
        bank: str,
        tokenizer: str,
        preset: str | None = None,
        objective: str | None = None,
        mixing: str | None = None,
        weight: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(fp32_upcast=False, ignore_index=-100, reduction="sum")
        self.emo = loss_from_settings(
            bank, "bank", load_tokenizer(tokenizer), preset=preset, objective=objective, mixing=mixing, weight=weight,
            options=options,
        )  # fmt: skip
        announce(self.emo, "NeMo Automodel")

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        num_label_tokens: int | None = None,
        loss_weights: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits [batch, length, vocab] for labels [batch, length] that are already shifted.

        Args:
            logits: also a DTensor that is split by vocabulary.
            labels: the labels; -100 is ignored.
            mask: positions with 0 are ignored.
            num_label_tokens: what the sum over tokens is divided by; without it, the result is the sum.
            loss_weights: a factor for each token's loss.

        Raises:
            UsageError, ShapeError: see costbank's `emo_loss`.
        """
        check_has_logits(logits)
        if mask is not None:
            labels = labels.masked_fill(mask.to(labels.device).reshape(labels.shape) == 0, self.ignore_index)
        weights = None if loss_weights is None else loss_weights.reshape(-1).to(logits.device, torch.float32)
        total = loss_sum(self.emo, logits, labels, token_weights=weights)
        full: Any = getattr(total, "full_tensor", None)
        total = total if full is None else full()
        if num_label_tokens is None:
            return total
        # As in MaskedCrossEntropy, a batch without labels has a loss of 0 that keeps the graph.
        return total * 0.0 if num_label_tokens == 0 else total / num_label_tokens
