"""Losses of full logits, computed block by block, each with its gradient."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.loss.engine.blocks import block_losses
from costbank.loss.engine.call import Call
from costbank.loss.engine.outcome import BlockResult
from costbank.loss.engine.result import TokenColumns
from costbank.loss.engine.workspace import Workspace

__all__ = ["gradient_of_logits", "losses_of_logits"]


def losses_of_logits(
    logits: Float[Tensor, "tokens columns"], call: Call
) -> tuple[Float[Tensor, "tokens"], list[Tensor]]:
    """Weighted losses, 0 for ignored tokens, and their parts. Differentiable once with respect to the logits."""
    plan = replace(call.plan, with_gradient=torch.is_grad_enabled() and logits.requires_grad)
    losses, *parts = _LogitLosses.apply(logits, replace(call, plan=plan))
    return losses, parts


def gradient_of_logits(
    logits: Float[Tensor, "tokens columns"], call: Call, wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The reduced loss; a factor of its gradient of the logits; and that gradient, None if not wanted."""
    columns, gradient = _run(logits, replace(call, plan=replace(call.plan, with_gradient=wanted)))
    return call.reduced(columns.losses.sum()), call.reduced(columns.losses.new_ones(())), gradient


class _LogitLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, call: Call) -> tuple[Tensor, ...]:
        columns, gradient = _run(logits, call)
        ctx.save_for_backward(logits)
        ctx.gradient, ctx.call = gradient, call
        ctx.mark_non_differentiable(*columns.parts)
        return (columns.losses, *columns.parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        (logits,) = ctx.saved_tensors
        # The first backward pass overwrites the gradient; another one computes it again.
        gradient = ctx.gradient if ctx.gradient is not None else _run(logits, ctx.call)[1]
        ctx.gradient = None
        assert gradient is not None
        # In float32, because a gradient scaler's factor alone may exceed float16.
        factors = gradients[0][:, None]
        torch.mul(gradient, factors, out=gradient)
        if ctx.call.plan.options.reduction == "none":
            # A token of weight 0 may have an infinite loss.
            gradient.masked_fill_(factors == 0, 0.0)
        return gradient, None


def _run(logits: Tensor, call: Call) -> tuple[TokenColumns, Tensor | None]:
    tokens, plan = call.tokens, call.plan
    columns = TokenColumns.zeros(len(logits), logits, call.dtype, plan.with_parts)
    gradient = None
    if plan.with_gradient:
        # Rows that are left out are never written.
        make = torch.empty if tokens.index is None else torch.zeros
        gradient = make(logits.shape, dtype=logits.dtype, device=logits.device)
    workspace = Workspace(logits.shape[1], logits.device, call.dtype, plan.kernels)
    with torch.autocast(logits.device.type, enabled=False):
        for rows in tokens.blocks():
            weights, kept = tokens.weights_of(rows), tokens.kept[rows]
            if plan.kernels:
                result = _on_kernels(logits[rows], gradient, rows, call, workspace)
            else:
                block = workspace.take("logits", len(kept)).copy_(logits[rows])
                result = block_losses(block, tokens.labels[rows], weights, plan, workspace)
                if gradient is not None:
                    if not tokens.all_kept:
                        block.masked_fill_(~kept[:, None], 0.0)
                    gradient[rows] = block.to(gradient.dtype)
            columns.put(rows, result.loss, result.parts, kept, weights)
    return columns, gradient


def _on_kernels(
    logits: Tensor, gradient: Tensor | None, rows: "slice | Tensor", call: Call, workspace: Workspace
) -> BlockResult:
    """The losses of a block; its gradient is written where it belongs, and the logits are not copied."""
    from costbank.loss.engine.kernels.blocks import kernel_losses

    tokens = call.tokens
    into = None if gradient is None else gradient[rows]
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    return kernel_losses(
        logits, tokens.labels[rows], tokens.weights_of(rows), tokens.kept[rows], call.plan, workspace, into
    )
