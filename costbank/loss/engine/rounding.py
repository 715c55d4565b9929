"""Sums in bfloat16 with stochastic rounding: a sum s between two neighbors a < b in bfloat16 becomes b with the
probability (s − a) / (b − a), so its expected error is 0.

Rounded to the nearest, a small term vanishes each time that it is added to a large sum. With stochastic rounding, the
error of n additions grows as √n instead of n (Connolly, Higham & Mary 2021, doi 10.1137/20M1334796).

The random numbers are a hash of the sum's bits, of its position and of the number of the addition. So there is no
state: two runs give the same bits, and a step that is computed again has the same gradient.
"""

from collections.abc import Callable

import torch
from jaxtyping import BFloat16, Float32
from torch import Tensor

from costbank.loss.costs.products import transposed_product

__all__ = ["BITS_FACTOR", "ENTRY_FACTOR", "HASH", "TERM_FACTOR", "add_product_rounded_", "add_rounded_"]

BITS_FACTOR, ENTRY_FACTOR, TERM_FACTOR = 0x3243F6A9, 0x1E3779B1, 0x05EBCA6B
"""Odd numbers that combine what is hashed."""
HASH = (0x7FEB352D, -0x7B935975)
"""The factors of the 32-bit hash `lowbias32` (Wellons, github.com/skeeto/hash-prospector); the second is 0x846CA68B."""

_PIECE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 26}


def add_product_rounded_(
    total: BFloat16[Tensor, "m k"],
    left: Tensor,
    right: Tensor,
    number: int,
    add: Callable[[Tensor, Tensor, int, int], None],
) -> None:
    """Add leftᵀ · right to a total, with stochastic rounding.

    The product is computed in float32, some rows at a time: 64 MiB on an accelerator, 1 MiB on a CPU.

    Args:
        total: contiguous.
        left: [n, m].
        right: [n, k].
        number: how many products have been added.
        add: `add_rounded_`, or its Triton kernel.
    """
    rows = max(1, _PIECE_BYTES.get(total.device.type, 1 << 26) // (4 * max(1, total.shape[1])))
    for start in range(0, len(total), rows):
        piece = slice(start, start + rows)
        add(total[piece], transposed_product(left[:, piece], right), start * total.shape[1], number)


def add_rounded_(
    total: BFloat16[Tensor, "m k"], terms: Float32[Tensor, "m k"], first: int = 0, number: int = 0
) -> None:
    """Add terms to a total, with stochastic rounding.

    Args:
        total: what the terms are added to.
        terms: overwritten.
        first: the position of the first entry in a larger tensor.
        number: the number of this addition, which changes the random numbers.
    """
    sums = terms.add_(total)
    bits = sums.view(torch.int32)
    # Products and sums of 32-bit integers wrap around.
    noise = torch.arange(sums.numel(), dtype=torch.int32, device=sums.device).view(sums.shape).mul_(ENTRY_FACTOR)
    noise.add_(bits, alpha=BITS_FACTOR).add_(_wrapped(first * ENTRY_FACTOR + number * TERM_FACTOR))
    shifted = torch.empty_like(noise)
    for shift, factor in ((16, HASH[0]), (15, HASH[1])):
        noise.bitwise_xor_(_shifted(noise, shift, shifted)).mul_(factor)
    noise.bitwise_xor_(_shifted(noise, 16, shifted))
    # A bfloat16 is the upper half of a float32. What is added to the lower half carries with the probability of it.
    upper = _shifted(noise, 16, shifted).add_(bits).bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    total.copy_(torch.where(sums.isfinite(), upper, sums))


def _shifted(values: Tensor, count: int, out: Tensor) -> Tensor:
    """int32 shifted to the right, with zeros on the left."""
    return torch.bitwise_right_shift(values, count, out=out).bitwise_and_((1 << (32 - count)) - 1)


def _wrapped(value: int) -> int:
    """The lower 32 bits as a signed integer."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
