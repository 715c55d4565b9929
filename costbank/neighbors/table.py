"""The exact table: FAISS proposes candidates in float32, and costs in float64 rank them.

Costs are those of `costbank.cost` (float64, rounded once), with ties broken by the smaller id. If a row's candidates
may lack a neighbor, within the error bound of the float32 products, all rows are searched for it in float64. The result
is therefore identical to the brute-force table. Rows are read in blocks, and at most two are in memory.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from costbank.cost import pairwise_costs, row_costs
from costbank.errors import require
from costbank.machine import usable_cores

__all__ = ["NeighborTable", "RowReader", "exact_nearest", "exact_neighbors", "nearest_rows", "nearest_to",
           "product_slack", "rerank"]  # fmt: skip

RowReader = Callable[[np.ndarray | slice], Float32[np.ndarray, "rows dim"]]
"""Returns the unit rows of ids as float32, such as `array.__getitem__` or `MappedTensor.float32`."""

_SPARE_CANDIDATES = 16
_BLOCK_BYTES = 128 << 20
_RERANK_BYTES = 16 << 20


@dataclass(frozen=True)
class NeighborTable:
    """The k nearest other tokens of each token, by ascending (cost, id); −1 and inf fill a row with fewer neighbors."""

    ids: Int32[np.ndarray, "vocab k"]
    costs: Float32[np.ndarray, "vocab k"]

    @property
    def k(self) -> int:
        return self.ids.shape[1]

    @classmethod
    def empty(cls, vocab: int, k: int) -> "NeighborTable":
        return cls(np.full((vocab, k), -1, np.int32), np.full((vocab, k), np.inf, np.float32))


def exact_neighbors(
    read_rows: RowReader,
    usable: Bool[np.ndarray, "vocab"],
    k: int,
    advance: Callable[[int], None] | None = None,
) -> NeighborTable:
    """The exact table over all usable rows; unusable rows have no neighbors and are not neighbors.

    Args:
        read_rows: unit rows as they are stored in the bank.
        usable: which rows have a vector.
        k: neighbors per token; columns beyond the number of other usable rows are padding.
        advance: called after each block with its number of rows.
    """
    table = NeighborTable.empty(len(usable), k)
    row_ids = np.flatnonzero(usable)
    k = min(k, len(row_ids) - 1)
    if k < 1:
        return table
    step = _block_rows(read_rows, row_ids)
    for start in range(0, len(row_ids), step):
        block_ids = row_ids[start : start + step]
        table.ids[block_ids, :k], table.costs[block_ids, :k] = exact_nearest(read_rows, row_ids, block_ids, k)
        if advance:
            advance(len(block_ids))
    return table


def exact_nearest(
    read_rows: RowReader, row_ids: Int64[np.ndarray, "usable"], targets: Int64[np.ndarray, "targets"], k: int
) -> tuple[Int64[np.ndarray, "targets k"], Float32[np.ndarray, "targets k"]]:
    """Ids and costs of the exact k nearest among the usable `row_ids` to each target id, without the target."""
    faiss = require("faiss", "build")
    queries = read_rows(targets)
    count = min(k + 1 + _SPARE_CANDIDATES, len(row_ids))
    slack = product_slack(queries.shape[1])
    scores = np.empty((len(targets), 0), np.float32)
    candidates = np.empty((len(targets), 0), np.int64)
    for block_ids, rows in _blocks(read_rows, row_ids):
        products, positions = faiss.knn(queries, rows, min(count, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, candidates = np.hstack([scores, products]), np.hstack([candidates, block_ids[positions]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, candidates = np.take_along_axis(scores, best, 1), np.take_along_axis(candidates, best, 1)
    ids, costs = rerank(read_rows, targets, candidates, k)
    if count < len(row_ids):
        uncertain = np.flatnonzero(1.0 - scores[:, -1] - slack <= costs[:, -1])
        if len(uncertain):
            ids[uncertain], costs[uncertain] = _brute_force(read_rows, row_ids, targets[uncertain], k)
    return ids, costs


def nearest_rows(
    token_id: int, read_rows: RowReader, usable: Bool[np.ndarray, "vocab"], k: int, block_bytes: int = _BLOCK_BYTES
) -> tuple[Int64[np.ndarray, "neighbors"], Float32[np.ndarray, "neighbors"]]:
    """Ids and costs of the k nearest usable tokens of one token, by ascending (cost, id), from a search of all rows.

    A block of rows is in memory in float32 and in float64, so it takes about three times `block_bytes`.
    """
    row_ids = np.flatnonzero(usable)
    target = np.array([token_id])
    ids, costs = _nearest_of_all(read_rows, row_ids, read_rows(target), target, min(k, len(row_ids) - 1), block_bytes)
    return ids[0], costs[0]


def nearest_to(
    queries: Float32[np.ndarray, "queries dim"], read_rows: RowReader, usable: Bool[np.ndarray, "vocab"], k: int
) -> Int64[np.ndarray, "queries neighbors"]:
    """Ids of the k usable rows nearest to each unit vector, by ascending (cost, id), from a search of all rows."""
    row_ids = np.flatnonzero(usable)
    return _nearest_of_all(read_rows, row_ids, queries, np.full(len(queries), -1), min(k, len(row_ids)))[0]


def product_slack(dim: int) -> float:
    """The largest difference between a float32 dot product of unit rows and 1 − cost.

    The error is at most dim roundings of 2^-24 (Higham 2002, eq. 3.5); a little more covers the rounding of the costs
    and of the norms of stored rows.
    """
    return 1.01 * (dim + 8) * 2.0**-24


def rerank(
    read_rows: RowReader,
    targets: Int64[np.ndarray, "targets"],
    candidates: Int64[np.ndarray, "targets candidates"],
    k: int,
) -> tuple[Int64[np.ndarray, "targets k"], Float32[np.ndarray, "targets k"]]:
    """The k candidates of least cost to each target, by ascending (cost, id), without the target itself."""
    queries = read_rows(targets)
    best_ids = np.empty((len(targets), k), np.int64)
    best_costs = np.empty((len(targets), k), np.float32)
    step = max(1, _RERANK_BYTES // (candidates.shape[1] * queries.shape[1] * 8))

    def rank(start: int) -> None:
        part = slice(start, start + step)
        ids = candidates[part]
        costs = row_costs(queries[part], read_rows(ids.reshape(-1)).reshape(*ids.shape, -1))
        costs[ids == targets[part, None]] = np.inf
        order = np.lexsort((ids, costs), axis=-1)[:, :k]
        best_ids[part], best_costs[part] = np.take_along_axis(ids, order, -1), np.take_along_axis(costs, order, -1)

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(rank, range(0, len(targets), step)))
    return best_ids, best_costs


def _brute_force(
    read_rows: RowReader, row_ids: np.ndarray, targets: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, _BLOCK_BYTES // (8 * len(row_ids)))
    blocks = [targets[start : start + step] for start in range(0, len(targets), step)]
    nearest = [_nearest_of_all(read_rows, row_ids, read_rows(block), block, k) for block in blocks]
    return np.concatenate([ids for ids, _ in nearest]), np.concatenate([costs for _, costs in nearest])


def _nearest_of_all(
    read_rows: RowReader,
    row_ids: np.ndarray,
    queries: np.ndarray,
    query_ids: np.ndarray,
    k: int,
    block_bytes: int = _BLOCK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and costs of the k nearest rows to each query from all costs, without the query's own id (−1 for none)."""
    costs = np.concatenate(
        [pairwise_costs(query_ids, ids, queries, rows) for ids, rows in _blocks(read_rows, row_ids, block_bytes)],
        axis=1,
    )
    costs[query_ids[:, None] == row_ids[None, :]] = np.inf
    best = np.empty((len(queries), k), np.int64)
    for row, bound in enumerate(np.partition(costs, k - 1, axis=1)[:, k - 1]):
        within = np.flatnonzero(costs[row] <= bound)
        best[row] = within[np.lexsort((within, costs[row, within]))[:k]]
    return row_ids[best], np.take_along_axis(costs, best, 1)


def _blocks(
    read_rows: RowReader, row_ids: np.ndarray, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and rows of each block; consecutive ids are read as a slice."""
    step = _block_rows(read_rows, row_ids, block_bytes)
    for start in range(0, len(row_ids), step):
        ids = row_ids[start : start + step]
        is_range = ids[-1] - ids[0] == len(ids) - 1
        yield ids, np.ascontiguousarray(read_rows(slice(ids[0], ids[-1] + 1) if is_range else ids), np.float32)


def _block_rows(read_rows: RowReader, row_ids: np.ndarray, block_bytes: int = _BLOCK_BYTES) -> int:
    return max(256, block_bytes // (4 * read_rows(row_ids[:1]).shape[1]))
