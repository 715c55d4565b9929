"""FAISS indexes for vectors that belong to no token."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from costbank.cost import row_costs
from costbank.errors import require
from costbank.neighbors.table import Rows, product_slack

__all__ = ["build_index", "load_index", "nearest_in_index", "search_index"]

_MOST_FLAT_BYTES = 512 << 20
_BLOCK_BYTES = 64 << 20
_TRAINING_ROWS = 8_192
_SPARE_CANDIDATES = 16
_CANDIDATES_A_NEIGHBOR = 4


def build_index(rows: Rows, usable: Bool[np.ndarray, "vocab"]) -> tuple[str, Any]:
    """An index over the usable rows, under their token ids, by inner product.

    Returns:
        `flat`, the rows themselves and exact, or, where these would take more than 512 MB, `sq8`, which keeps 8 bits
        an element (FAISS's scalar quantizer) and whose finds are to be decided by their costs; and the index.
    """
    faiss = require("faiss", "build")
    row_ids = np.flatnonzero(usable)
    dim = rows(slice(0, 1)).shape[1]
    flat = len(row_ids) * dim * 4 <= _MOST_FLAT_BYTES
    inner = faiss.IndexFlatIP(dim) if flat else faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )  # fmt: skip
    if not flat:
        every = max(1, len(row_ids) // _TRAINING_ROWS)
        inner.train(rows(row_ids[::every]))
    inner.codes.resize(len(row_ids) * inner.code_size)  # all the room at once: growing would hold it twice for a while
    inner.codes.resize(0)
    index = faiss.IndexIDMap2(inner)
    step = max(1, _BLOCK_BYTES // (4 * dim))
    for start in range(0, len(row_ids), step):
        part = row_ids[start : start + step]
        index.add_with_ids(np.ascontiguousarray(rows(part), np.float32), part.astype(np.int64))
    return "flat" if flat else "sq8", index


def load_index(data: UInt8[np.ndarray, "bytes"]) -> Any:
    """A FAISS index from bytes whose sha256 the caller has checked: a crafted index can corrupt memory."""
    faiss = require("faiss", "build")
    faiss.set_deserialization_vector_byte_limit(len(data))
    return faiss.deserialize_index(data)


def search_index(index: Any, queries: Float32[np.ndarray, "queries dim"], k: int) -> Int64[np.ndarray, "queries k"]:
    """Token ids of the k rows with the largest inner product; −1 where the index has fewer."""
    _, ids = index.search(np.ascontiguousarray(queries, np.float32), k)
    return ids


def nearest_in_index(
    index: Any, token_id: int, rows: Callable[[np.ndarray], np.ndarray], k: int, flat: bool
) -> tuple[Int64[np.ndarray, "found"], Float32[np.ndarray, "found"]]:
    """Ids and costs of the k nearest tokens of one token that the index proposes, by ascending (cost, id).

    A flat index is asked for more until no other row can be among them, within the error of its float32 products: the
    answer is that of a scan of all rows. Of a coarser index four candidates a neighbor are decided by their costs.

    Args:
        index: the index of a bank, under its token ids.
        token_id: a token in it.
        rows: gives the stored rows of some ids.
        k: neighbors; fewer come where the index has fewer others.
        flat: whether the index holds the rows themselves.
    """
    wanted = min(k, index.ntotal - 1)
    query = np.ascontiguousarray(rows(np.array([token_id])), np.float32)
    proposed = wanted + 1 + _SPARE_CANDIDATES if flat else _CANDIDATES_A_NEIGHBOR * wanted + 2 * _SPARE_CANDIDATES
    while True:
        proposed = min(proposed, index.ntotal)
        scores, candidates = index.search(query, proposed)
        others = candidates[0][(candidates[0] != token_id) & (candidates[0] >= 0)]
        costs = row_costs(query, rows(others)[None])[0]
        order = np.lexsort((others, costs))[:wanted]
        certain = 1.0 - scores[0, -1] - product_slack(query.shape[1]) > costs[order[-1]] if len(order) else True
        if not flat or certain or proposed == index.ntotal:
            return others[order], costs[order]
        proposed *= 4
