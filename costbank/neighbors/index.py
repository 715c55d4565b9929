"""FAISS indexes over the rows of a bank, to search for any vector."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from costbank.cost import row_costs
from costbank.errors import require
from costbank.neighbors.table import RowReader, product_slack

__all__ = ["build_index", "load_index", "nearest_in_index", "search_index"]

_MOST_FLAT_BYTES = 512 << 20
_BLOCK_BYTES = 64 << 20
_TRAINING_ROWS = 8_192
_SPARE_CANDIDATES = 16
_CANDIDATES_PER_NEIGHBOR = 4


def build_index(
    read_rows: RowReader, usable: Bool[np.ndarray, "vocab"], most_flat_bytes: int = _MOST_FLAT_BYTES
) -> tuple[str, Any]:
    """An index over the usable rows, under their token ids, by inner product.

    Args:
        read_rows: unit rows as they are stored in the bank.
        usable: which rows have a vector.
        most_flat_bytes: the size of the largest `flat` index.

    Returns:
        The kind and the index: `flat`, which has the rows themselves and is exact, or `sq8`, which has 8 bits per
        element (FAISS's scalar quantizer), so that its candidates must be ranked by exact costs.
    """
    faiss = require("faiss", "build")
    row_ids = np.flatnonzero(usable)
    dim = read_rows(slice(0, 1)).shape[1]
    flat = len(row_ids) * dim * 4 <= most_flat_bytes
    inner = faiss.IndexFlatIP(dim) if flat else faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )  # fmt: skip
    if not flat:
        every = max(1, len(row_ids) // _TRAINING_ROWS)
        inner.train(read_rows(row_ids[::every]))
    # Reserve all memory at once; a vector that grows is in memory twice while it is copied.
    inner.codes.resize(len(row_ids) * inner.code_size)
    inner.codes.resize(0)
    index = faiss.IndexIDMap2(inner)
    step = max(1, _BLOCK_BYTES // (4 * dim))
    for start in range(0, len(row_ids), step):
        block_ids = row_ids[start : start + step]
        index.add_with_ids(np.ascontiguousarray(read_rows(block_ids), np.float32), block_ids.astype(np.int64))
    return "flat" if flat else "sq8", index


def load_index(data: UInt8[np.ndarray, "bytes"]) -> Any:
    """A FAISS index from bytes. The caller must check their sha256 first: a crafted index can corrupt memory."""
    faiss = require("faiss", "build")
    faiss.set_deserialization_vector_byte_limit(len(data))
    return faiss.deserialize_index(data)


def search_index(index: Any, queries: Float32[np.ndarray, "queries dim"], k: int) -> Int64[np.ndarray, "queries k"]:
    """Token ids of the k rows with the largest inner product; −1 where the index has fewer."""
    _, ids = index.search(np.ascontiguousarray(queries, np.float32), k)
    return ids


def nearest_in_index(
    index: Any, token_id: int, read_rows: Callable[[np.ndarray], np.ndarray], k: int, flat: bool
) -> tuple[Int64[np.ndarray, "neighbors"], Float32[np.ndarray, "neighbors"]]:
    """Ids and costs of the k nearest tokens of one token among the candidates of an index, by ascending (cost, id).

    A flat index returns more candidates until no other row can be nearer, within the error of its float32 products, so
    the result is the same as that of a search of all rows. A coarser index returns four candidates per neighbor.

    Args:
        index: the index of a bank, under its token ids.
        token_id: a token in it.
        read_rows: returns the stored rows of ids.
        k: how many neighbors; the result has fewer if the index has fewer other tokens.
        flat: whether the index has the rows themselves.
    """
    k = min(k, index.ntotal - 1)
    query = np.ascontiguousarray(read_rows(np.array([token_id])), np.float32)
    count = k + 1 + _SPARE_CANDIDATES if flat else _CANDIDATES_PER_NEIGHBOR * k + 2 * _SPARE_CANDIDATES
    while True:
        count = min(count, index.ntotal)
        scores, candidates = index.search(query, count)
        others = candidates[0][(candidates[0] != token_id) & (candidates[0] >= 0)]
        costs = row_costs(query, read_rows(others)[None])[0]
        order = np.lexsort((others, costs))[:k]
        certain = 1.0 - scores[0, -1] - product_slack(query.shape[1]) > costs[order[-1]] if len(order) else True
        if not flat or certain or count == index.ntotal:
            return others[order], costs[order]
        count *= 4
