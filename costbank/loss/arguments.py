"""Checks of what a loss is called with, and the loss's place in compiled functions."""

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
    """Have torch.compile break its graph around a function.

    As `torch.compiler.disable`, but that loads the compiler when a module is imported, which takes as long as torch.
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
        labels: as the loss was called with them.
        shape: of the rows.

    Raises:
        ShapeError: they have another shape.
        UsageError: they have another type.
    """
    if labels.ndim and labels.shape[:-1] == shape and labels.shape[-1] > 1:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            "give token ids, such as labels.argmax(-1) of one-hot rows; distributions of tokens go into SoftTargets",
        )
    if labels.shape != shape:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            f"give labels of shape {list(shape)}, one for each row",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(
            f"labels are {labels.dtype}", "give integer token ids: labels.long() where they are whole numbers"
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
        # The one check that does not wait for the device; PyTorch has no public name for it.
        torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
            allowed.all(), f"a label is neither below {width} nor {options.ignore_index}"
        )


def check_plain(**tensors: Tensor | None) -> None:
    """Refuse tensors that are shared out over processes: their rows are not all here.

    Raises:
        UsageError: one of them is a DTensor.
    """
    for name, tensor in tensors.items():
        # Told by what it has: importing its class would load all of torch.distributed.
        placements = getattr(tensor, "placements", None)
        if placements is not None:
            placed = ", ".join(map(str, placements))
            raise UsageError(
                f"{name} is a DTensor placed {placed}",
                "where its rows are a slice of the vocabulary (tensor parallelism), call parallel_linear_emo_loss, for "
                "logits parallel_emo_loss; under FSDP call the loss inside the forward of a wrapped module, where "
                "weights are whole; else give .full_tensor()",
            )


def check_costs(costs: Costs | None, width: int, options: EMOOptions) -> None:
    """Check that costs are there if they are needed, in a form that will do, and for as many tokens as the logits have.

    Raises:
        UsageError: they are not there, or of another form.
        ShapeError: they are for another number of tokens.
    """
    check_form(costs, options)
    if costs is None or not options.needs_costs:
        return
    if width != costs.vocab_size:
        raise ShapeError(
            f"the logits are {width:,} wide, and the costs of {costs.bank} are for {costs.vocab_size:,} tokens",
            f"if the ids agree (added tokens, or a padded head), take {width_hint(costs, width)}; "
            "else take the bank of this model's tokenizer",
        )


def check_devices(costs: Costs | None, options: EMOOptions, **tensors: Tensor | SoftTargets | None) -> None:
    """Check that everything is on one device.

    Raises:
        UsageError: it is not; all places are named.
    """
    places = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if costs is not None and options.needs_costs:
        places["costs"] = costs.device
    if len(set(places.values())) > 1:
        told = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise UsageError(f"{told}: that is more than one device", "move them to one with .to(device)")


def check_finite(losses: Tensor, options: EMOOptions, what: str) -> None:
    """Refuse losses that are NaN, and so logits that are NaN or inf.

    On an accelerator nothing waits: the process is ended by the device, with the message, when it gets there.

    Raises:
        UsageError: on a CPU.
    """
    if options.nan_logits == "pass":
        return
    advice = (
        "look for the step before which the model's weights became NaN (a learning rate, float16 without a scaler); "
        "nan_logits='pass' lets them through as a NaN loss"
    )
    if losses.device.type == "cpu":
        if losses.isnan().any():
            raise UsageError(f"the loss is NaN: {what}", advice)
    elif losses.device.type != "meta":
        torch._assert_async(~losses.isnan().any(), f"{what}; {advice}")  # pyright: ignore[reportPrivateImportUsage]


def check_logits(logits: Tensor) -> None:
    """Check that a tensor may be logits.

    Raises:
        ShapeError: it has no dimensions, or no floating-point type.
    """
    if logits.ndim < 1 or not logits.is_floating_point():
        raise ShapeError(
            f"logits are {logits.dtype} of shape {list(logits.shape)}",
            "give floating-point logits [..., vocab], then labels",
        )


def check_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check the shapes and types of what logits are made of.

    Raises:
        ShapeError: they do not fit each other.
        UsageError: hidden states and weight are of different types, and no autocast brings them together.
    """
    if hidden.ndim < 1 or weight.ndim != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"hidden states of shape {list(hidden.shape)} with a weight of shape {list(weight.shape)}",
            "give hidden states [..., dim] and the weight [vocab, dim] of the head",
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"a bias of shape {list(bias.shape)} for {len(weight):,} rows", "give one of shape [vocab]")
    if not hidden.is_floating_point() or not weight.is_floating_point():
        raise ShapeError(f"hidden states are {hidden.dtype}, the weight {weight.dtype}", "give floating-point tensors")
    if hidden.dtype != weight.dtype and not torch.is_autocast_enabled(hidden.device.type):
        raise UsageError(
            f"hidden states are {hidden.dtype}, the weight {weight.dtype}",
            "cast one of them, or call the loss under torch.autocast",
        )
