"""The one definition of cost: c(i, t) = 1 − ⟨e_i, e_t⟩ for i ≠ t, and exactly 0 for i = t.

Rows e are unit length, or all zero where a token has no vector, which makes its cost 1 to every other token.
Costs are computed in float64 from the stored rows and rounded once to float32; rounding of the unit rows could
leave −1e-7 for two equal ones, so a cost is never below 0.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64

__all__ = ["pairwise_costs", "row_costs"]


def row_costs(
    target: Float32[np.ndarray, "targets dim"], others: Float32[np.ndarray, "targets others dim"]
) -> Float32[np.ndarray, "targets others"]:
    """Costs of `others[n, j]` to `target[n]`, for different tokens (the caller knows which are the same)."""
    dots = np.matmul(others.astype(np.float64), target.astype(np.float64)[:, :, None])[..., 0]
    return _from_dots(dots)


def pairwise_costs(
    row_ids: Int64[np.ndarray, "rows"],
    column_ids: Int64[np.ndarray, "columns"],
    rows: Float32[np.ndarray, "rows dim"],
    columns: Float32[np.ndarray, "columns dim"],
) -> Float32[np.ndarray, "rows columns"]:
    """Costs of every row token to every column token; exactly 0 where the two ids are equal."""
    costs = _from_dots(rows.astype(np.float64) @ columns.astype(np.float64).T)
    costs[row_ids[:, None] == column_ids[None, :]] = 0.0
    return costs


def _from_dots(dots: Float64[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return np.maximum(1.0 - dots, 0.0).astype(np.float32)
