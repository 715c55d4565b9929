"""Checks of a loss's arguments, and the graph break around a loss in compiled functions."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs, width_hint
from costbank.loss.engine.objectives import check_form
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.options import EMOOptions

__all__ = [
    "check_costs",
    "check_devices",
    "check_finite",
    "check_label_range",
    "check_labels",
    "check_linear",
    "check_logits",
    "check_plain",
    "eager",
]

Function = TypeVar("Function", bound=Callable)


def eager(function: Function) -> Function:
    """Make torch.compile break its graph around a function.

    `torch.compiler.disable` does the same, but imports the compiler at once, which takes as long as importing torch.
    """

    @wraps(function)
    def called(*args, **kwargs):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return called  # pyright: ignore[reportReturnType]


def check_labels(labels: Tensor, shape: torch.Size) -> None:
    """Check that labels are integers, one for each row.

    Args:
        labels: the labels.
        shape: the shape of the rows.

    Raises:
        ShapeError: labels have another shape.
        UsageError: labels have another type.
    """
    if labels.ndim and labels.shape[:-1] == shape and labels.shape[-1] > 1:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            "give token ids, such as labels.argmax(-1) for one-hot rows; pass distributions as SoftTargets",
        )
    if labels.shape != shape:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            f"give labels of shape {list(shape)}, one for each row",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(
            f"labels are {labels.dtype}", "give integer token ids: labels.long() if they are whole numbers"
        )


def check_label_range(labels: Tensor, kept: Tensor, width: int, options: EMOOptions) -> None:
    allowed = ~kept | ((labels >= 0) & (labels < width))
    if labels.device.type == "cpu":
        if not allowed.all():
            wrong = labels[~allowed][0].item()
            raise UsageError(
                f"label {wrong} is neither a token id below {width:,} nor ignore_index={options.ignore_index}",
                "give the ids of this bank's tokenizer, or the ignore_index that your data uses",
            )
    elif labels.device.type != "meta":
        # The only check that does not wait for the device; PyTorch has no public name for it.
        torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
            allowed.all(), f"a label is neither a token id below {width} nor ignore_index={options.ignore_index}"
        )


def check_plain(**tensors: Tensor | None) -> None:
    """Refuse tensors that are distributed over processes.

    Raises:
        UsageError: one of them is a DTensor.
    """
    for name, tensor in tensors.items():
        # Recognized by this attribute: importing the class would import all of torch.distributed.
        placements = getattr(tensor, "placements", None)
        if placements is not None:
            placed = ", ".join(map(str, placements))
            raise UsageError(
                f"{name} is a DTensor placed {placed}",
                "if it is split by vocabulary (tensor parallelism), call parallel_linear_emo_loss, or "
                "parallel_emo_loss for logits; under FSDP, call the loss inside the forward of a wrapped module, where "
                "weights are complete; otherwise give .full_tensor()",
            )


def check_costs(costs: Costs | None, width: int, options: EMOOptions) -> None:
    """Check that the objective supports these costs, and that there is a cost for each column of the logits.

    Raises:
        UsageError: costs are missing, or have a form that the objective does not support.
        ShapeError: the costs are for another number of tokens.
    """
    check_form(costs, options)
    if costs is None or not options.needs_costs:
        return
    if width != costs.vocab_size:
        raise ShapeError(
            f"the logits are {width:,} wide, but the costs of {costs.bank} are for {costs.vocab_size:,} tokens",
            f"if the token ids match (added tokens, or a padded head), use {width_hint(costs, width)}; "
            "otherwise use the bank of this model's tokenizer",
        )


def check_devices(costs: Costs | None, options: EMOOptions, **tensors: Tensor | SoftTargets | None) -> None:
    """Check that all tensors are on one device.

    Raises:
        UsageError: they are not; the message names the device of each.
    """
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if costs is not None and options.needs_costs:
        devices["costs"] = costs.device
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise UsageError(f"tensors are on different devices: {listed}", "move all to one device with .to(device)")


def check_finite(losses: Tensor, options: EMOOptions, what: str) -> None:
    """Refuse NaN losses, which come from logits with NaN or inf.

    On an accelerator the check is asynchronous: the device aborts the process with the message.

    Raises:
        UsageError: a loss on a CPU is NaN.
    """
    if options.nan_logits == "pass":
        return
    advice = (
        "find the step at which the model's weights became NaN (usual causes: a high learning rate, or float16 without "
        "a gradient scaler); with nan_logits='pass', the loss is NaN and training continues"
    )
    if losses.device.type == "cpu":
        if losses.isnan().any():
            raise UsageError(f"the loss is NaN: {what}", advice)
    elif losses.device.type != "meta":
        torch._assert_async(~losses.isnan().any(), f"{what}; {advice}")  # pyright: ignore[reportPrivateImportUsage]


def check_logits(logits: Tensor) -> None:
    """Check that a tensor can be logits.

    Raises:
        ShapeError: it has no dimensions, or no floating-point type.
    """
    if logits.ndim < 1 or not logits.is_floating_point():
        raise ShapeError(
            f"logits are {logits.dtype} of shape {list(logits.shape)}",
            "give floating-point logits [..., vocab], then labels",
        )


def check_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check the shapes and types of hidden states, weight and bias.

    Raises:
        ShapeError: the shapes do not match, or a type is not floating point.
        UsageError: hidden states and weight have different types, and autocast is off.
    """
    if hidden.ndim < 1 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"hidden states of shape {list(hidden.shape)} with a weight of shape {list(weight.shape)}",
            "give hidden states [..., dim] and the weight [vocab, dim] of the head",
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"a bias of shape {list(bias.shape)} for {len(weight):,} rows", "give a bias of shape [vocab]")
    if not hidden.is_floating_point() or not weight.is_floating_point():
        raise ShapeError(
            f"hidden states are {hidden.dtype}, and the weight is {weight.dtype}", "give floating-point tensors"
        )
    if hidden.dtype != weight.dtype and not torch.is_autocast_enabled(hidden.device.type):
        raise UsageError(
            f"hidden states are {hidden.dtype}, but the weight is {weight.dtype}",
            "cast one of them, or call the loss under torch.autocast",
        )
