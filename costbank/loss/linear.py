"""The EMO loss of hidden states and a head's weight, which never holds the logits of all tokens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.errors import ShapeError, UsageError
from costbank.loss.arguments import Tokens, check_costs, check_devices, check_finite, check_plain, lay_out, scaled
from costbank.loss.columns import Columns
from costbank.loss.costs import Costs
from costbank.loss.eager import eager
from costbank.loss.functional import EMOResult, PartColumns, accumulation_dtype
from costbank.loss.mistakes import check_kinds, refuse_other_shapes
from costbank.loss.options import EMOOptions
from costbank.loss.products import add_product_, product_
from costbank.loss.rows import BlockPlan, EMOParts, Workspace, block_losses
from costbank.loss.soft import SoftTargets, check_soft

__all__ = ["check_linear", "linear_emo_loss", "linear_losses"]


@overload
def linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    bias: Float[Tensor, "vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[False] = False,
    entropy: bool = ...,
) -> Tensor: ...
@overload
def linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    bias: Float[Tensor, "vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[True],
    entropy: bool = ...,
) -> EMOResult: ...
@eager
def linear_emo_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    bias: Tensor | None = None,
    token_weights: Tensor | None = None,
    step: int | None = None,
    parts: bool = False,
    entropy: bool = False,
) -> Tensor | EMOResult:
    """`emo_loss` of the logits hidden · weightᵀ + bias, which are made and used a block of tokens at a time.

    Gradients are computed with the values, and that of the weight is summed in float32; so beside the gradients
    themselves a few blocks of `options.chunk_rows` × vocab are held. Ignored tokens are left out before anything else,
    for which an accelerator is waited for once. With `reduction="none"` the backward pass computes the blocks again,
    since each token's gradient has a factor of its own then; so does a second backward pass.

    Args:
        hidden: [..., dim], the head's inputs, in any floating-point dtype. Under autocast products are in its dtype.
        weight: [vocab, dim], as `torch.nn.Linear` has it.
        labels: [...], token ids or `options.ignore_index`; or distributions of tokens, as `SoftTargets`.
        costs: of as many tokens as the head has rows, on its device; None for objectives without costs.
        options: how the loss is put together.
        bias: [vocab].
        token_weights: see `emo_loss`.
        step: see `emo_loss`.
        parts: also return what it is made of.
        entropy: of each token's probabilities, among the parts; without parts it changes nothing.

    Returns:
        The loss, as `emo_loss` returns it.

    Raises:
        ShapeError: shapes or widths that do not fit.
        UsageError: see `emo_loss`; also a weight whose rows are shared out over processes.
    """
    check_kinds(costs, hidden=hidden, weight=weight, labels=labels, bias=bias, token_weights=token_weights)
    check_plain(hidden=hidden, weight=weight, bias=bias)
    refuse_other_shapes(hidden, weight, costs, labels)
    check_linear(hidden, weight, bias)
    width = len(weight)
    options = options.at(step)
    check_costs(costs, width, options)
    if isinstance(labels, SoftTargets):
        check_soft(labels, hidden.shape[:-1], width, costs, options)
    check_devices(costs, options, hidden=hidden, weight=weight, bias=bias, labels=labels, token_weights=token_weights)
    plan = BlockPlan(
        costs, options, Columns(0, width, width), with_gradient=False, with_parts=parts, with_entropy=entropy
    )
    return linear_losses(hidden, weight, bias, labels, token_weights, width, plan)


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


def linear_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor | SoftTargets,
    token_weights: Tensor | None,
    vocab: int,
    plan: BlockPlan,
    reduce_hidden: Callable[[Tensor], None] | None = None,
) -> Tensor | EMOResult:
    """The loss of checked arguments, over a whole vocabulary or, as `plan.columns` says, a slice of it.

    Args:
        vocab: number of tokens of the whole vocabulary.
        reduce_hidden: sums the gradient of the hidden states over processes, in place.
    """
    options, place = plan.options, hidden.device.type
    # As torch.nn.Linear would: products in autocast's type, everything else in float32.
    cast = torch.is_autocast_enabled(place) and hidden.dtype != torch.float64
    products = torch.get_autocast_dtype(place) if cast else hidden.dtype
    dtype = accumulation_dtype(products, options)
    shape = hidden.shape[:-1]
    tokens = lay_out(labels, shape, vocab, options, token_weights, dtype, plan.costs, compact=True)
    call = _Call(tokens, plan, products, dtype, torch.is_grad_enabled(), reduce_hidden)
    loss, *columns = _LinearLosses.apply(hidden.reshape(-1, hidden.shape[-1]), weight, bias, call)
    check_finite(
        loss, options, "hidden states, the head's weight or token weights hold NaN or inf, or their products do"
    )
    if tokens.scale is not None:
        loss = loss * tokens.scale
    if options.reduction == "none":
        loss = loss.reshape(shape)
    elif options.reduction == "mean":
        loss = loss / tokens.denominator
    if plan.with_parts:
        return EMOResult(loss, EMOParts(*(column.reshape(shape) for column in columns)))
    return loss


@dataclass(frozen=True)
class _Call:
    """Everything of a call that is not an input to autograd.

    Attributes:
        products: type of the factors of matrix products.
        sums: type of everything else.
        graded: whether gradients may be asked for at all.
    """

    tokens: Tokens
    plan: BlockPlan
    products: torch.dtype
    sums: torch.dtype
    graded: bool
    reduce_hidden: Callable[[Tensor], None] | None


@dataclass
class _Gradients:
    """Of the sum of weighted losses, None where not asked for; those of weight and bias in the type of sums."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def times(self, factor: Tensor | None, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple:
        """Each times a scalar, in place, in the type of what it is the gradient of."""
        grads = (self.hidden, self.weight, self.bias)
        if factor is not None:
            for grad in grads:
                if grad is not None:
                    torch.mul(grad, factor, out=grad)
        return tuple(
            None if grad is None or of is None else grad.to(of.dtype)
            for grad, of in zip(grads, (hidden, weight, bias), strict=True)
        )


class _LinearLosses(torch.autograd.Function):
    """The sum of the weighted losses, or with `reduction="none"` all of them, and their parts."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> tuple[Tensor, ...]:
        wanted = tuple(call.graded and needed for needed in ctx.needs_input_grad[:3])
        summed = call.plan.options.reduction != "none"
        columns, gradients = _run(
            hidden, weight, bias, call, call.tokens.weights, wanted if summed else (False,) * 3, call.plan.with_parts
        )
        ctx.save_for_backward(hidden, weight, bias)
        ctx.call, ctx.wanted, ctx.gradients = call, wanted, gradients if summed else None
        ctx.mark_non_differentiable(*columns.parts)
        return (columns.losses.sum() if summed else columns.losses, *columns.parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        hidden, weight, bias = ctx.saved_tensors
        call, factor, gradients = ctx.call, incoming[0], ctx.gradients
        ctx.gradients = None
        weights = call.tokens.weights
        if factor.ndim:
            # Each token's gradient has its own factor: a weight's gradient that is summed already cannot take them.
            weights, factor = scaled(factor if weights is None else factor * weights)
        # What the forward pass computed is used up in place; another backward pass computes it anew.
        if gradients is None:
            _, gradients = _run(hidden, weight, bias, call, weights, ctx.wanted, with_parts=False)
        if call.reduce_hidden is not None and gradients.hidden is not None:
            call.reduce_hidden(gradients.hidden)
        return (*gradients.times(factor, hidden, weight, bias), None)


def _run(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    call: _Call,
    weights: Tensor | None,
    wanted: tuple[bool, ...],
    with_parts: bool,
) -> tuple[PartColumns, _Gradients]:
    tokens, plan = call.tokens, replace(call.plan, with_gradient=any(wanted), with_parts=with_parts)
    columns = PartColumns.zeros(len(hidden), hidden, call.sums, with_parts)
    to_hidden, to_weight, to_bias = wanted
    gradients = _Gradients(
        (torch.empty_like if tokens.index is None else torch.zeros_like)(hidden) if to_hidden else None,
        torch.zeros(weight.shape, dtype=call.sums, device=weight.device) if to_weight else None,
        torch.zeros(len(weight), dtype=call.sums, device=weight.device) if to_bias else None,
    )
    workspace = Workspace(len(weight), hidden.device, call.sums)
    with torch.autocast(hidden.device.type, enabled=False):
        factor = weight.to(call.products)
        for rows in tokens.blocks():
            inputs = hidden[rows].to(call.products)
            scores = workspace.take("scores", len(inputs))
            product_(inputs, factor.T, scores)
            if bias is not None:
                scores.add_(bias)
            of_block = None if weights is None else weights[rows]
            result = block_losses(scores, tokens.labels[rows], of_block, plan, workspace)
            columns.put(rows, result.loss, result.parts, tokens)
            if gradients.hidden is not None:
                gradients.hidden[rows] = torch.mm(scores.to(call.products), factor).to(hidden.dtype)
            if gradients.weight is not None:
                add_product_(gradients.weight, scores, inputs)
            if gradients.bias is not None:
                gradients.bias += scores.sum(dim=0)
    return columns, gradients
