"""Exact nearest-cost tables, and FAISS indexes for vectors that belong to no token.

FAISS proposes candidates in float32; the table is then decided by the costs of `costbank.cost` (float64, rounded
once), with ties broken by the smaller id. A row whose candidates could have missed one, within the error bound of
the float32 products, is searched again over all rows. The result is therefore the brute-force table, not nearly it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from costbank.cost import pairwise_costs, row_costs
from costbank.errors import require

__all__ = ["NeighborTable", "build_index", "exact_neighbors", "load_index", "nearest_rows", "search_index"]

_SPARE_CANDIDATES = 16
_QUERY_ROWS = 2048
_RERANK_BYTES = 64 << 20
_FALLBACK_ROWS = 256


@dataclass(frozen=True)
class NeighborTable:
    """The k nearest other tokens of each token, by ascending (cost, id); −1 and inf where there are no more."""

    ids: Int32[np.ndarray, "vocab k"]
    costs: Float32[np.ndarray, "vocab k"]

    @property
    def k(self) -> int:
        return self.ids.shape[1]


def exact_neighbors(
    vectors: Float32[np.ndarray, "vocab dim"],
    usable: Bool[np.ndarray, "vocab"],
    k: int,
    advance: Callable[[int], None] | None = None,
) -> NeighborTable:
    """The exact table over all usable rows; rows that are not usable neither have neighbors nor are any.

    Args:
        vectors: unit rows as they are stored in the bank.
        usable: which rows have a vector.
        k: neighbors a token; columns past the number of usable rows are padding.
        advance: told the number of rows finished after each block.
    """
    faiss = require("faiss", "build")
    row_ids = np.flatnonzero(usable)
    ids = np.full((len(vectors), k), -1, np.int32)
    costs = np.full((len(vectors), k), np.inf, np.float32)
    wanted = min(k, len(row_ids) - 1)
    if wanted < 1:
        return NeighborTable(ids, costs)
    rows = np.ascontiguousarray(vectors[row_ids], np.float32)
    proposed = min(wanted + 1 + _SPARE_CANDIDATES, len(rows))
    # A float32 dot product of unit rows is off by at most dim roundings of 2^-24 (Higham 2002, eq. 3.5); a little
    # more covers the rounding of the costs and stored rows whose norm is not quite 1.
    slack = 1.01 * (rows.shape[1] + 8) * 2.0**-24
    for start in range(0, len(rows), _QUERY_ROWS):
        positions = np.arange(start, min(start + _QUERY_ROWS, len(rows)))
        scores, candidates = faiss.knn(rows[positions], rows, proposed, metric=faiss.METRIC_INNER_PRODUCT)
        best, best_costs = _rerank(rows, positions, candidates, wanted)
        if proposed < len(rows):
            missed = np.flatnonzero(1.0 - scores[:, -1] - slack <= best_costs[:, -1])
            for part in range(0, len(missed), _FALLBACK_ROWS):
                again = missed[part : part + _FALLBACK_ROWS]
                best[again], best_costs[again] = _brute_force(rows, positions[again], wanted)
        ids[row_ids[positions], :wanted] = row_ids[best]
        costs[row_ids[positions], :wanted] = best_costs
        if advance:
            advance(len(positions))
    return NeighborTable(ids, costs)


def nearest_rows(
    token_id: int, vectors: Float32[np.ndarray, "vocab dim"], usable: Bool[np.ndarray, "vocab"], k: int
) -> tuple[Int64[np.ndarray, "found"], Float32[np.ndarray, "found"]]:
    """Ids and costs of the k nearest usable tokens of one token, over all rows; the table's order."""
    others = np.flatnonzero(usable)
    position = int(np.searchsorted(others, token_id))
    best, costs = _brute_force(vectors[others], np.array([position]), min(k, len(others) - 1))
    return others[best[0]], costs[0]


def build_index(
    vectors: Float32[np.ndarray, "vocab dim"], usable: Bool[np.ndarray, "vocab"]
) -> UInt8[np.ndarray, "bytes"]:
    """A serialised FAISS index over the usable rows, under their token ids: exact, by inner product."""
    faiss = require("faiss", "build")
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    row_ids = np.flatnonzero(usable)
    index.add_with_ids(np.ascontiguousarray(vectors[row_ids], np.float32), row_ids.astype(np.int64))
    return faiss.serialize_index(index)


def load_index(data: UInt8[np.ndarray, "bytes"]) -> Any:
    """A FAISS index from bytes whose sha256 the caller has checked: a crafted index can corrupt memory."""
    faiss = require("faiss", "build")
    faiss.set_deserialization_vector_byte_limit(len(data))
    return faiss.deserialize_index(data)


def search_index(index: Any, queries: Float32[np.ndarray, "queries dim"], k: int) -> Int64[np.ndarray, "queries k"]:
    """Token ids of the k rows with the largest inner product; −1 where the index has fewer."""
    _, ids = index.search(np.ascontiguousarray(queries, np.float32), k)
    return ids


def _rerank(
    rows: np.ndarray, positions: np.ndarray, candidates: np.ndarray, wanted: int
) -> tuple[np.ndarray, np.ndarray]:
    best = np.empty((len(positions), wanted), np.int64)
    best_costs = np.empty((len(positions), wanted), np.float32)
    step = max(1, _RERANK_BYTES // (candidates.shape[1] * rows.shape[1] * 8))
    for start in range(0, len(positions), step):
        part = slice(start, start + step)
        costs = row_costs(rows[positions[part]], rows[candidates[part]])
        costs[candidates[part] == positions[part, None]] = np.inf
        best[part], best_costs[part] = _smallest(candidates[part], costs, wanted)
    return best, best_costs


def _brute_force(rows: np.ndarray, positions: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    costs = pairwise_costs(positions, np.arange(len(rows)), rows[positions], rows)
    costs[np.arange(len(positions)), positions] = np.inf
    best = np.empty((len(positions), wanted), np.int64)
    for row, bound in enumerate(np.partition(costs, wanted - 1, axis=1)[:, wanted - 1]):
        within = np.flatnonzero(costs[row] <= bound)
        best[row] = within[np.lexsort((within, costs[row, within]))[:wanted]]
    return best, np.take_along_axis(costs, best, 1)


def _smallest(ids: np.ndarray, costs: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ids, costs), axis=-1)[:, :wanted]
    return np.take_along_axis(ids, order, -1), np.take_along_axis(costs, order, -1)
