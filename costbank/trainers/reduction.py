"""How a Trainer reduces a loss: sums over tokens, divided by those of all accumulated batches."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss

__all__ = ["as_trained", "check_ignore_index", "check_smoothing", "per_item", "plain_options", "to_device"]


def as_trained(options: EMOOptions, num_items_in_batch: Tensor | int | None, shift: bool) -> EMOOptions:
    return replace(options, shift=shift, reduction="mean" if num_items_in_batch is None else "sum")


def per_item(loss: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    if num_items_in_batch is None:
        return loss
    count = torch.as_tensor(num_items_in_batch, device=loss.device)
    # A batch without any tokens has loss 0, and not 0 / 0. A sum of weights may be less than 1.
    return loss / torch.where(count == 0, torch.ones_like(count), count)


def plain_options(options: EMOOptions) -> EMOOptions | None:
    """Options of the plain cross-entropy, at a temperature of 1 and not smoothed; None where the loss's own is that.

    A softcap stays: it is the model's.
    """
    if not options.label_smoothing and options.temperature == 1.0:
        return None
    return EMOOptions(
        objective="ce", reduction=options.reduction, shift=options.shift, ignore_index=options.ignore_index,
        softcap=options.softcap, chunk_rows=options.chunk_rows, accumulate=options.accumulate,
        nan_logits=options.nan_logits,
    )  # fmt: skip


def to_device(loss: EMOLoss | LinearEMOLoss, beside: Tensor) -> None:
    if loss.costs is not None and loss.costs.device != beside.device:
        loss.to(beside.device)


def check_smoothing(args: Any) -> None:
    if args.label_smoothing_factor:
        raise UsageError("label_smoothing_factor has no effect on this loss", "give the loss label_smoothing= instead")


def check_ignore_index(loss: EMOLoss | LinearEMOLoss) -> None:
    if loss.options.ignore_index != -100:
        raise UsageError(
            f"ignore_index is {loss.options.ignore_index}, and a Trainer counts the labels that are not -100",
            "mark ignored labels with -100",
        )
