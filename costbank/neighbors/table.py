"""The exact table: FAISS proposes candidates in float32, float64 decides.

Costs are those of `costbank.cost` (float64, rounded once), with ties broken by the smaller id. A row whose candidates
could have missed one, within the error bound of the float32 products, is searched again over all rows. The result is
therefore identical to the brute-force table. Rows are read in blocks, so that a table over gigabytes of them
needs memory for two blocks.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from costbank.cost import pairwise_costs, row_costs
from costbank.errors import require
from costbank.machine import usable_cores

__all__ = ["NeighborTable", "Rows", "exact_nearest", "exact_neighbors", "nearest_rows", "nearest_to",
           "product_slack", "rerank"]  # fmt: skip

Rows = Callable[[np.ndarray | slice], Float32[np.ndarray, "rows dim"]]
"""Unit rows by their ids, as float32; `vectors.__getitem__` of an array, `float32` of a mapped tensor."""

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
    rows: Rows,
    usable: Bool[np.ndarray, "vocab"],
    k: int,
    advance: Callable[[int], None] | None = None,
) -> NeighborTable:
    """The exact table over all usable rows; unusable rows have no neighbors and are not neighbors.

    Args:
        rows: unit rows as they are stored in the bank.
        usable: which rows have a vector.
        k: neighbors a token; columns past the number of usable rows are padding.
        advance: called with the number of rows finished after each block.
    """
    table = NeighborTable.empty(len(usable), k)
    row_ids = np.flatnonzero(usable)
    wanted = min(k, len(row_ids) - 1)
    if wanted < 1:
        return table
    step = _block_rows(rows, row_ids)
    for start in range(0, len(row_ids), step):
        part = row_ids[start : start + step]
        table.ids[part, :wanted], table.costs[part, :wanted] = exact_nearest(rows, row_ids, part, wanted)
        if advance:
            advance(len(part))
    return table


def exact_nearest(
    rows: Rows, row_ids: Int64[np.ndarray, "usable"], targets: Int64[np.ndarray, "targets"], wanted: int
) -> tuple[Int64[np.ndarray, "targets wanted"], Float32[np.ndarray, "targets wanted"]]:
    """Ids and costs of the nearest others of some ids, among the usable `row_ids`, exactly."""
    faiss = require("faiss", "build")
    queries = rows(targets)
    proposed = min(wanted + 1 + _SPARE_CANDIDATES, len(row_ids))
    slack = product_slack(queries.shape[1])
    scores = np.empty((len(targets), 0), np.float32)
    candidates = np.empty((len(targets), 0), np.int64)
    for part, block in _blocks(rows, row_ids):
        near, positions = faiss.knn(queries, block, min(proposed, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, candidates = np.hstack([scores, near]), np.hstack([candidates, part[positions]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :proposed]
        scores, candidates = np.take_along_axis(scores, best, 1), np.take_along_axis(candidates, best, 1)
    best, costs = rerank(rows, targets, candidates, wanted)
    if proposed < len(row_ids):
        missed = np.flatnonzero(1.0 - scores[:, -1] - slack <= costs[:, -1])
        if len(missed):
            best[missed], costs[missed] = _brute_force(rows, row_ids, targets[missed], wanted)
    return best, costs


def nearest_rows(
    token_id: int, rows: Rows, usable: Bool[np.ndarray, "vocab"], k: int, block_bytes: int = _BLOCK_BYTES
) -> tuple[Int64[np.ndarray, "found"], Float32[np.ndarray, "found"]]:
    """Ids and costs of the k nearest usable tokens of one token, over all rows; the table's order.

    It holds a block of rows in float32 and in float64: about three times `block_bytes`.
    """
    row_ids = np.flatnonzero(usable)
    own = np.array([token_id])
    ids, costs = _smallest_of_all(rows, row_ids, rows(own), own, min(k, len(row_ids) - 1), block_bytes)
    return ids[0], costs[0]


def nearest_to(
    queries: Float32[np.ndarray, "queries dim"], rows: Rows, usable: Bool[np.ndarray, "vocab"], k: int
) -> Int64[np.ndarray, "queries found"]:
    """Ids of the k usable rows nearest to each free unit vector, over all rows, by ascending (cost, id)."""
    row_ids = np.flatnonzero(usable)
    return _smallest_of_all(rows, row_ids, queries, np.full(len(queries), -1), min(k, len(row_ids)))[0]


def product_slack(dim: int) -> float:
    """How far a float32 dot product of unit rows may be from 1 − cost.

    It is off by at most dim roundings of 2^-24 (Higham 2002, eq. 3.5); a little more covers the rounding of the costs
    and stored rows whose norm is not quite 1.
    """
    return 1.01 * (dim + 8) * 2.0**-24


def rerank(
    rows: Rows,
    targets: Int64[np.ndarray, "targets"],
    candidates: Int64[np.ndarray, "targets candidates"],
    wanted: int,
) -> tuple[Int64[np.ndarray, "targets wanted"], Float32[np.ndarray, "targets wanted"]]:
    """The `wanted` candidates of least cost to each target, by ascending (cost, id); a target is not a candidate."""
    queries = rows(targets)
    best = np.empty((len(targets), wanted), np.int64)
    best_costs = np.empty((len(targets), wanted), np.float32)
    step = max(1, _RERANK_BYTES // (candidates.shape[1] * queries.shape[1] * 8))

    def decide(start: int) -> None:
        part = slice(start, start + step)
        chosen = candidates[part]
        others = rows(chosen.reshape(-1)).reshape(*chosen.shape, -1)
        costs = row_costs(queries[part], others)
        costs[chosen == targets[part, None]] = np.inf
        order = np.lexsort((chosen, costs), axis=-1)[:, :wanted]
        best[part], best_costs[part] = np.take_along_axis(chosen, order, -1), np.take_along_axis(costs, order, -1)

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(decide, range(0, len(targets), step)))
    return best, best_costs


def _brute_force(rows: Rows, row_ids: np.ndarray, targets: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, _BLOCK_BYTES // (8 * len(row_ids)))
    parts = [
        _smallest_of_all(rows, row_ids, rows(targets[i : i + step]), targets[i : i + step], wanted)
        for i in range(0, len(targets), step)
    ]
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([costs for _, costs in parts])


def _smallest_of_all(
    rows: Rows,
    row_ids: np.ndarray,
    queries: np.ndarray,
    own: np.ndarray,
    wanted: int,
    block_bytes: int = _BLOCK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Over every row; `own` holds the ids of the queries, which are not neighbors of themselves."""
    costs = np.concatenate(
        [pairwise_costs(own, part, queries, block) for part, block in _blocks(rows, row_ids, block_bytes)], axis=1
    )
    costs[own[:, None] == row_ids[None, :]] = np.inf
    best = np.empty((len(queries), wanted), np.int64)
    for row, bound in enumerate(np.partition(costs, wanted - 1, axis=1)[:, wanted - 1]):
        within = np.flatnonzero(costs[row] <= bound)
        best[row] = within[np.lexsort((within, costs[row, within]))[:wanted]]
    return row_ids[best], np.take_along_axis(costs, best, 1)


def _blocks(
    rows: Rows, row_ids: np.ndarray, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step = _block_rows(rows, row_ids, block_bytes)
    for start in range(0, len(row_ids), step):
        part = row_ids[start : start + step]
        whole = part[-1] - part[0] == len(part) - 1
        yield part, np.ascontiguousarray(rows(slice(part[0], part[-1] + 1) if whole else part), np.float32)


def _block_rows(rows: Rows, row_ids: np.ndarray, block_bytes: int = _BLOCK_BYTES) -> int:
    return max(256, block_bytes // (4 * rows(row_ids[:1]).shape[1]))
