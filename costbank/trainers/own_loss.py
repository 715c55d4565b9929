"""Compare a model's own loss of a batch with cross-entropy as this library computes it: shift, masks, extra terms."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import linear_emo_loss
from costbank.trainers.adapters import unwrap_peft, virtual_token_count
from costbank.trainers.auxiliary_loss import loss_coefficients
from costbank.trainers.heads import ModelHead, output_module, replaced_input
from costbank.trainers.labeled_batch import LabeledBatch
from costbank.trainers.logit_transform import LogitTransform
from costbank.trainers.own_loss_call import (
    MAX_LOGITS,
    MODEL_ERRORS,
    OwnLossCall,
    call_with_labels,
    ce_options,
    compare_losses,
    densest_window,
    preserved_state,
    tolerance,
)

__all__ = ["OwnLossFacts", "compare_own_loss"]

# The error of a 16-bit product, as a multiple of the tolerance for a loss.
_HALF_PRODUCT_FACTOR = 3


@dataclass(frozen=True)
class OwnLossFacts:
    """What a batch has shown about a model's own loss.

    Attributes:
        shift: whether position i predicts label i + 1. None if the batch does not show it: all logits are equal, its
            labels are already shifted, or the model has no loss.
        auxiliary: the auxiliary losses that the model added to its cross-entropy.
    """

    shift: bool | None = None
    auxiliary: float = 0.0


def compare_own_loss(
    model: Any,
    unwrapped: Any,
    batch: LabeledBatch,
    linear: tuple[ModelHead, LogitTransform] | None,
    *,
    ignore_index: int,
    max_logits: int = MAX_LOGITS,
) -> OwnLossFacts:
    """Compare a model's own loss of a batch with the cross-entropy of its logits, and with that of the linear form.

    The model is called once, with labels and without gradient; twice if its logits are all (nearly) equal.

    Args:
        model: the model to call, with all wrappers.
        unwrapped: the model, with or without PEFT's wrapper.
        batch: the batch.
        linear: the head and the transform of its output, if the linear form is used.
        ignore_index: the label that is ignored.
        max_logits: of a batch with more logits, only a part of one row is compared.

    Raises:
        UsageError: the losses differ, with shifted labels and without; the message has the numbers.
    """
    base, virtual = unwrap_peft(unwrapped), virtual_token_count(unwrapped)
    call = call_with_labels(model, base, batch, virtual, ignore_index, max_logits=max_logits)
    if call is None:
        return OwnLossFacts()
    losses = compare_losses(base, call, ignore_index)
    if batch.collated_inputs is not None:
        _check_decoder_inputs(model, base, batch, call, ignore_index)
    if losses is None:
        return OwnLossFacts()
    if losses.is_ambiguous():
        # An untrained model can have nearly equal logits. Random logits show the shift.
        random_call = call_with_labels(
            model, base, batch, virtual, ignore_index, random_logits=True, max_logits=max_logits
        )
        losses = (None if random_call is None else compare_losses(base, random_call, ignore_index)) or losses
    if losses.is_ambiguous():
        return OwnLossFacts()
    if not losses.matching_shifts():
        raise _mismatch(base, losses.own, losses.cross_entropy, losses.auxiliary)
    (shift,) = losses.matching_shifts()
    if linear is not None and call.hidden is not None:
        own = float(call.outputs["loss"].float().mean()) - losses.auxiliary
        _check_linear_form(*linear, call.hidden, call.targets, own, shift, ignore_index)
    return OwnLossFacts(shift if call.shift_labels is None else None, losses.auxiliary)


def _check_decoder_inputs(model: Any, base: Any, batch: LabeledBatch, call: OwnLossCall, ignore_index: int) -> None:
    """Check the decoder inputs made by `with_decoder_inputs`: with the model's own, the head must get the same input.

    Raises:
        UsageError: the head's input differs at positions that have labels.
    """
    head, head_inputs = output_module(base), []
    if head is None or batch.collated_inputs is None or call.hidden is None:
        return

    def keep_last(hidden: Tensor) -> Tensor:
        head_inputs.append(hidden)
        # One position suffices. The model's loss may then raise an error, but it is not used.
        return hidden[..., -1:, :]

    with suppress(*MODEL_ERRORS), ExitStack() as stack:
        stack.enter_context(preserved_state(base))
        stack.enter_context(torch.no_grad())
        stack.enter_context(replaced_input(head, keep_last))
        model(**{**batch.collated_inputs, "labels": batch.labels})
    if len(head_inputs) != 1 or head_inputs[0].shape[:-1] != batch.labels.shape:
        return
    ours, labels, own = call.hidden, call.labels, head_inputs[0]
    if ours.shape != own.shape:
        rows, positions = densest_window(batch.labels, ours.shape[1], ignore_index)
        own = own[rows, positions]
    if ours.shape != own.shape or ours.shape[:-1] != labels.shape:
        return
    counted = (labels != ignore_index).to(own.device)
    ours, own = ours[counted].float(), own[counted].float()
    if not own.numel():
        return
    bound = _product_tolerance(call.hidden.dtype == torch.float32)
    if float((ours - own).abs().max()) > bound * max(1.0, float(own.abs().max())):
        raise UsageError(
            f"{type(base).__name__} makes other decoder inputs from labels than this loss does",
            "use a data collator that makes decoder_input_ids, and decoder_attention_mask if the model takes it; to "
            "train anyway, give emo_check_loss=False",
        )


def _check_linear_form(
    head: ModelHead,
    transform: LogitTransform,
    hidden: Tensor,
    labels: Tensor,
    own: float,
    shift: bool,
    ignore_index: int,
) -> None:
    """Check that the linear form computes the model's own loss.

    Raises:
        UsageError: it differs.
    """
    weight = transform.weight(head.linear)
    options = transform.options(ce_options(shift, ignore_index))
    with torch.no_grad():
        loss = linear_emo_loss(
            hidden.to(weight.device, weight.dtype),
            weight,
            labels.to(weight.device),
            None,
            options,
            bias=transform.bias(head.linear),
        )
    bound = _product_tolerance(hidden.dtype == weight.dtype == torch.float32)
    if abs(float(loss) - own) > bound * max(1.0, abs(own)):
        raise _mismatch(head.model, own, {shift: float(loss)}, 0.0)


def _product_tolerance(exact: bool) -> float:
    return tolerance(True) if exact else _HALF_PRODUCT_FACTOR * tolerance(False)


def _mismatch(model: Any, own: float, cross_entropy: dict[bool, float], auxiliary: float) -> UsageError:
    values = "; ".join(f"{v:.5g} with labels {'' if shift else 'not '}shifted" for shift, v in cross_entropy.items())
    added = f", including auxiliary losses of {auxiliary:.3g}" if auxiliary else ""
    settings = ", ".join(f"{key}={value}" for key, value in loss_coefficients(model).items())
    return UsageError(
        f"{type(model).__name__}'s own loss of the first batch is {own:.5g}, and cross-entropy as this loss computes "
        f"it is {values}{added}",
        "the model's loss is more than the cross-entropy of its logits"
        + (f" (its config has {settings}: set the extra terms to 0)" if settings else "")
        + "; to train with this loss anyway, without those terms, give emo_check_loss=False",
    )
