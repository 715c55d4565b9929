"""How a Trainer reduces a loss: sums over tokens, divided by those of all accumulated batches."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss

__all__ = ["as_trained", "check_ignore_index", "check_smoothing", "per_item", "to_device"]


def as_trained(options: EMOOptions, num_items_in_batch: Tensor | int | None, shift: bool) -> EMOOptions:
    return replace(options, shift=shift, reduction="mean" if num_items_in_batch is None else "sum")


def per_item(loss: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    if num_items_in_batch is None:
        return loss
    count = torch.as_tensor(num_items_in_batch, device=loss.device)
    # A batch without any tokens has loss 0, and not 0 / 0. A sum of weights may be less than 1.
    return loss / torch.where(count == 0, torch.ones_like(count), count)


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
