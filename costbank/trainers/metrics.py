"""The metrics that are logged with a loss: means over tokens of its parts."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from costbank.loss import EMOOptions, EMOResult

__all__ = ["LossMetrics", "counted_mask", "ignore_repeated_rows"]


class LossMetrics:
    """Sums over tokens since the last `take`. They stay on the device until then, so that nothing waits for it.

    Args:
        entropy: whether the loss computes entropies.
    """

    def __init__(self, *, entropy: bool = False) -> None:
        self._entropy = entropy
        self._sums: Tensor | None = None
        self._value_name = ""

    def add(self, result: EMOResult, labels: Tensor, options: EMOOptions, weights: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            result: the result of the loss.
            labels: the labels that the loss was called with.
            options: the options of the loss.
            weights: token weights. Tokens of weight 0 are left out; all others count equally.
        """
        parts, self._value_name = result.parts, options.value_name
        counted = counted_mask(labels, options)
        if weights is not None:
            counted = counted & ((weights[..., 1:] if options.shift else weights) != 0).to(counted.device)
        tokens = counted.sum().to(parts.ce.device)
        loss = result.loss if options.reduction == "sum" else result.loss * tokens
        columns = (parts.ce.sum(), parts.value.sum(), parts.correct.sum(), loss.detach(), tokens, parts.entropy.sum())
        sums = torch.stack([column.float() for column in columns])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self, accelerator: Any) -> dict[str, float]:
        """Means over the tokens of all processes since the last call; empty if nothing was added."""
        if self._sums is None:
            return {}
        ce, value, correct, loss, tokens, entropy = accelerator.reduce(self._sums, "sum").tolist()
        self._sums = None
        tokens = max(tokens, 1.0)
        return {
            "ce": ce / tokens,
            self._value_name: value / tokens,
            "mean_token_accuracy": correct / tokens,
            "emo_loss": loss / tokens,
            **({"entropy": entropy / tokens} if self._entropy else {}),
        }


def counted_mask(labels: Tensor, options: EMOOptions) -> Bool[Tensor, "*batch predicted"]:
    """Which tokens the mean of a loss is taken over, before weights."""
    return (labels[..., 1:] if options.shift else labels) != options.ignore_index


def ignore_repeated_rows(labels: Int[Tensor, "rows length"], accelerator: Any, ignore_index: int) -> Tensor:
    """Ignore the labels of rows that accelerate repeats in an evaluation's last batch.

    accelerate fills up the last batch with the first rows of the dataset, so that all processes have equally many. As
    in `gather_for_metrics`, the repeated rows are those after the dataset's last row, in the order of processes. For an
    iterable dataset without a length and `dispatch_batches=False`, they are unknown and therefore counted.

    Args:
        labels: this process's labels.
        accelerator: the Trainer's.
        ignore_index: the label that is ignored.

    Returns:
        `labels` itself if no row is repeated.
    """
    state = accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return labels
    new_rows = max(0, state.remainder - accelerator.process_index * len(labels))
    if new_rows >= len(labels):
        return labels
    masked = labels.clone()
    masked[new_rows:] = ignore_index
    return masked
