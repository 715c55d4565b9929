"""What is logged with a loss: means over tokens of the parts that it is made of."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from costbank.loss import EMOOptions, EMOResult

__all__ = ["Means", "counted_labels", "without_repeated"]


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
        counted = counted_labels(labels, options)
        if weights is not None:
            counted = counted & ((weights[..., 1:] if options.shift else weights) != 0).to(counted.device)
        tokens = counted.sum().to(parts.ce.device)
        loss = result.loss if options.reduction == "sum" else result.loss * tokens
        columns = (parts.ce.sum(), parts.value.sum(), parts.correct.sum(), loss.detach(), tokens, parts.entropy.sum())
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


def counted_labels(labels: Tensor, options: EMOOptions) -> Bool[Tensor, "*batch predicted"]:
    """Which labels a loss is the mean of, before weights."""
    return (labels[..., 1:] if options.shift else labels) != options.ignore_index


def without_repeated(labels: Int[Tensor, "rows length"], accelerator: Any, ignore_index: int) -> Tensor:
    """Labels of an evaluation's batch, ignored in the rows that repeat others to give all processes equally many.

    accelerate fills up the last batch with the first rows of the dataset. Of the rows of all processes in turn, those
    past the dataset's last row are the repeated ones, as in `gather_for_metrics`. Of an iterable dataset without a
    length and with `dispatch_batches=False` it is unknown which these are, and they are counted.

    Args:
        labels: of this process.
        accelerator: of the Trainer.
        ignore_index: of labels.

    Returns:
        `labels` themselves where no row is repeated.
    """
    state = accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return labels
    left = max(0, state.remainder - accelerator.process_index * len(labels))
    if left >= len(labels):
        return labels
    once = labels.clone()
    once[left:] = ignore_index
    return once
