"""How far two sets of rows for the same tokens agree: correlation of costs, and linear CKA."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from costbank.cost import row_costs
from costbank.errors import require
from costbank.progress import Step

__all__ = ["CostCorrelation", "Reader", "cost_correlation", "linear_cka", "random_pairs"]

Reader = Callable[[np.ndarray | slice], Float32[np.ndarray, "rows dim"]]
"""Returns rows by the positions of tokens, which are the same for both sets of rows."""

_BLOCK_ROWS = 4_096


@dataclass(frozen=True)
class CostCorrelation:
    """Pearson's and Spearman's correlation of costs; None if all costs of one set of rows are equal."""

    pearson: float | None
    spearman: float | None


def random_pairs(tokens: int, most: int, random: np.random.Generator) -> Int64[np.ndarray, "2 pairs"]:
    """Positions of `most` pairs of different tokens, or of all pairs if there are fewer."""
    if tokens * (tokens - 1) // 2 <= most:
        return np.stack(np.triu_indices(tokens, 1)).astype(np.int64)
    first = random.integers(tokens, size=most)
    return np.stack([first, (first + random.integers(1, tokens, size=most)) % tokens])


def cost_correlation(first: Reader, second: Reader, pairs: Int64[np.ndarray, "2 pairs"], step: Step) -> CostCorrelation:
    """The correlation of the costs of these pairs of tokens; `step` receives the number of pairs."""
    stats = require("scipy.stats", "build")
    costs = np.empty((2, pairs.shape[1]), np.float32)
    for start in range(0, pairs.shape[1], _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        for own, read in zip(costs, (first, second), strict=True):
            own[part] = row_costs(read(pairs[0, part]), read(pairs[1, part])[:, None, :])[:, 0]
        step.advance(len(costs[0, part]))
    if not np.ptp(costs, axis=1).all():
        return CostCorrelation(None, None)
    return CostCorrelation(float(stats.pearsonr(*costs.astype(np.float64)).statistic),
                           float(stats.spearmanr(*costs).statistic))  # fmt: skip


def linear_cka(first: Reader, second: Reader, positions: Int64[np.ndarray, "tokens"], step: Step) -> float | None:
    """Linear CKA of two sets of rows: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centered columns (Kornblith et al. 2019, eq. 4).

    It is 1 for rows that differ only by a rotation and a scale. Products of blocks are added up in float64, and the
    means are subtracted from the sums, so that no more than a block of rows is in memory.

    Args:
        first, second: the rows.
        positions: the tokens to compare.
        step: receives the number of tokens.

    Returns:
        None if all rows of one set are equal.
    """
    # Relative to the first row, sums are smaller if all rows are alike, and subtracting the means loses fewer digits.
    origins = [read(positions[:1]).astype(np.float64) for read in (first, second)]
    sums = [np.zeros(origin.shape[1]) for origin in origins]
    dims = [len(total) for total in sums]
    products = {(i, j): np.zeros((dims[i], dims[j])) for i, j in ((0, 0), (1, 1), (1, 0))}
    for start in range(0, len(positions), _BLOCK_ROWS):
        block = positions[start : start + _BLOCK_ROWS]
        rows = [read(block) - origin for read, origin in zip((first, second), origins, strict=True)]
        for total, own in zip(sums, rows, strict=True):
            total += own.sum(axis=0)
        for (i, j), product in products.items():
            product += rows[i].T @ rows[j]
        step.advance(len(block))
    norms = {ij: _centered_norm(product, sums[ij[0]], sums[ij[1]], len(positions)) for ij, product in products.items()}
    scale = norms[0, 0] * norms[1, 1]
    return float(norms[1, 0] ** 2 / scale) if scale > 0 else None


def _centered_norm(
    product: Float64[np.ndarray, "left right"], left: Float64[np.ndarray, "left"],
    right: Float64[np.ndarray, "right"], count: int,
) -> float:  # fmt: skip
    """The Frobenius norm of a product of centered rows, from the product and the sums of rows that are not centered."""
    return float(np.linalg.norm(product - np.outer(left, right) / count))
