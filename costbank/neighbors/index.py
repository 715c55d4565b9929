"""FAISS indexes for vectors that belong to no token."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from costbank.errors import require
from costbank.neighbors.table import Rows

__all__ = ["build_index", "load_index", "search_index"]

_MOST_FLAT_BYTES = 512 << 20
_BLOCK_BYTES = 64 << 20
_TRAINING_ROWS = 8_192


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
