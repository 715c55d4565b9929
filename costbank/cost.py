"""The definition of cost: c(i, t) = 1 − ⟨e_i, e_t⟩ for i ≠ t, and exactly 0 for i = t.

A row e has length 1. The row of a token without a vector is all zero, so its cost to every other token is 1. Costs are
computed in float64 from the stored rows and rounded once to float32. Negative results are raised to 0: unit rows are
rounded, so the cost of two equal rows could be −1e-7.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64

__all__ = ["pairwise_costs", "row_costs", "shortest_float"]


def row_costs(
    target: Float32[np.ndarray, "targets dim"], others: Float32[np.ndarray, "targets others dim"]
) -> Float32[np.ndarray, "targets others"]:
    """Costs of `others[n, j]` to `target[n]`, for different tokens; the caller must set the cost of equal tokens."""
    dots = np.matmul(others.astype(np.float64), target.astype(np.float64)[:, :, None])[..., 0]
    return _from_dots(dots)


def pairwise_costs(
    row_ids: Int64[np.ndarray, "rows"],
    column_ids: Int64[np.ndarray, "columns"],
    rows: Float32[np.ndarray, "rows dim"],
    columns: Float32[np.ndarray, "columns dim"],
) -> Float32[np.ndarray, "rows columns"]:
    """Costs of every row token to every column token; exactly 0 for equal ids."""
    costs = _from_dots(rows.astype(np.float64) @ columns.astype(np.float64).T)
    costs[row_ids[:, None] == column_ids[None, :]] = 0.0
    return costs


def shortest_float(cost: np.float32) -> float:
    """The float with the fewest digits that rounds to this float32: 0.1 rather than 0.10000000149011612."""
    return float(str(np.float32(cost)))


def _from_dots(dots: Float64[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return np.maximum(1.0 - dots, 0.0).astype(np.float32)
