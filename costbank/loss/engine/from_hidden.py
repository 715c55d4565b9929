"""Losses of hidden states and a head's weight: logits are computed and turned into gradients block by block.

    hidden [n, dim] ─ · weightᵀ + bias ─▶ logits [n, columns] ─ block_losses ─▶ losses, and G in the logits' buffer
                      G · weight ─▶ gradient of hidden       Gᵀ · hidden ─▶ added to the gradient of weight

G is the gradient of the logits. The logits of all tokens are never in memory at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.loss.costs.products import add_product_, product_
from costbank.loss.engine.blocks import block_losses
from costbank.loss.engine.call import Call, scaled
from costbank.loss.engine.outcome import BlockPlan
from costbank.loss.engine.result import TokenColumns, weight_gradient_dtype
from costbank.loss.engine.rounding import add_product_rounded_, add_rounded_
from costbank.loss.engine.workspace import Workspace

__all__ = ["HeadCall", "gradients_of_hidden", "losses_of_hidden"]


@dataclass(frozen=True)
class HeadCall:
    """A checked call with logits that come from hidden states.

    Attributes:
        call: the call for the logits.
        products: the type of the factors of matrix products.
        reduce_hidden: sums the gradient of hidden states over processes, in place; None for one process.
        grad_enabled: whether autograd is enabled.
    """

    call: Call
    products: torch.dtype
    reduce_hidden: Callable[[Tensor], None] | None
    grad_enabled: bool


def losses_of_hidden(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "columns dim"],
    bias: Float[Tensor, "columns"] | None,
    head: HeadCall,
) -> tuple[Float[Tensor, "*tokens"], list[Tensor]]:
    """The sum of weighted losses, or with `reduction="none"` each loss [tokens], and their parts.

    Differentiable once with respect to hidden states, weight and bias. Gradients are computed together with the values,
    except for `reduction="none"`, where the backward pass brings a factor for each token.
    """
    losses, *parts = _HiddenLosses.apply(hidden, weight, bias, head)
    return losses, parts


def gradients_of_hidden(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "columns dim"],
    bias: Float[Tensor, "columns"] | None,
    head: HeadCall,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The reduced loss; a factor of its gradients of hidden states, weight and bias; and these, None if not wanted.

    Gradients of weight and bias have the type of their sums.
    """
    columns, gradients = _run(hidden, weight, bias, head, head.call.tokens.weights, wanted)
    factor = head.call.reduced(columns.losses.new_ones(()))
    return head.call.reduced(columns.losses.sum()), factor, (gradients.hidden, gradients.weight, gradients.bias)


@dataclass
class _Gradients:
    """Gradients of the sum of weighted losses; None if not needed. Those of weight and bias have the type of sums, or
    the weight's, if the options say so.
    """

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(cls, hidden: Tensor, weight: Tensor, call: Call, wanted: tuple[bool, ...]) -> "_Gradients":
        to_hidden, to_weight, to_bias = wanted
        sums = weight_gradient_dtype(weight.dtype, call.dtype, call.plan.options)
        # Rows that are left out are never written.
        like_hidden = torch.empty_like if call.tokens.index is None else torch.zeros_like
        return cls(
            like_hidden(hidden) if to_hidden else None,
            torch.zeros(weight.shape, dtype=sums, device=weight.device) if to_weight else None,
            torch.zeros(len(weight), dtype=call.dtype, device=weight.device) if to_bias else None,
        )

    def add_to_weight_(self, of_logits: Tensor, inputs: Tensor, number: int, plan: BlockPlan) -> None:
        """Add a block's part of the gradient of the weight; `number` is that of the block."""
        assert self.weight is not None
        if self.weight.dtype == torch.bfloat16 and plan.options.weight_gradient == "stochastic":
            add: Callable[[Tensor, Tensor, int, int], None] = add_rounded_
            if plan.kernels:
                from costbank.loss.engine.kernels.rounding import launch as add

            add_product_rounded_(self.weight, of_logits, inputs, number, add)
        else:
            add_product_(self.weight, of_logits, inputs)

    def times(self, factor: Tensor, inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """Each gradient times a scalar, in the type of its input; in place if it has that type."""
        grads = (self.hidden, self.weight, self.bias)
        return tuple(
            None if grad is None or of is None else _times(grad, factor, of.dtype)
            for grad, of in zip(grads, inputs, strict=True)
        )


def _times(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """One pass over the gradient; the factor may exceed the range of float16."""
    out = gradient if gradient.dtype == dtype else torch.empty_like(gradient, dtype=dtype)
    return torch.mul(gradient, factor.reshape([1] * gradient.ndim), out=out)


class _HiddenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: HeadCall) -> tuple[Tensor, ...]:
        wanted = tuple(head.grad_enabled and needed for needed in ctx.needs_input_grad[:3])
        summed = head.call.plan.options.reduction != "none"
        columns, gradients = _run(
            hidden, weight, bias, head, head.call.tokens.weights, wanted if summed else (False, False, False)
        )
        ctx.save_for_backward(hidden, weight, bias)
        ctx.head, ctx.wanted, ctx.gradients = head, wanted, gradients if summed else None
        ctx.mark_non_differentiable(*columns.parts)
        return (columns.losses.sum() if summed else columns.losses, *columns.parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        hidden, weight, bias = ctx.saved_tensors
        head, factor, gradients = ctx.head, incoming[0], ctx.gradients
        ctx.gradients = None
        weights = head.call.tokens.weights
        if factor.ndim:
            # Each token's gradient has its own factor, which cannot be applied to the summed gradient of the weight.
            weights, factor = scaled(factor if weights is None else factor * weights)
        # The first backward pass overwrites the gradients; another one computes them again.
        if gradients is None:
            plan = replace(head.call.plan, with_parts=False)
            without_parts = replace(head, call=replace(head.call, plan=plan))
            _, gradients = _run(hidden, weight, bias, without_parts, weights, ctx.wanted)
        if head.reduce_hidden is not None and gradients.hidden is not None:
            head.reduce_hidden(gradients.hidden)
        return (*gradients.times(factor, (hidden, weight, bias)), None)


def _run(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    head: HeadCall,
    weights: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[TokenColumns, _Gradients]:
    """Compute all blocks, and the gradients of hidden states, weight and bias that are needed."""
    call, tokens = head.call, head.call.tokens
    plan = replace(call.plan, with_gradient=any(wanted))
    columns = TokenColumns.zeros(len(hidden), hidden, call.dtype, plan.with_parts)
    gradients = _Gradients.zeros(hidden, weight, call, wanted)
    workspace = Workspace(len(weight), hidden.device, call.dtype, plan.kernels)
    with torch.autocast(hidden.device.type, enabled=False):
        factor = weight.to(head.products)
        for number, rows in enumerate(tokens.blocks()):
            inputs, kept = hidden[rows].to(head.products), tokens.kept[rows]
            if not tokens.all_kept:
                # Zeros, because NaN in an ignored row would reach the gradient of the weight.
                inputs = inputs.masked_fill(~kept[:, None], 0.0)
            logits = _logits(inputs, factor, bias, plan, workspace)
            of_block = None if weights is None else weights[rows]
            labels, written = tokens.labels[rows], None if tokens.all_kept else kept
            if plan.kernels:
                from costbank.loss.engine.kernels.blocks import kernel_losses

                result = kernel_losses(logits, labels, of_block, written, plan, workspace)
            else:
                result = block_losses(logits, labels, of_block, plan, workspace)
                if written is not None and plan.with_gradient:
                    logits.masked_fill_(~kept[:, None], 0.0)
            columns.put(rows, result.loss, result.parts, kept, of_block)
            if gradients.hidden is not None:
                gradients.hidden[rows] = torch.mm(logits.to(head.products), factor).to(hidden.dtype)
            if gradients.weight is not None:
                gradients.add_to_weight_(logits, inputs, number, plan)
            if gradients.bias is not None:
                gradients.bias += logits.sum(dim=0, dtype=call.dtype)
    return columns, gradients


def _logits(
    inputs: Float[Tensor, "n dim"],
    weight: Float[Tensor, "columns dim"],
    bias: Float[Tensor, "columns"] | None,
    plan: BlockPlan,
    workspace: Workspace,
) -> Float[Tensor, "n columns"]:
    """Logits of a block: for kernels in the type of the products, as in `torch.nn.Linear`, else in that of sums."""
    if plan.kernels:
        logits = workspace.take("logits", len(inputs), inputs.dtype)
        if bias is None:
            return torch.mm(inputs, weight.T, out=logits)
        return torch.addmm(bias.to(inputs.dtype), inputs, weight.T, out=logits)
    logits = workspace.take("logits", len(inputs))
    product_(inputs, weight.T, logits)
    return logits if bias is None else logits.add_(bias)
