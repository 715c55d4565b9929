"""What is logged with a loss: means over tokens of the parts that it is made of."""

from typing import Any

import torch
from torch import Tensor

from costbank.loss import EMOOptions, EMOResult

__all__ = ["Means"]


class Means:
    """Sums over tokens since they were last taken, kept on the device: nothing waits for it until then.

    Args:
        entropy: whether the parts hold entropies.
    """

    def __init__(self, *, entropy: bool = False) -> None:
        self._entropy = entropy
        self._sums: Tensor | None = None

    def add(self, result: EMOResult, labels: Tensor, options: EMOOptions, weights: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            result: of the loss.
            labels: as the loss was called with them.
            options: of the loss.
            weights: of the tokens, whose parts count alike; those of tokens with a weight of 0 are left out.
        """
        parts = result.parts
        counted = (labels[..., 1:] if options.shift else labels) != options.ignore_index
        if weights is not None:
            counted = counted & ((weights[..., 1:] if options.shift else weights) != 0).to(counted.device)
        tokens = counted.sum().to(parts.ce.device)
        loss = result.loss if options.reduction == "sum" else result.loss * tokens
        columns = (parts.ce.sum(), parts.emd.sum(), parts.correct.sum(), loss.detach(), tokens, parts.entropy.sum())
        sums = torch.stack([column.float() for column in columns])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self, accelerator: Any) -> dict[str, float]:
        """Means over the tokens of all processes; empty where there were none."""
        if self._sums is None:
            return {}
        ce, emd, correct, loss, tokens, entropy = accelerator.reduce(self._sums, "sum").tolist()
        self._sums = None
        tokens = max(tokens, 1.0)
        return {
            "ce": ce / tokens,
            "emd": emd / tokens,
            "mean_token_accuracy": correct / tokens,
            "emo_loss": loss / tokens,
            **({"entropy": entropy / tokens} if self._entropy else {}),
        }
