"""The EMO loss of full logits, as one function."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, overload

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.errors import ShapeError
from costbank.loss.arguments import Tokens, check_costs, check_devices, check_finite, check_plain, lay_out
from costbank.loss.columns import Columns
from costbank.loss.costs import Costs
from costbank.loss.eager import eager
from costbank.loss.mistakes import check_kinds, refuse_classes_second
from costbank.loss.options import EMOOptions
from costbank.loss.rows import BlockPlan, EMOParts, Workspace, block_losses
from costbank.loss.soft import SoftTargets, check_soft

__all__ = ["EMOResult", "PartColumns", "accumulation_dtype", "check_logits", "emo_loss", "logit_losses"]


class EMOResult(NamedTuple):
    """A loss, reduced as the options say, and its parts for each token."""

    loss: Tensor
    parts: EMOParts


@overload
def emo_loss(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[False] = False,
    entropy: bool = ...,
) -> Tensor: ...
@overload
def emo_loss(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[True],
    entropy: bool = ...,
) -> EMOResult: ...
@eager
def emo_loss(
    logits: Tensor,
    labels: Tensor | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    token_weights: Tensor | None = None,
    step: int | None = None,
    parts: bool = False,
    entropy: bool = False,
) -> Tensor | EMOResult:
    """The loss that `options` describe, of logits for labels or soft targets.

    Rows are taken in blocks, and the gradient is computed with the values; so beside the logits' own gradient a block's
    rows are held and nothing more. Sums are in float32 whatever the dtype of the logits. −inf logits mask tokens, as in
    cross-entropy. A batch whose tokens are all ignored has loss 0, and a gradient of zeros.

    Args:
        logits: [..., vocab], any floating-point dtype.
        labels: [...], token ids or `options.ignore_index`; or distributions of tokens, as `SoftTargets`.
        costs: of as many tokens as the logits have, on their device; None for objectives without costs.
        options: how the loss is put together.
        token_weights: [...], factors of the tokens' losses, without gradient; with `shift`, that of the label at the
            same place. The mean is then over weights, and a token of weight 0 is ignored, whatever its logits hold.
        step: of training, counted from 0, where `options.weight` follows a schedule.
        parts: also return what it is made of.
        entropy: of each token's probabilities, among the parts; without parts it changes nothing.

    Returns:
        The loss in float32 (float64 for such logits): a scalar, or [...] for `reduction="none"`. With `shift` a
        position's loss is that of the next label, and the last one's is 0.

    Raises:
        ShapeError: shapes or widths that do not fit.
        UsageError: labels that are not integers or out of range, NaN logits (both found asynchronously on an
            accelerator), tensors on several devices, or options that do not go with the costs.
    """
    check_kinds(costs, logits=logits, labels=labels, token_weights=token_weights)
    check_plain(logits=logits)
    check_logits(logits)
    refuse_classes_second(logits, labels)
    options = options.at(step)
    width = logits.shape[-1]
    check_costs(costs, width, options)
    if isinstance(labels, SoftTargets):
        check_soft(labels, logits.shape[:-1], width, costs, options)
    check_devices(costs, options, logits=logits, labels=labels, token_weights=token_weights)
    plan = BlockPlan(
        costs, options, Columns(0, width, width), with_gradient=False, with_parts=parts, with_entropy=entropy
    )
    return logit_losses(logits, labels, token_weights, width, plan)


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


def logit_losses(
    logits: Tensor, labels: Tensor | SoftTargets, token_weights: Tensor | None, vocab: int, plan: BlockPlan
) -> Tensor | EMOResult:
    """The loss of checked arguments, over a whole vocabulary of `vocab` or, as `plan.columns` says, a slice of it."""
    options, width = plan.options, logits.shape[-1]
    dtype = accumulation_dtype(logits.dtype, options)
    compact = logits.device.type == "cpu"
    tokens = lay_out(labels, logits.shape[:-1], vocab, options, token_weights, dtype, plan.costs, compact)
    plan = replace(plan, with_gradient=torch.is_grad_enabled() and logits.requires_grad)
    losses, *columns = _RowLosses.apply(logits.reshape(-1, width), tokens, plan, dtype)
    check_finite(losses, options, "logits or token weights hold NaN or inf, or a row of logits nothing finite")
    if tokens.scale is not None:
        losses = losses * tokens.scale
    if options.reduction == "none":
        loss = losses.reshape(logits.shape[:-1])
    else:
        loss = losses.sum() if options.reduction == "sum" else losses.sum() / tokens.denominator
    if plan.with_parts:
        return EMOResult(loss, EMOParts(*(column.reshape(logits.shape[:-1]) for column in columns)))
    return loss


def accumulation_dtype(dtype: torch.dtype, options: EMOOptions) -> torch.dtype:
    """The type of softmax and sums for logits of a type."""
    return torch.promote_types(dtype, torch.float64 if options.accumulate == "float64" else torch.float32)


@dataclass
class PartColumns:
    """Losses and parts of all tokens, filled block by block; 0 where tokens are ignored."""

    losses: Tensor
    parts: list[Tensor]

    @classmethod
    def zeros(cls, count: int, like: Tensor, dtype: torch.dtype, with_parts: bool) -> "PartColumns":
        names = ("loss", *(EMOParts._fields if with_parts else ()))
        losses, *parts = (torch.zeros(count, dtype=dtype, device=like.device) for _ in names)
        return cls(losses, parts)

    def put(self, rows: "slice | Tensor", loss: Tensor, parts: EMOParts | None, tokens: Tokens) -> None:
        kept = tokens.kept[rows]
        weighted = loss if tokens.weights is None else loss * tokens.weights[rows]
        self.losses[rows] = torch.where(kept, weighted, 0.0)
        for column, values in zip(self.parts, parts or (), strict=True):
            column[rows] = torch.where(kept, values, 0.0)


class _RowLosses(torch.autograd.Function):
    """[n] losses of [n, vocab] logits, with their parts."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tokens, plan: BlockPlan, dtype: torch.dtype) -> tuple[Tensor, ...]:
        columns, gradient = _run(logits, tokens, plan, dtype)
        ctx.save_for_backward(logits)
        ctx.gradient, ctx.run = gradient, (tokens, plan, dtype)
        ctx.mark_non_differentiable(*columns.parts)
        return (columns.losses, *columns.parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        (logits,) = ctx.saved_tensors
        # The first backward uses the gradient up in place; another one computes it anew.
        gradient = ctx.gradient if ctx.gradient is not None else _run(logits, *ctx.run)[1]
        ctx.gradient = None
        assert gradient is not None
        # In float32: a gradient scaler's factor alone may be beyond what float16 holds.
        factors = gradients[0][:, None]
        torch.mul(gradient, factors, out=gradient)
        if ctx.run[1].options.reduction == "none":
            # A token whose loss counts for nothing may have an infinite one.
            gradient.masked_fill_(factors == 0, 0.0)
        return gradient, None, None, None


def _run(logits: Tensor, tokens: Tokens, plan: BlockPlan, dtype: torch.dtype) -> tuple[PartColumns, Tensor | None]:
    columns = PartColumns.zeros(len(logits), logits, dtype, plan.with_parts)
    gradient = None
    if plan.with_gradient:
        # Rows that are left out are never written to.
        gradient = torch.empty_like(logits) if tokens.index is None else torch.zeros_like(logits)
    workspace = Workspace(logits.shape[1], logits.device, dtype)
    with torch.autocast(logits.device.type, enabled=False):
        for rows in tokens.blocks():
            inputs = logits[rows]
            scores = workspace.take("scores", len(inputs)).copy_(inputs)
            weights = None if tokens.weights is None else tokens.weights[rows]
            result = block_losses(scores, tokens.labels[rows], weights, plan, workspace)
            columns.put(rows, result.loss, result.parts, tokens)
            if gradient is not None:
                if tokens.index is None:
                    scores.masked_fill_(~tokens.kept[rows, None], 0.0)
                gradient[rows] = scores.to(gradient.dtype)
    return columns, gradient
