"""How a Trainer reduces a loss: a sum over tokens, divided by the number of tokens of all accumulated batches."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss

__all__ = [
    "IGNORE_INDEX",
    "check_ignore_index",
    "check_label_smoothing",
    "divide_by_items",
    "move_loss",
    "plain_ce_options",
    "trainer_options",
]

IGNORE_INDEX = -100
"""The label that transformers ignores."""


def trainer_options(options: EMOOptions, num_items_in_batch: Tensor | int | None, shift: bool) -> EMOOptions:
    """Options with the reduction that a Trainer needs: a sum if it counts the items, else a mean."""
    return replace(options, shift=shift, reduction="mean" if num_items_in_batch is None else "sum")


def divide_by_items(loss: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """A loss with the reduction of `trainer_options`, as a mean over the items; 0 if there are none."""
    if num_items_in_batch is None:
        return loss
    # A sum of weights may be less than 1, so only 0 is replaced.
    count = torch.as_tensor(num_items_in_batch, device=loss.device)
    return loss / torch.where(count == 0, torch.ones_like(count), count)


def plain_ce_options(options: EMOOptions) -> EMOOptions | None:
    """Options of plain cross-entropy, without smoothing and at temperature 1; None if the loss's own is the same.

    The softcap stays, because it belongs to the model.
    """
    if not options.label_smoothing and options.temperature == 1.0:
        return None
    return EMOOptions(
        objective="ce", reduction=options.reduction, shift=options.shift, ignore_index=options.ignore_index,
        softcap=options.softcap, chunk_rows=options.chunk_rows, skip_ignored=options.skip_ignored,
        accumulate=options.accumulate, nan_logits=options.nan_logits, kernels=options.kernels,
        weight_gradient=options.weight_gradient,
    )  # fmt: skip


def move_loss(loss: EMOLoss | LinearEMOLoss, device: torch.device) -> None:
    """Move the costs of a loss to a device, if they are not on it."""
    if loss.costs is not None and loss.costs.device != device:
        loss.to(device)


def check_label_smoothing(args: Any) -> None:
    if args.label_smoothing_factor:
        raise UsageError("label_smoothing_factor has no effect on this loss", "give the loss label_smoothing= instead")


def check_ignore_index(loss: EMOLoss | LinearEMOLoss) -> None:
    if loss.options.ignore_index != IGNORE_INDEX:
        raise UsageError(
            f"ignore_index is {loss.options.ignore_index}, but a Trainer counts the labels that are not {IGNORE_INDEX}",
            f"mark ignored labels with {IGNORE_INDEX}",
        )
