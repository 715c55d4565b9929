"""The rows of a bank as one array that the caller owns, for losses of other libraries."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32

from costbank.errors import ShapeError, TokenNotFoundError, UsageError, require

__all__ = ["MatrixKind", "Missing", "hand_over", "matrix_rows"]

MatrixKind = Literal["numpy", "torch", "dlpack"]
Missing = Literal["zero", "own-axis"]

_BLOCK_ROWS = 4_096


def matrix_rows(
    vectors: Callable[[np.ndarray], Float32[np.ndarray, "rows dim"]],
    shape: tuple[int, int],
    vocab_size: int | None,
    order: np.ndarray | None,
    missing: str,
) -> Float32[np.ndarray, "width columns"]:
    """`Bank.matrix` as a NumPy array. `vectors` returns the rows of ids; `shape` is [vocab, dim]."""
    if missing not in get_args(Missing):
        raise UsageError(f"missing is {missing!r}", f"give one of: {', '.join(get_args(Missing))}")
    size, dim = shape
    ids = _ids(size, vocab_size, order)
    rows = np.zeros((len(ids), dim + (missing == "own-axis")), np.float32)
    # In blocks, so that there is never a second copy of all rows.
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        block_ids = ids[start : start + _BLOCK_ROWS]
        block[block_ids >= 0, :dim] = vectors(block_ids[block_ids >= 0])
        if missing == "own-axis":
            block[~block.any(axis=1), dim] = 1.0
    return rows


def hand_over(rows: Float32[np.ndarray, "width columns"], kind: str) -> Any:
    """The same memory as an array or tensor of the requested library.

    Raises:
        UsageError: the kind is unknown.
        MissingExtraError: PyTorch is not installed.
    """
    if kind == "torch":
        return require("torch", "train").from_numpy(rows)
    if kind in get_args(MatrixKind):
        # A writable ndarray implements the DLPack protocol itself.
        return rows
    raise UsageError(f"kind is {kind!r}", f"give one of: {', '.join(get_args(MatrixKind))}")


def _ids(size: int, vocab_size: int | None, order: np.ndarray | None) -> np.ndarray:
    """The bank's id for each row of the matrix; −1 if it has none."""
    if order is None:
        width = size if vocab_size is None else vocab_size
        if width < 1:
            raise ShapeError(f"vocab_size is {width}", "give the width of the logits")
        ids = np.arange(width)
        ids[size:] = -1
        return ids
    if vocab_size is not None:
        raise UsageError("both vocab_size and order are given", "give only order: its length is the width")
    if order.ndim != 1 or not len(order) or not np.issubdtype(order.dtype, np.integer):
        raise ShapeError(
            f"order is {order.dtype} of shape {list(order.shape)}", "give bank ids as integers of shape [width]"
        )
    outside = order[(order < -1) | (order >= size)]
    if len(outside):
        raise TokenNotFoundError(
            f"order has id {outside[0]}, but this bank has ids 0 to {size - 1:,}", "give -1 for logits without a token"
        )
    return order
