"""Matrix products of one type whose results are wanted in a wider one."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["add_product_", "product_"]


def product_(left: Float[Tensor, "n m"], right: Float[Tensor, "m k"], out: Float[Tensor, "n k"]) -> None:
    """Write left · right into `out`, which may be of a wider type.

    CUDA's products of 16 bits give the float32 sums that they are computed in; on a CPU these are rounded first, as
    torch.nn.Linear's are.
    """
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.is_cuda and out.dtype == torch.float32:
        out.copy_(torch.mm(left, right, out_dtype=torch.float32))
    else:
        out.copy_(torch.mm(left, right))


def add_product_(total: Float[Tensor, "m k"], left: Float[Tensor, "n m"], right: Float[Tensor, "n k"]) -> None:
    """Add leftᵀ · right to `total`, which with `left` may be of a wider type than `right`."""
    if right.dtype != total.dtype and right.is_cuda and total.dtype == torch.float32:
        total.add_(torch.mm(left.to(right.dtype).T, right, out_dtype=torch.float32))
    else:
        total.addmm_(left.T, right.to(total.dtype))
