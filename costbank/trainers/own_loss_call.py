"""Call a model with labels, and compare the loss that it returns with the cross-entropy of its logits."""

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.loss import EMOOptions, emo_loss
from costbank.trainers.auxiliary_loss import auxiliary_loss
from costbank.trainers.heads import output_module, replaced_input
from costbank.trainers.labeled_batch import LabeledBatch
from costbank.trainers.logit_transform import logits_of

__all__ = [
    "MAX_LOGITS",
    "MODEL_ERRORS",
    "LossComparison",
    "OwnLossCall",
    "call_with_labels",
    "ce_options",
    "compare_losses",
    "densest_window",
    "preserved_state",
    "tolerance",
]

MODEL_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What models raise when they cannot compute their loss for a part of a row, or do not take labels."""

_LOG = logging.getLogger(__name__)
MAX_LOGITS = 1 << 24
"""The most logits that a call of the head computes: 64 MB of float32."""
_UNKNOWN_WIDTH = 1 << 17
_FLOAT32_TOLERANCE, _HALF_TOLERANCE = 1e-3, 1e-2


@dataclass(frozen=True)
class OwnLossCall:
    """A call of a model that computed its own loss.

    Attributes:
        outputs: the model's outputs.
        labels: the labels, padded to the length of the logits.
        shift_labels: labels that the batch has already shifted, if any.
        hidden: the head's input; None if the head was not called exactly once.
    """

    outputs: dict[str, Any]
    labels: Tensor
    shift_labels: Tensor | None
    hidden: Tensor | None

    @property
    def targets(self) -> Tensor:
        return self.labels if self.shift_labels is None else self.shift_labels


@dataclass(frozen=True)
class LossComparison:
    """A model's own loss of a batch, and the cross-entropy of its logits.

    Attributes:
        own: the model's own loss.
        cross_entropy: its value for each shift that was tried (True: labels are shifted), plus `auxiliary`.
        auxiliary: the model's auxiliary losses.
        tolerance: the largest relative difference that rounding explains.
    """

    own: float
    cross_entropy: dict[bool, float]
    auxiliary: float
    tolerance: float

    def matching_shifts(self) -> list[bool]:
        """The values of `shift` for which cross-entropy is the model's own loss."""
        bound = self.tolerance * max(1.0, abs(self.own))
        return [shift for shift, value in self.cross_entropy.items() if abs(value - self.own) <= bound]

    def is_ambiguous(self) -> bool:
        """Whether cross-entropy is the model's own loss with shifted labels and without."""
        return len(self.matching_shifts()) == 2


def ce_options(shift: bool, ignore_index: int) -> EMOOptions:
    """Options of plain cross-entropy."""
    return EMOOptions(objective="ce", shift=shift, ignore_index=ignore_index, nan_logits="pass")


def tolerance(exact: bool) -> float:
    """The largest relative difference between equal losses: in float32 (`exact`), or with 16-bit rounding."""
    return _FLOAT32_TOLERANCE if exact else _HALF_TOLERANCE


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Restore, on exit, the random states and the buffers that a call of a model changes."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    device_type = next(iter(devices)).type if devices else "cuda"
    # Speech models draw the masks of SpecAugment from NumPy.
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 -- the global generator that models draw from
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=sorted(devices, key=str), device_type=device_type):
        yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002 -- the global generator that models draw from
    with torch.no_grad():
        for buffer, version, before in buffers:
            if buffer._version != version:
                buffer.copy_(before)


def compare_losses(base: Any, call: OwnLossCall, ignore_index: int) -> LossComparison | None:
    """Compare a model's own loss with cross-entropy; None if the model has no loss, or it cannot be compared."""
    own, logits = call.outputs.get("loss"), logits_of(call.outputs)
    if not isinstance(own, Tensor):
        _LOG.warning("%s returns no loss, so this loss is not compared with the model's own", type(base).__name__)
        return None
    if logits.shape[:-1] != call.targets.shape:
        return None
    auxiliary = auxiliary_loss(base, call.outputs)
    extra = 0.0 if auxiliary is None else float(auxiliary)
    targets = call.targets.to(logits.device)
    shifts = (True, False) if call.shift_labels is None else (False,)
    values = {s: float(emo_loss(logits, targets, None, ce_options(s, ignore_index))) + extra for s in shifts}
    mean = float(own.float().mean())
    if np.isnan([mean, *values.values()]).any():
        return None
    return LossComparison(mean, values, extra, tolerance(logits.dtype == torch.float32))


def call_with_labels(
    model: Any,
    base: Any,
    batch: LabeledBatch,
    virtual_tokens: int,
    ignore_index: int,
    *,
    random_logits: bool = False,
    quiet: bool = False,
    max_logits: int = MAX_LOGITS,
) -> OwnLossCall | None:
    """Call a model with labels, without gradient. For a large batch, its head sees a part of one row.

    Args:
        model, base: the model to call, with all wrappers, and the model without wrappers.
        batch: the batch.
        virtual_tokens: the number of virtual tokens before each row.
        ignore_index: the label that is ignored.
        random_logits: replace the head's output with random numbers.
        quiet: log errors of the model at debug level.
        max_logits: a batch with more logits is large.

    Returns:
        None if the model raises an error, does not return a dict, or the batch is too large.
    """
    head_inputs: list[Tensor] = []
    labels, shift_labels, head = batch.labels, batch.shift_labels, output_module(base)
    rows, positions = _window(labels, head, max_logits, ignore_index)
    if rows != slice(None):
        if head is None or virtual_tokens:
            _LOG.warning("the batch is too large to compare this loss with %s's own", type(base).__name__)
            return None
        labels = labels[rows, positions]
        shift_labels = None if shift_labels is None else shift_labels[rows, positions]

    def keep_window(hidden: Tensor) -> Tensor:
        head_inputs.append(hidden[rows, positions] if hidden.ndim == 3 else hidden)
        return head_inputs[-1]

    inputs = {**batch.inputs, "labels": labels, **({} if shift_labels is None else {"shift_labels": shift_labels})}
    try:
        with ExitStack() as stack:
            stack.enter_context(preserved_state(base))
            stack.enter_context(torch.no_grad())
            if head is not None:
                stack.enter_context(replaced_input(head, keep_window))
                if random_logits:
                    stack.callback(head.register_forward_hook(_random_output).remove)
            outputs = model(**inputs)
    except (torch.OutOfMemoryError, UsageError):
        raise
    except MODEL_ERRORS as error:
        level = logging.DEBUG if quiet else logging.WARNING
        _LOG.log(level, "%s raises %s (%s) in its own loss of the first batch, so this loss is not compared with it",
                 type(base).__name__, type(error).__name__, error)  # fmt: skip
        return None
    if not isinstance(outputs, dict):
        return None
    labels = nn.functional.pad(labels, (virtual_tokens, 0), value=ignore_index)
    return OwnLossCall(outputs, labels, shift_labels, head_inputs[0] if len(head_inputs) == 1 else None)


def _window(labels: Tensor, head: Any, max_logits: int, ignore_index: int) -> tuple[slice, slice]:
    """The rows and positions that the head sees: all, or a part of one row of a large batch."""
    width = getattr(getattr(head, "weight", None), "shape", [_UNKNOWN_WIDTH])[0]
    if labels.numel() * width <= max_logits:
        return slice(None), slice(None)
    return densest_window(labels, max(2, max_logits // width), ignore_index)


def densest_window(labels: Tensor, length: int, ignore_index: int) -> tuple[slice, slice]:
    """The row with the most labels, and the `length` positions in it with the most labels."""
    counted = (labels != ignore_index).long()
    row = int(counted.sum(dim=1).argmax())
    sums = nn.functional.pad(counted[row].cumsum(0), (1, 0))
    length = min(length, labels.shape[1])
    start = int((sums[length:] - sums[: len(sums) - length]).argmax())
    return slice(row, row + 1), slice(start, start + length)


def _random_output(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """A forward hook that replaces a module's output with random numbers, so that no two positions are the same."""
    if not isinstance(output, Tensor):
        return output
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.device, output.dtype)
