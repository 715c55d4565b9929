"""Matrix products whose results can have a wider type than the factors."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

__all__ = ["add_product_", "product_", "transposed_product"]

# Older versions refuse a sum of another type than the factors.
_ADDS_WIDER = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 11)


def product_(left: Float[Tensor, "n m"], right: Float[Tensor, "m k"], out: Float[Tensor, "n k"]) -> None:
    """Write left · right into `out`, which may have a wider type.

    On CUDA, products of 16-bit factors are float32 sums. On a CPU, the sums are first rounded to 16 bits, as in
    torch.nn.Linear.
    """
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.is_cuda and out.dtype == torch.float32:
        out.copy_(torch.mm(left, right, out_dtype=torch.float32))
    else:
        out.copy_(torch.mm(left, right))


def add_product_(total: Float[Tensor, "m k"], left: Float[Tensor, "n m"], right: Float[Tensor, "n k"]) -> None:
    """Add leftᵀ · right to `total`. `total` and `left` may have a wider type than `right`."""
    if right.dtype != total.dtype and right.is_cuda and total.dtype == torch.float32:
        narrow = left.to(right.dtype).T
        if _ADDS_WIDER:
            torch.addmm(total, narrow, right, out_dtype=torch.float32, out=total)
        else:
            total.add_(torch.mm(narrow, right, out_dtype=torch.float32))
    else:
        total.addmm_(left.to(total.dtype).T, right.to(total.dtype))


def transposed_product(left: Float[Tensor, "n m"], right: Float[Tensor, "n k"]) -> Float32[Tensor, "m k"]:
    """leftᵀ · right with float32 sums. `left` may have a wider type than `right`."""
    if right.is_cuda and right.element_size() == 2:
        return torch.mm(left.to(right.dtype).T, right, out_dtype=torch.float32)
    return torch.mm(left.float().T, right.float())
