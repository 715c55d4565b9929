"""A sparse matrix of positive pointwise mutual information (PPMI) from pair counts, built without a second copy.

PMI(w, c) = log( C_wc · Σ_c' C_c'^α / (C_w · C_c^α) ) − log k, where that is positive: with smoothed contexts and a
shift as in Levy, Goldberg & Dagan (2015). With pairs of tokens, C is symmetric, and each unordered pair has one count.
The pair of an id with itself counts in both orders, so C_aa is twice its count. With pairs of a token and a context,
each pair is one cell.

The pairs are read three times: for the marginals, for the length of each row, and for the values.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from costbank.errors import require
from costbank.machine import usable_cores
from costbank.threads import map_in_order

__all__ = ["Marginals", "PairBlocks", "PpmiOptions", "PpmiPlan", "most_frequent", "pair_marginals", "plan_ppmi"]

sparse = require("scipy.sparse", "build")

PairBlocks = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Blocks of (first, second, count): integer ids, and int64 counts of at least 1. Over all blocks, the pairs are
distinct and sorted by first, then by second. Of two tokens, first ≤ second. The iterable can be iterated again."""

_SLICE_PAIRS = 1 << 18
_INDEX_32 = np.iinfo(np.int32).max
# Because of rounding, the PMI of a pair that occurs exactly as often as by chance can be about 1e-15 instead of 0.
_MIN_PMI = 1e-9


@dataclass(frozen=True)
class PpmiOptions:
    """How values are computed from counts.

    Attributes:
        context_smoothing: the exponent α of the marginals of contexts; below 1 it reduces the values of rare contexts.
        shift: k; log k is subtracted from PMI.
        cap: the maximum value. None: no maximum.
        min_weight: pairs with a smaller count are not in the matrix, but they count in the marginals.
    """

    context_smoothing: float = 0.75
    shift: float = 1.0
    cap: float | None = None
    min_weight: int = 1


@dataclass(frozen=True)
class Marginals:
    """Sums of counts: C_w of each row's token, and C_c of each column. They are one array if pairs are unordered."""

    rows: Int64[np.ndarray, "vocab"]
    columns: Int64[np.ndarray, "contexts"]

    @property
    def is_symmetric(self) -> bool:
        return self.rows is self.columns


@dataclass(frozen=True)
class PpmiPlan:
    """A planned matrix; its size is known, and `make` builds it.

    Attributes:
        blocks: all pairs.
        values: computes the cells of pairs.
        shape: the number of rows and columns.
        row_starts: the position of each row's first element, and the number of all elements.
        slice_pairs: the number of pairs that are processed at a time.
    """

    blocks: PairBlocks
    values: "_Values"
    shape: tuple[int, int]
    row_starts: Int64[np.ndarray, "starts"]
    slice_pairs: int

    @property
    def stored(self) -> int:
        """The number of elements that are not zero."""
        return int(self.row_starts[-1])

    @property
    def matrix_bytes(self) -> int:
        """The size of the matrix in bytes; building it takes about 100 MB more, for any size."""
        index_bytes = np.dtype(self._index_type).itemsize
        return self.stored * (4 + index_bytes) + (self.shape[0] + 1) * index_bytes

    @property
    def _index_type(self) -> type[np.signedinteger]:
        return np.int32 if max(self.stored, *self.shape) <= _INDEX_32 else np.int64

    def make(self, advance: Callable[[int], None] | None = None) -> Any:
        """Build the matrix: a `scipy.sparse.csr_matrix` of float32 with sorted columns in each row.

        Args:
            advance: called with the number of pairs since the last call.
        """
        data = np.empty(self.stored, np.float32)
        indices = np.empty(self.stored, self._index_type)
        next_positions = self.row_starts[:-1].copy()
        cells_of = partial(self.values.cells, by_row=True)
        for cells in map_in_order(cells_of, _slices(self.blocks, self.slice_pairs, advance), usable_cores()):
            # Pairs are sorted by their first id, so the columns of each row come in ascending order.
            for rows, columns, values in cells:
                lengths = np.bincount(rows, minlength=self.shape[0])
                positions = np.arange(len(rows)) + np.repeat(
                    (next_positions - np.cumsum(lengths) + lengths)[lengths > 0], lengths[lengths > 0]
                )
                data[positions] = values
                indices[positions] = columns
                next_positions += lengths
        starts = self.row_starts.astype(self._index_type)
        matrix = sparse.csr_matrix((data, indices, starts), self.shape, copy=False)
        matrix.has_canonical_format = True
        return matrix


def pair_marginals(
    blocks: PairBlocks,
    vocab_size: int,
    contexts: int | None = None,
    advance: Callable[[int], None] | None = None,
    slice_pairs: int = _SLICE_PAIRS,
) -> Marginals:
    """The sum of each row and of each column; exact if the counts of each slice of pairs sum to less than 2^53.

    Args:
        blocks: all pairs.
        vocab_size: the number of token ids.
        contexts: the number of context ids; None if the pairs are unordered pairs of tokens.
        advance: called with the number of pairs since the last call.
        slice_pairs: the number of pairs that are processed at a time.
    """
    rows = np.zeros(vocab_size, np.int64)
    columns = rows if contexts is None else np.zeros(contexts, np.int64)
    for first, second, count in _slices(blocks, slice_pairs, advance):
        for ids, sums in ((first, rows), (second, columns)):
            sums += np.bincount(ids, count, len(sums)).astype(np.int64)
    return Marginals(rows, columns)


def most_frequent(counts: Int64[np.ndarray, "vocab"], number: int) -> Bool[np.ndarray, "vocab"]:
    """The `number` ids with the largest counts, smaller ids first at equal counts; ids with count 0 are excluded."""
    selected = np.zeros(len(counts), np.bool_)
    selected[np.argsort(-counts, kind="stable")[:number]] = True
    return selected & (counts > 0)


def plan_ppmi(
    blocks: PairBlocks,
    marginals: Marginals,
    rows: Bool[np.ndarray, "vocab"],
    columns: Bool[np.ndarray, "contexts"],
    options: PpmiOptions,
    advance: Callable[[int], None] | None = None,
    slice_pairs: int = _SLICE_PAIRS,
) -> PpmiPlan:
    """Determine the size of the matrix.

    Args:
        blocks: all pairs; they are read now, and again by `PpmiPlan.make`.
        marginals: the result of `pair_marginals`; the sum over contexts includes ids that are not columns.
        rows: the ids that have a row, in the order of ids.
        columns: the ids that have a column, in the order of ids.
        options: how values are computed.
        advance: called with the number of pairs since the last call.
        slice_pairs: the number of pairs that are processed at a time.
    """
    values = _values(marginals, rows, columns, options)
    shape = int(rows.sum()), int(columns.sum())
    lengths = np.zeros(shape[0], np.int64)
    for cells in map_in_order(values.cells, _slices(blocks, slice_pairs, advance), usable_cores()):
        for cell_rows, _, _ in cells:
            lengths += np.bincount(cell_rows, minlength=shape[0])
    row_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return PpmiPlan(blocks, values, shape, row_starts, slice_pairs)


@dataclass(frozen=True)
class _Values:
    """Computes the values of cells. `row` and `column` are the row and column of each id in the matrix, or −1."""

    row: Int64[np.ndarray, "vocab"]
    column: Int64[np.ndarray, "contexts"]
    row_term: Float64[np.ndarray, "vocab"]
    column_term: Float64[np.ndarray, "contexts"]
    is_symmetric: bool
    options: PpmiOptions

    def cells(
        self, first: np.ndarray, second: np.ndarray, count: np.ndarray, by_row: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, columns and values of the cells of pairs, sorted by row.

        Of a symmetric matrix, the cells below the diagonal come first, and are sorted by row only with `by_row`.
        """
        if self.options.min_weight > 1:
            is_heavy = count >= self.options.min_weight
            first, second, count = first[is_heavy], second[is_heavy], count[is_heavy]
        is_same = (first == second) & self.is_symmetric
        logs = np.log(count * np.where(is_same, 2.0, 1.0))
        for ids, contexts in ((second, first), (first, second)) if self.is_symmetric else ((first, second),):
            is_cell = (self.row[ids] >= 0) & (self.column[contexts] >= 0)
            if ids is second:
                is_cell &= ~is_same
            values = logs + self.row_term[ids] + self.column_term[contexts]
            is_cell &= values > _MIN_PMI
            rows, columns, values = self.row[ids[is_cell]], self.column[contexts[is_cell]], values[is_cell]
            if by_row and ids is second:
                order = np.argsort(rows, kind="stable")
                rows, columns, values = rows[order], columns[order], values[order]
            yield rows, columns, values if self.options.cap is None else np.minimum(values, self.options.cap)


def _values(marginals: Marginals, rows: np.ndarray, columns: np.ndarray, options: PpmiOptions) -> _Values:
    occurs = marginals.columns > 0
    smoothed = options.context_smoothing * _logs(marginals.columns)
    largest = smoothed.max(initial=0)
    total = largest + np.log(np.exp(smoothed[occurs] - largest).sum()) if occurs.any() else 0.0
    return _Values(
        np.where(rows, np.cumsum(rows) - 1, -1),
        np.where(columns, np.cumsum(columns) - 1, -1),
        total - np.log(options.shift) - _logs(marginals.rows),
        -smoothed,
        marginals.is_symmetric,
        options,
    )


def _logs(sums: Int64[np.ndarray, "sums"]) -> Float64[np.ndarray, "sums"]:
    """Logarithms of sums; 0 for a sum of 0."""
    return np.log(np.maximum(sums, 1).astype(np.float64))


def _slices(
    blocks: PairBlocks, slice_pairs: int, advance: Callable[[int], None] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for first, second, count in blocks:
        for start in range(0, len(first), slice_pairs):
            part = slice(start, start + slice_pairs)
            yield first[part], second[part], count[part]
            if advance:
                advance(len(first[part]))
