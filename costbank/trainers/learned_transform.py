"""A scale or a bias after the head that is trained: its value and its gradient in every step.

Known numbers follow the head's output as more positions. What the model makes of them depends only on the parameters
after the head, so the scale and the bias, computed from those logits, have the model's own gradient.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.heads import FULL_LOGITS
from costbank.trainers.logit_transform import LogitTransform

__all__ = ["check_learned", "learned_parts", "learned_transform"]

# Known outputs that are larger than biases, so that their scale is not rounded away.
_LARGE_OUTPUT = 64.0
# The part of a capped curve that is neither flat nor rounded away.
_CURVE_MIDDLE = (0.02, 0.7)
# Of a factor, relative to its size. Less is the rounding of terms that cancel.
_LEAST_GRADIENT = 1e-6
_FLOAT32_TOLERANCE, _HALF_TOLERANCE = 1e-3, 5e-2


def learned_transform(
    transform: LogitTransform,
    known: Float[Tensor, "three width"],
    logits: Float[Tensor, "three width"],
    *,
    learned: tuple[bool, bool] = (True, True),
) -> LogitTransform:
    """The transform with the scale and the bias that the model computes now, from its logits of the known outputs.

    Args:
        transform: what was measured before, for the softcap and for masked tokens.
        known: `known_outputs`, rounded to the type of the head's output.
        logits: the model's logits of these, with their graph.
        learned: whether the scale is learned, and the bias; otherwise it is what was measured.
    """
    x, y = known[1:, : transform.width], logits[1:] - logits[:1]
    masked = torch.zeros_like(logits[0], dtype=torch.bool)
    if transform.offset is not None:
        masked = transform.offset.isneginf().to(logits.device)
    if transform.softcap is None:
        offset = logits[0].masked_fill(masked, -torch.inf) if learned[1] else transform.offset
        if not learned[0]:
            return replace(transform, offset=offset)
        usable = y.isfinite() & ~masked & (x.abs() >= _LARGE_OUTPUT)
        factor = (y[usable] / x[usable]).mean()
        return LogitTransform(transform.width, offset=offset, factor=factor)
    if not learned[0]:
        return transform
    least, most = _CURVE_MIDDLE
    size = y.detach().abs() / transform.softcap
    usable = (size > least) & (size < most) & ~masked
    factor = (transform.softcap * torch.atanh(y[usable] / transform.softcap) / x[usable]).mean()
    return LogitTransform(transform.width, 1.0, transform.softcap, transform.offset, factor)


def learned_parts(parameters: list[Tensor], transform: LogitTransform) -> tuple[bool, bool]:
    """Whether the factor and the offset of a transform depend on any of the parameters."""

    def depends(value: Tensor, size: float) -> bool:
        least = _LEAST_GRADIENT * size
        return any(float(_gradient(value, p).abs().max()) > least / max(1.0, float(p.abs().max())) for p in parameters)

    factor, offset = transform.factor, transform.offset
    scale = factor is not None and depends(factor, abs(float(factor)))
    return scale, offset is not None and depends(offset.masked_fill(offset.isneginf(), 0.0).sum(), 1.0)


def check_learned(
    name: str,
    parameters: list[Tensor],
    transform: LogitTransform,
    known: Float[Tensor, "three width"],
    logits: Float[Tensor, "three width"],
    *,
    exact: bool,
) -> None:
    """Check that a scale and a bias are all that parameters after the head do: by values, and by gradients.

    Args:
        name: the model's name, for the error.
        parameters: the parameters between the head and the logits.
        transform: the result of `learned_transform`.
        known, logits: see `learned_transform`.
        exact: whether the logits are computed in float32.

    Raises:
        UsageError: the parameters do something else, such as a scale for each token.
    """
    expected, known = transform.apply(known[:, : transform.width]), known[:, : transform.width]
    usable = logits.isfinite() & expected.isfinite()
    # Positive terms cannot cancel, and all tokens count about as much.
    spread = 0.5 + torch.rand(known.shape, generator=torch.Generator().manual_seed(0)).to(known.device)
    factors = spread * torch.where(known < 0, -1.0, 1.0) / (1.0 + known.abs())
    tolerance = _FLOAT32_TOLERANCE if exact else _HALF_TOLERANCE
    scale = (logits.detach() - expected.detach()).abs() / (1.0 + expected.detach().abs())
    # The gradient of a product with two parameters that are 0 is 0.
    same = all(sum(size > 1 for size in parameter.shape) <= 1 for parameter in parameters)
    same = same and float(scale[usable].max()) <= tolerance
    for parameter in parameters:
        own, ours = (
            _gradient((values * factors)[usable].sum(), parameter) for values in (logits.float(), expected.float())
        )
        same = same and float((own - ours).abs().max()) <= tolerance * float(own.abs().max())
    if not same:
        raise UsageError(
            f"{name} applies learned parameters of shape {[list(parameter.shape) for parameter in parameters]} to its "
            "head's output, and not as one scale or one bias",
            FULL_LOGITS,
        )


def _gradient(value: Tensor, parameter: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(parameter, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(value, parameter, retain_graph=True, allow_unused=True)
    return torch.zeros_like(parameter, dtype=torch.float32) if gradient is None else gradient.float()
