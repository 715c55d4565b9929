"""The EMO loss of full logits, as one function."""

from typing import Any, Literal, NamedTuple, overload

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import DenseCosts
from costbank.loss.options import EMOOptions
from costbank.loss.rows import EMOParts, block_loss

__all__ = ["EMOResult", "emo_loss"]

_BLOCK_ROWS = {"cpu": 256}
_BLOCK_ROWS_ELSEWHERE = 2048


class EMOResult(NamedTuple):
    """A loss, reduced as the options say, and its parts for each token."""

    loss: Tensor
    parts: EMOParts


@overload
def emo_loss(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"],
    costs: DenseCosts,
    options: EMOOptions = ...,
    *,
    parts: Literal[False] = False,
) -> Tensor: ...
@overload
def emo_loss(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"],
    costs: DenseCosts,
    options: EMOOptions = ...,
    *,
    parts: Literal[True],
) -> EMOResult: ...
def emo_loss(
    logits: Tensor, labels: Tensor, costs: DenseCosts, options: EMOOptions = EMOOptions(), *, parts: bool = False
) -> Tensor | EMOResult:
    """The EMO loss (arXiv 2310.04691) of logits for hard labels.

    Rows are taken in blocks, and the gradient is computed with the values; so beside the logits' own gradient one
    tensor of their size and dtype is held. Sums are in float32 whatever the dtype of the logits. NaN logits give a
    NaN loss; −inf logits mask tokens, as in cross-entropy. A batch whose tokens are all ignored has loss 0.

    Args:
        logits: [..., vocab], any floating-point dtype.
        labels: [...], token ids or `options.ignore_index`.
        costs: of as many tokens as the logits have, on their device.
        options: how the loss is put together.
        parts: also return what it is made of.

    Returns:
        The loss in float32 (float64 for such logits): a scalar, or [...] for `reduction="none"`.

    Raises:
        ShapeError: shapes or widths that do not fit.
        UsageError: labels that are no integers or out of range (found asynchronously on an accelerator), or costs on
            another device.
    """
    _check(logits, labels, costs, options)
    flat = logits.reshape(-1, logits.shape[-1])
    flat_labels = labels.reshape(-1).long()
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    losses, *flat_parts = _RowLosses.apply(flat, flat_labels, costs, options, with_gradient)
    if options.reduction == "none":
        loss = losses.reshape(labels.shape)
    else:
        loss = losses.sum()
        if options.reduction == "mean":
            loss = loss / (flat_labels != options.ignore_index).sum().clamp_min(1)
    if parts:
        return EMOResult(loss, EMOParts(*(part.reshape(labels.shape) for part in flat_parts)))
    return loss


class _RowLosses(torch.autograd.Function):
    """[n] losses of [n, vocab] logits, with their parts."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, costs: DenseCosts, options: EMOOptions, with_gradient: bool
    ) -> tuple[Tensor, ...]:
        kept = labels != options.ignore_index
        dtype = torch.promote_types(logits.dtype, torch.float32)
        columns = [logits.new_empty(len(labels), dtype=dtype) for _ in range(1 + len(EMOParts._fields))]
        gradient = torch.empty_like(logits) if with_gradient else None
        step = _BLOCK_ROWS.get(logits.device.type, _BLOCK_ROWS_ELSEWHERE)
        with torch.autocast(logits.device.type, enabled=False):
            for start in range(0, len(labels), step):
                block = slice(start, start + step)
                result = block_loss(logits[block], labels[block], kept[block], costs, options, with_gradient)
                for column, values in zip(columns, (result.loss, *result.parts), strict=True):
                    column[block] = values
                if gradient is not None and result.gradient is not None:
                    gradient[block] = result.gradient
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*columns[1:])
        return tuple(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        (gradient,) = ctx.saved_tensors
        # In float32, rounded once: a gradient scaler's factor alone may be beyond what float16 holds.
        scaled = torch.mul(gradient, gradients[0][:, None], out=torch.empty_like(gradient))
        return scaled, None, None, None, None


def _check(logits: Tensor, labels: Tensor, costs: DenseCosts, options: EMOOptions) -> None:
    if logits.ndim < 1 or not logits.is_floating_point():
        raise ShapeError(
            f"logits are {logits.dtype} of shape {list(logits.shape)}", "give floating-point logits [..., vocab]"
        )
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(
            f"logits of shape {list(logits.shape)} with labels of shape {list(labels.shape)}",
            f"give labels of shape {list(logits.shape[:-1])}, one for each row of logits",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(f"labels are {labels.dtype}", "give integer token ids")
    width = logits.shape[-1]
    if width != costs.vocab_size:
        raise ShapeError(
            f"the logits are {width:,} wide, and the costs of {costs.bank} are for {costs.vocab_size:,} tokens",
            f"if the ids agree (a padded head), DenseCosts.from_bank(bank, vocab_size={width}); "
            "else take the bank of this model's tokenizer",
        )
    if logits.device != labels.device or logits.device != costs.vectors.device:
        raise UsageError(
            f"logits are on {logits.device}, labels on {labels.device}, costs on {costs.vectors.device}",
            "move them to one device with .to(device)",
        )
    allowed = ((labels >= 0) & (labels < width)) | (labels == options.ignore_index)
    if labels.device.type != "cpu":
        # The one check that does not wait for the device; PyTorch has no public name for it.
        torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
            allowed.all(), f"a label is neither below {width} nor {options.ignore_index}"
        )
    elif not allowed.all():
        wrong = labels[~allowed][0].item()
        raise UsageError(
            f"label {wrong} is neither a token id below {width:,} nor ignore_index={options.ignore_index}",
            "give the ids of this bank's tokenizer, or the ignore_index that your data uses",
        )
