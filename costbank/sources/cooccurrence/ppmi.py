"""A sparse matrix of positive pointwise mutual information from counts of pairs, without a second copy of it.

PMI(w, c) = log( C_wc · Σ_c' C_c'^α / (C_w · C_c^α) ), less log k, where that is positive: contexts smoothed and shifted
as by Levy, Goldberg & Dagan (2015). C is symmetric. Of each unordered pair one count is given; a pair of an id with
itself stands in both halves of its cell, so that C_aa is twice its count.

The pairs are gone through three times: for the marginals, for the length of each row, and for the values.
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

__all__ = ["PairBlocks", "PpmiOptions", "PpmiPlan", "most_frequent", "pair_marginals", "plan_ppmi"]

sparse = require("scipy.sparse", "build")

PairBlocks = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Blocks of (first, second, count): integer ids, first ≤ second, and int64 counts, at least 1. Sorted by first and then
second, over all blocks; each pair once. Can be gone through more than once."""

_SLICE_PAIRS = 1 << 18
_INDEX_32 = np.iinfo(np.int32).max
# Rounding leaves about 1e-15 of the PMI of a pair that occurs just as often as by chance.
_LEAST_PMI = 1e-9


@dataclass(frozen=True)
class PpmiOptions:
    """How counts become values.

    Attributes:
        context_smoothing: the exponent α of the contexts' marginals, which makes rare contexts less surprising.
        shift: k; log k is subtracted.
        cap: the most that a value may be.
        min_weight: pairs of a smaller count are left out of the matrix, though not of the marginals.
    """

    context_smoothing: float = 0.75
    shift: float = 1.0
    cap: float | None = None
    min_weight: int = 1


@dataclass(frozen=True)
class PpmiPlan:
    """A matrix that is about to be made.

    Attributes:
        shape: rows and columns.
        row_starts: where each row's elements start, and after them the number of all.
    """

    blocks: PairBlocks
    values: "_Values"
    shape: tuple[int, int]
    row_starts: Int64[np.ndarray, "starts"]

    @property
    def stored(self) -> int:
        """How many elements are not zero."""
        return int(self.row_starts[-1])

    @property
    def matrix_bytes(self) -> int:
        """What the matrix takes in memory; making it takes some 100 MB more, whatever its size."""
        index_bytes = np.dtype(self._index_type).itemsize
        return self.stored * (4 + index_bytes) + (self.shape[0] + 1) * index_bytes

    @property
    def _index_type(self) -> type[np.signedinteger]:
        return np.int32 if max(self.stored, *self.shape) <= _INDEX_32 else np.int64

    def make(self, advance: Callable[[int], None] | None = None) -> Any:
        """The matrix: `scipy.sparse.csr_matrix` of float32, whose rows are sorted by column.

        Args:
            advance: called with the number of pairs since it was last called.
        """
        data = np.empty(self.stored, np.float32)
        indices = np.empty(self.stored, self._index_type)
        free = self.row_starts[:-1].copy()
        cells_of = partial(self.values.of, by_row=True)
        for cells in map_in_order(cells_of, _slices(self.blocks, advance), usable_cores()):
            # Pairs are sorted by their first: a row's columns before the diagonal come ahead of those after it.
            for rows, columns, found in cells:
                lengths = np.bincount(rows, minlength=self.shape[0])
                places = np.arange(len(rows)) + np.repeat(
                    (free - np.cumsum(lengths) + lengths)[lengths > 0], lengths[lengths > 0]
                )
                data[places] = found
                indices[places] = columns
                free += lengths
        starts = self.row_starts.astype(self._index_type)
        matrix = sparse.csr_matrix((data, indices, starts), self.shape, copy=False)
        matrix.has_canonical_format = True
        return matrix


def pair_marginals(
    blocks: PairBlocks, vocab_size: int, advance: Callable[[int], None] | None = None
) -> Int64[np.ndarray, "vocab"]:
    """C_w: the sum of each id's row, exact as long as no million pairs count more than 2^53 together."""
    marginals = np.zeros(vocab_size, np.int64)
    for first, second, count in _slices(blocks, advance):
        for ids in (first, second):
            marginals += np.bincount(ids, count, vocab_size).astype(np.int64)
    return marginals


def most_frequent(counts: Int64[np.ndarray, "vocab"], number: int) -> Bool[np.ndarray, "vocab"]:
    """The ids of the largest counts, of equal ones those that come first; ids without a count are not among them."""
    chosen = np.zeros(len(counts), np.bool_)
    chosen[np.argsort(-counts, kind="stable")[:number]] = True
    return chosen & (counts > 0)


def plan_ppmi(
    blocks: PairBlocks,
    marginals: Int64[np.ndarray, "vocab"],
    rows: Bool[np.ndarray, "vocab"],
    columns: Bool[np.ndarray, "vocab"],
    options: PpmiOptions,
    advance: Callable[[int], None] | None = None,
) -> PpmiPlan:
    """Find out how large the matrix of these rows and columns is.

    Args:
        blocks: all pairs; they are gone through once now, and once more when the matrix is made.
        marginals: of `pair_marginals`; all ids count in the sum over contexts, whether they are columns or not.
        rows, columns: which ids have one; they stand in the order of ids.
        options: what the values are.
        advance: called with the number of pairs since it was last called.
    """
    values = _values(marginals, rows, columns, options)
    shape = int(rows.sum()), int(columns.sum())
    lengths = np.zeros(shape[0], np.int64)
    for cells in map_in_order(values.of, _slices(blocks, advance), usable_cores()):
        for rows_of_cells, _, _ in cells:
            lengths += np.bincount(rows_of_cells, minlength=shape[0])
    return PpmiPlan(blocks, values, shape, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


@dataclass(frozen=True)
class _Values:
    """The values of cells from counts; `row` and `column` are places of ids in the matrix, or −1."""

    row: Int64[np.ndarray, "vocab"]
    column: Int64[np.ndarray, "vocab"]
    row_part: Float64[np.ndarray, "vocab"]
    column_part: Float64[np.ndarray, "vocab"]
    options: PpmiOptions

    def of(
        self, first: np.ndarray, second: np.ndarray, count: np.ndarray, by_row: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, columns and values of the cells below the diagonal, then of those from the diagonal on.

        `by_row`, the former are put in the order of rows, as the latter are by the order of pairs.
        """
        if self.options.min_weight > 1:
            heavy = count >= self.options.min_weight
            first, second, count = first[heavy], second[heavy], count[heavy]
        logs = np.log(count * np.where(first == second, 2.0, 1.0))
        for ids, contexts in ((second, first), (first, second)):
            cells = (self.row[ids] >= 0) & (self.column[contexts] >= 0)
            if ids is second:
                cells &= first != second
            found = logs + self.row_part[ids] + self.column_part[contexts]
            cells &= found > _LEAST_PMI
            rows, columns, found = self.row[ids[cells]], self.column[contexts[cells]], found[cells]
            if by_row and ids is second:
                order = np.argsort(rows, kind="stable")
                rows, columns, found = rows[order], columns[order], found[order]
            yield rows, columns, found if self.options.cap is None else np.minimum(found, self.options.cap)


def _values(marginals: np.ndarray, rows: np.ndarray, columns: np.ndarray, options: PpmiOptions) -> _Values:
    seen = marginals > 0
    logs = np.log(np.where(seen, marginals, 1).astype(np.float64))
    smoothed = options.context_smoothing * logs
    largest = smoothed.max(initial=0)
    total = largest + np.log(np.exp(smoothed[seen] - largest).sum()) if seen.any() else 0.0
    return _Values(
        np.where(rows, np.cumsum(rows) - 1, -1),
        np.where(columns, np.cumsum(columns) - 1, -1),
        total - np.log(options.shift) - logs,
        -smoothed,
        options,
    )


def _slices(
    blocks: PairBlocks, advance: Callable[[int], None] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for first, second, count in blocks:
        for start in range(0, len(first), _SLICE_PAIRS):
            part = slice(start, start + _SLICE_PAIRS)
            yield first[part], second[part], count[part]
            if advance:
                advance(len(first[part]))
