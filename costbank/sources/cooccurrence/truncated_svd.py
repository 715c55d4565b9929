"""The leading singular triplets of a large sparse matrix, to a stated accuracy, the same bytes on any number of cores.

A block Lanczos method on AᵀA with full reorthogonalisation and thick restarts (Wu & Simon 2000, as Baglama & Reichel
2005 use it for singular values): the basis V grows by a block of columns at a time, A·V is kept with it, and when the
basis is full its best directions start the next one. A sparse matrix times a block costs a fraction of as many products
with vectors, and a Krylov basis needs far fewer than power iterations of the whole subspace (Musco & Musco 2015).

Products are in float32, the small dense problems in float64. No sum is divided among threads otherwise than by fixed
blocks of rows whose parts are added in their order, and BLAS has one thread meanwhile.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from costbank.errors import require
from costbank.machine import usable_cores
from costbank.transforms import column_signs

__all__ = ["TruncatedSvd", "basis_width", "factor_bytes", "truncated_svd"]

sparse = require("scipy.sparse", "build")
threadpoolctl = require("threadpoolctl", "build")

_PART_ROWS = 4096
_PART_COLUMNS = 8
_LEAST_STRIPS, _MOST_STRIPS, _STRIP_ELEMENTS = 4, 64, 1 << 19
_LEAST_LENGTH = 1e-6
_NEARLY = 1e-2
_PROVEN_PASSES = 6
_RESULT_COPIES = 3
_RESIDUAL_COLUMNS = 32
_MOST_PASSES = 600


@dataclass(frozen=True)
class TruncatedSvd:
    """A ≈ left · diag(values) · rightᵀ.

    Values descend. Each left vector has its largest element positive. Values that cannot be told from zero, below
    `tolerance` times the largest, are zero, and so are their vectors; so are rows of vectors where the matrix has none.

    Attributes:
        left, right: orthonormal columns, but for those of zero values.
        residual: the largest of ‖A·v − σ·u‖ and ‖Aᵀ·u − σ·v‖ over all triplets, as a share of the largest value.
        passes: how often the matrix and its transpose were each multiplied by a block.
    """

    left: Float32[np.ndarray, "rows dim"]
    values: Float64[np.ndarray, "dim"]
    right: Float32[np.ndarray, "columns dim"]
    residual: float
    passes: int


def basis_width(dim: int) -> int:
    """How many approximate singular vectors of each side are in memory meanwhile."""
    return _kept(dim) + 10 * _block_width(dim)


def factor_bytes(shape: tuple[int, int], dim: int) -> int:
    """The most memory that factorizing takes besides the matrix: the basis, and the result with its residual."""
    return 4 * (basis_width(dim) + _RESULT_COPIES * dim) * sum(shape)


def truncated_svd(
    matrix: Any,
    dim: int,
    seed: int = 0,
    tolerance: float = 1e-4,
    advance: Callable[[int], None] | None = None,
) -> TruncatedSvd:
    """The `dim` largest singular values of a sparse matrix and their vectors.

    Where the matrix has fewer than `dim` rows or columns, or a lower rank, what is missing is zero. A matrix with a
    side no longer than the basis is treated densely.

    Args:
        matrix: `scipy.sparse.csr_matrix` or `csr_array` of float32.
        dim: how many.
        seed: of the start, on which the result depends within the tolerance.
        tolerance: residuals are at most this share of the largest value, unless 600 passes do not suffice; the
            `residual` of the result says so. Products in float32 do not allow much less than 1e-6.
        advance: called with the number of passes since it was last called.
    """
    rows, columns = matrix.shape
    flipped = rows < columns
    with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(usable_cores()) as threads:
        product = _Product(matrix, flipped, threads)
        if not matrix.data.any():
            return _padded(np.zeros((rows, 0)), np.zeros(0), np.zeros((columns, 0)), dim, 0.0, 0)
        if product.shape[1] <= basis_width(dim):
            basis = _Basis(product, product.shape[1])
            basis.fill()
        else:
            basis = _Basis(product, basis_width(dim))
            _converge(basis, dim, np.random.default_rng(seed), tolerance, advance or (lambda _: None))
        return _result(basis, dim, tolerance, flipped)


def _block_width(dim: int) -> int:
    return 16 if dim <= 128 else 32


def _kept(dim: int) -> int:
    return dim + max(32, dim // 4)


def _converge(
    basis: "_Basis", dim: int, random: np.random.Generator, tolerance: float, advance: Callable[[int], None]
) -> None:
    """Grow and restart the basis until its `dim` best directions are good enough.

    Their errors follow from what the last block still adds to the basis: ‖Aᵀu − σv‖·σ is the norm of R of the next
    block times the last elements of the combination that v is.
    """
    width = _block_width(dim)
    block, coupling = basis.orthonormal(basis.product.random_image(random, width))
    joined = 0
    while basis.passes < _MOST_PASSES:
        candidates = basis.expand(block)
        advance(1)
        block, coupling = basis.orthonormal(candidates)
        if not block.shape[1]:  # the start leads to no further direction
            block, _ = basis.orthonormal(basis.product.random_image(random, width))
            coupling = np.zeros((0, candidates.shape[1]))
        full = basis.size + block.shape[1] > basis.width
        since = basis.passes - joined if joined else 0
        proven = since >= _PROVEN_PASSES
        if block.shape[1] and not full and not (proven and since % 2 == 0):
            continue
        values, turn = basis.best()
        values = values[:dim]
        counted = values > tolerance * values[0]
        errors = np.linalg.norm(coupling @ turn[basis.size - coupling.shape[1] :, : len(values)], axis=0)
        worst = float((errors[counted] / values[counted]).max() / values[0])
        if not block.shape[1] or (proven and worst <= tolerance):
            return
        if full:
            basis.restart(turn[:, : _kept(dim)])
        if full and not joined and worst <= _NEARLY:
            # A block of Lanczos vectors finds as many copies of a repeated value as it is wide. New ones find the rest.
            fresh, _ = basis.orthonormal(basis.product.random_image(random, width // 2), block)
            block = np.concatenate([block, fresh], axis=1)
            joined = basis.passes


class _Basis:
    """Orthonormal columns V, what the matrix makes of them, A·V, and the Gram matrix of that."""

    def __init__(self, product: "_Product", width: int) -> None:
        rows, columns = product.shape
        self.product = product
        self.width, self.size, self.passes = width, 0, 0
        self.vectors = np.empty((columns, width), np.float32)
        self.images = np.empty((rows, width), np.float32)
        self.gram = np.zeros((width, width))

    def fill(self) -> None:
        """All of the space, as its unit vectors."""
        self.size = self.width
        self.vectors[:] = np.eye(self.width)
        self.images[:] = self.product.dense()
        self.gram[:] = self.product.inner(self.images, self.images.astype(np.float64))

    def expand(self, block: np.ndarray) -> np.ndarray:
        """Append orthonormal columns, and return AᵀA times them."""
        old, new = self.size, self.size + block.shape[1]
        image = self.product.forward(block)
        self.vectors[:, old:new] = block
        self.images[:, old:new] = image
        self.gram[:new, old:new] = self.product.inner(self.images[:, :new], image.astype(np.float64))
        self.gram[old:new, :new] = self.gram[:new, old:new].T
        self.size = new
        self.passes += 1
        return self.product.back(image)

    def orthonormal(
        self, block: np.ndarray, extra: np.ndarray | None = None
    ) -> tuple[Float32[np.ndarray, "columns kept"], Float64[np.ndarray, "kept block"]]:
        """The part of a block that is orthogonal to the basis and to `extra`: Q and R, without directions of no length.

        Twice, since the rest of a column that was nearly in the basis is not yet orthogonal to it (Parlett 1980).
        """
        inner, times = self.product.inner, self.product.times
        vectors = self.vectors[:, : self.size]
        least = _LEAST_LENGTH * float(np.sqrt(np.einsum("rc,rc->c", block, block, dtype=np.float64).max(initial=0)))
        coupling = np.eye(block.shape[1])
        for _ in range(2):
            for others in (vectors,) if extra is None else (vectors, extra):
                block = block - times(others, inner(others, block).astype(np.float32))
            squares, turn = np.linalg.eigh(inner(block, block.astype(np.float64)))
            kept = squares > least**2
            lengths, turn = np.sqrt(squares[kept]), turn[:, kept]
            coupling = (lengths[:, None] * turn.T) @ coupling
            block = times(block, turn / lengths)
            least = _LEAST_LENGTH
        return block, coupling

    def best(self) -> tuple[Float64[np.ndarray, "size"], Float64[np.ndarray, "size size"]]:
        """Approximate singular values, descending, and the combinations of the columns that belong to them."""
        squares, turn = np.linalg.eigh(self.gram[: self.size, : self.size])
        return np.sqrt(np.maximum(squares[::-1], 0)), turn[:, ::-1]

    def restart(self, turn: np.ndarray) -> None:
        """Keep these combinations of the columns, which are singular vectors of the basis, and no others."""
        squares = np.einsum("mk,mk->k", turn, self.gram[: self.size, : self.size] @ turn)
        for matrix in (self.vectors, self.images):
            self.product.times(matrix[:, : self.size], turn, into=matrix)
        self.size = len(squares)
        self.gram[:] = 0
        np.fill_diagonal(self.gram[: self.size, : self.size], squares)


class _Product:
    """Products with a sparse matrix, its transpose, and tall dense ones; `flipped`, the transpose is the matrix."""

    def __init__(self, matrix: Any, flipped: bool, threads: ThreadPoolExecutor) -> None:
        self._matrix, self._flipped, self._threads = matrix, flipped, threads
        self._strips = _strips(matrix)
        self.shape = matrix.shape[::-1] if flipped else matrix.shape

    def forward(self, block: np.ndarray) -> Float32[np.ndarray, "rows block"]:
        return self._by_columns(block) if self._flipped else self._by_rows(block)

    def back(self, block: np.ndarray) -> Float32[np.ndarray, "columns block"]:
        return self._by_rows(block) if self._flipped else self._by_columns(block)

    def random_image(self, random: np.random.Generator, width: int) -> Float32[np.ndarray, "columns width"]:
        """Random vectors of the row space, so that columns of nothing but zeros have no part in any."""
        return self.back(random.standard_normal((self.shape[0], width), np.float32))

    def dense(self) -> Float32[np.ndarray, "rows columns"]:
        return self._matrix.T.toarray() if self._flipped else self._matrix.toarray()

    def inner(self, left: np.ndarray, right: np.ndarray) -> Float64[np.ndarray, "left right"]:
        """leftᵀ·right, over fixed parts of the rows, which are added in their order; a part as precise as `right`."""
        parts = self._threads.map(lambda part: left[part].T @ right[part], _parts(len(left)))
        return sum(parts, np.zeros((left.shape[1], right.shape[1])))

    def times(
        self, tall: np.ndarray, small: np.ndarray, into: np.ndarray | None = None
    ) -> Float32[np.ndarray, "rows _"]:
        """tall·small in the leading columns of `into`, which may be `tall` itself, or of a new matrix."""
        into = np.empty((len(tall), small.shape[1]), np.float32) if into is None else into

        def fill(part: slice) -> None:
            into[part, : small.shape[1]] = tall[part] @ small

        list(self._threads.map(fill, _parts(len(tall))))
        return into

    def _by_rows(self, block: np.ndarray) -> np.ndarray:
        return np.concatenate(list(self._threads.map(lambda strip: strip @ block, self._strips)))

    def _by_columns(self, block: np.ndarray) -> np.ndarray:
        """The transpose, to which each row adds in turn: only whole columns of the result can be divided."""
        result = np.empty((self._matrix.shape[1], block.shape[1]), np.float32)
        transpose = self._matrix.T

        def fill(start: int) -> None:
            part = slice(start, start + _PART_COLUMNS)
            result[:, part] = transpose @ np.ascontiguousarray(block[:, part])

        list(self._threads.map(fill, range(0, block.shape[1], _PART_COLUMNS)))
        return result


def _strips(matrix: Any) -> list[Any]:
    """The matrix as strips of rows, of about as many elements each, that share its memory."""
    starts = matrix.indptr
    number = max(_LEAST_STRIPS, min(_MOST_STRIPS, int(starts[-1]) // _STRIP_ELEMENTS))
    cuts = np.unique(np.searchsorted(starts, np.linspace(0, starts[-1], number + 1)[1:-1]))
    edges = [0, *(cut for cut in cuts.tolist() if 0 < cut < matrix.shape[0]), matrix.shape[0]]
    strips = []
    for first, end in pairwise(edges):
        elements = slice(int(starts[first]), int(starts[end]))
        strip = sparse.csr_matrix((end - first, matrix.shape[1]), dtype=matrix.dtype)
        # The constructor would copy what is a small part of another array.
        strip.data, strip.indices = matrix.data[elements], matrix.indices[elements]
        strip.indptr = starts[first : end + 1] - starts[first]
        strips.append(strip)
    return strips


def _parts(rows: int) -> list[slice]:
    return [slice(start, start + _PART_ROWS) for start in range(0, rows, _PART_ROWS)]


def _result(basis: _Basis, dim: int, tolerance: float, flipped: bool) -> TruncatedSvd:
    product = basis.product
    values, turn = basis.best()
    nonzero = min(dim, int((values > tolerance * values[0]).sum()))
    values, turn = values[:nonzero], turn[:, :nonzero]
    right = product.times(basis.vectors[:, : basis.size], turn)
    left = product.times(basis.images[:, : basis.size], turn / values)
    signs = column_signs(right if flipped else left)
    left *= signs
    right *= signs
    residual = _residual(product, left, values, right)
    if flipped:
        left, right = right, left
    return _padded(left, values, right, dim, residual, basis.passes)


def _residual(product: _Product, left: np.ndarray, values: np.ndarray, right: np.ndarray) -> float:
    worst = 0.0
    for start in range(0, len(values), _RESIDUAL_COLUMNS):
        part = slice(start, start + _RESIDUAL_COLUMNS)
        scaled, u, v = values[part].astype(np.float32), left[:, part], right[:, part]
        for missed in (product.forward(v) - u * scaled, product.back(u) - v * scaled):
            worst = max(worst, float(np.linalg.norm(missed, axis=0).max()))
    return worst / float(values[0])


def _padded(
    left: np.ndarray, values: np.ndarray, right: np.ndarray, dim: int, residual: float, passes: int
) -> TruncatedSvd:
    more = dim - len(values)
    if more:
        left, right = (np.pad(side, ((0, 0), (0, more))) for side in (left, right))
    return TruncatedSvd(
        left.astype(np.float32, copy=False),
        np.pad(values, (0, more)),
        right.astype(np.float32, copy=False),
        residual,
        passes,
    )
