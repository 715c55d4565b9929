"""A Triton kernel for `costbank.loss.engine.rounding`: one pass, and the same bits as those of PyTorch's operations."""

# ruff: noqa: N803
# pyright: reportUnboundVariable=false, reportGeneralTypeIssues=false

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from costbank.loss.engine.kernels.device import device_of
from costbank.loss.engine.rounding import BITS_FACTOR, ENTRY_FACTOR, HASH, TERM_FACTOR

__all__ = ["CONSTANTS", "add_rounded", "launch"]

_BLOCK = 4_096
CONSTANTS = {"BITS": BITS_FACTOR, "ENTRY": ENTRY_FACTOR, "TERM": TERM_FACTOR, "HASH_0": HASH[0],
             "HASH_1": HASH[1] % (1 << 32), "BLOCK": _BLOCK}  # fmt: skip
"""The constants with which the kernel is compiled."""


def launch(total: Tensor, terms: Tensor, first: int, number: int) -> None:
    """`add_rounded_` of contiguous tensors of bfloat16 and float32."""
    count = total.numel()
    if not count:
        return
    kernel: Any = add_rounded[(triton.cdiv(count, _BLOCK),)]
    with device_of(total):
        kernel(total, terms, count, first, number, **CONSTANTS, num_warps=8)


@triton.jit(do_not_specialize=["count", "first", "number"])
def add_rounded(
    total, terms, count, first, number,
    BITS: tl.constexpr, ENTRY: tl.constexpr, TERM: tl.constexpr, HASH_0: tl.constexpr, HASH_1: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Add `terms` [count] to `total` [count], with stochastic rounding."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < count
    s = tl.load(total + entry, mask=inside, other=0.0).to(tl.float32)
    s += tl.load(terms + entry, mask=inside, other=0.0)
    bits = s.to(tl.uint32, bitcast=True)
    noise = bits * BITS + (first + entry).to(tl.uint32) * ENTRY + number.to(tl.uint32) * TERM
    noise = (noise ^ (noise >> 16)) * HASH_0
    noise = (noise ^ (noise >> 15)) * HASH_1
    noise = noise ^ (noise >> 16)
    upper = ((bits + (noise >> 16)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    # NaN and inf have no neighbors: a carry would turn a NaN into 0.
    rounded = tl.where(tl.abs(s) < float("inf"), upper, s)
    tl.store(total + entry, rounded.to(tl.bfloat16), mask=inside)
