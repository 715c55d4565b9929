"""A loss as one operation in a graph of torch.compile.

The compiler sees the shapes and types of an operation, and not what is in it: the graph of a training step has no
break. Loss and gradients are computed together, as they are without a compiler. Costs and options are those of a
module, which the graph knows by its number. Soft targets, and a loss for each token, break the graph instead.
"""

from typing import Any

import torch
from torch import Tensor

from costbank.loss.engine.result import accumulation_dtype, weight_gradient_dtype
from costbank.loss.module_numbers import module_of

__all__ = ["compiled_loss"]


def compiled_loss(
    number: int, inputs: Tensor, weight: Tensor | None, labels: Tensor, bias: Tensor | None,
    token_weights: Tensor | None, step: int | None,
) -> Tensor:  # fmt: skip
    """The loss of the module with this number: of logits, or of hidden states if there is a weight."""
    device, grad = inputs.device.type, torch.is_grad_enabled()
    # The type of autocast holds for matrix products, and not for float64.
    is_cast = weight is not None and torch.is_autocast_enabled(device) and inputs.dtype != torch.float64
    products = torch.get_autocast_dtype(device) if is_cast else None
    wanted = [grad and tensor is not None and tensor.requires_grad for tensor in (inputs, weight, bias)]
    return _loss(inputs, weight, labels, bias, token_weights, number, step, products, wanted)[0]


@torch.library.custom_op("costbank::loss", mutates_args=())
def _loss(
    inputs: Tensor, weight: Tensor | None, labels: Tensor, bias: Tensor | None, token_weights: Tensor | None,
    number: int, step: int | None, products: torch.dtype | None, wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss; a factor of its gradients; and these, of inputs, weight and bias; empty ones if they are not wanted."""
    with torch.autocast(inputs.device.type, products, enabled=products is not None):
        loss, factor, gradients = module_of(number).loss_and_gradients(
            inputs, weight, labels, bias, token_weights, step, tuple(wanted)
        )
    return (loss, factor, *(inputs.new_empty(0) if gradient is None else gradient for gradient in gradients))  # pyright: ignore[reportReturnType] -- there are three


@_loss.register_fake
def _(
    inputs: Tensor, weight: Tensor | None, labels: Tensor, bias: Tensor | None, token_weights: Tensor | None,
    number: int, step: int | None, products: torch.dtype | None, wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    del labels, token_weights, step
    options = module_of(number).options
    sums = accumulation_dtype(products or inputs.dtype, options)
    of_weight = sums if weight is None else weight_gradient_dtype(weight.dtype, sums, options)
    types = (inputs.dtype, of_weight, sums)
    gradients = [
        tensor.new_empty(tensor.shape, dtype=dtype) if needed and tensor is not None else inputs.new_empty(0)
        for tensor, needed, dtype in zip((inputs, weight, bias), wanted, types, strict=True)
    ]
    return (inputs.new_empty((), dtype=sums), inputs.new_empty((), dtype=sums), *gradients)  # pyright: ignore[reportReturnType] -- there are three


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.wanted = inputs[-1]
    ctx.types = [None if tensor is None else tensor.dtype for tensor in (inputs[0], inputs[1], inputs[3])]


def _backward(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
    factor, *gradients = ctx.saved_tensors
    # A gradient scaler's factor, and gradients without it, may exceed the range of float16.
    scale = factor * incoming[0]
    of_inputs, of_weight, of_bias = (
        (gradient * scale.reshape([1] * gradient.ndim)).to(dtype) if needed else None
        for gradient, needed, dtype in zip(gradients, ctx.wanted, ctx.types, strict=True)
    )
    return of_inputs, of_weight, None, of_bias, None, None, None, None, None


_loss.register_autograd(_backward, setup_context=_save)
