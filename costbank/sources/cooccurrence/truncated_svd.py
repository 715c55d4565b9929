"""The leading singular triplets of a large sparse matrix, to a given accuracy, bit-equal on any number of cores.

The method is block Lanczos on AᵀA with full reorthogonalization and thick restarts (Wu & Simon 2000, for singular
values as in Baglama & Reichel 2005). The basis V grows by a block of columns at a time, and A·V is stored with it. When
the basis is full, its best directions start the next basis. The product of a sparse matrix and a block is much cheaper
than as many products with vectors, and a Krylov basis needs far fewer products than subspace iteration (Musco & Musco
2015).

Products are in float32, the small dense problems in float64. Threads compute partial sums over fixed blocks of rows,
which are added in a fixed order, and BLAS uses one thread.
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
_MIN_STRIPS, _MAX_STRIPS, _STRIP_ELEMENTS = 4, 64, 1 << 19
_MIN_LENGTH = 1e-6
_NEARLY_CONVERGED = 1e-2
_CONFIRMING_PASSES = 6
_RESULT_COPIES = 3
_RESIDUAL_COLUMNS = 32
_MAX_PASSES = 600


@dataclass(frozen=True)
class TruncatedSvd:
    """A ≈ left · diag(values) · rightᵀ.

    The largest element of each left vector is positive. Values below `tolerance` times the largest value are set to
    zero, with their vectors. Rows of vectors that belong to zero rows or columns of the matrix are zero.

    Attributes:
        left: left singular vectors as columns; orthonormal, except for zero values.
        values: singular values, descending.
        right: right singular vectors as columns; orthonormal, except for zero values.
        residual: the largest ‖A·v − σ·u‖ or ‖Aᵀ·u − σ·v‖ of all triplets, divided by the largest value.
        passes: the number of products of a block with the matrix and its transpose.
    """

    left: Float32[np.ndarray, "rows dim"]
    values: Float64[np.ndarray, "dim"]
    right: Float32[np.ndarray, "columns dim"]
    residual: float
    passes: int


def basis_width(dim: int) -> int:
    """The number of columns of the basis: approximate singular vectors of each side that are in memory."""
    return _restart_width(dim) + 10 * _block_width(dim)


def factor_bytes(shape: tuple[int, int], dim: int) -> int:
    """The maximum memory of the factorization in bytes, without the matrix: the basis, the result and its residual."""
    return 4 * (basis_width(dim) + _RESULT_COPIES * dim) * sum(shape)


def truncated_svd(
    matrix: Any,
    dim: int,
    seed: int = 0,
    tolerance: float = 1e-4,
    advance: Callable[[int], None] | None = None,
    max_passes: int = _MAX_PASSES,
) -> TruncatedSvd:
    """Compute the `dim` largest singular values of a sparse matrix and their vectors.

    If the rank of the matrix is less than `dim`, the other values and vectors are zero. A matrix with at most
    `basis_width(dim)` rows or columns is factorized as a dense matrix.

    Args:
        matrix: `scipy.sparse.csr_matrix` or `csr_array` of float32.
        dim: the number of triplets.
        seed: the seed of the start; the result depends on it within the tolerance.
        tolerance: the maximum residual, divided by the largest value. The minimum with products in float32 is about
            1e-6. If `max_passes` is too small, `TruncatedSvd.residual` is larger.
        advance: called with the number of passes since the last call.
        max_passes: the maximum number of passes.
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
            random = np.random.default_rng(seed)
            _converge(basis, dim, random, tolerance, max_passes, advance or (lambda _: None))
        return _result(basis, dim, tolerance, flipped)


def _block_width(dim: int) -> int:
    return 16 if dim <= 128 else 32


def _restart_width(dim: int) -> int:
    """The number of columns that a restart keeps."""
    return dim + max(32, dim // 4)


def _converge(
    basis: "_Basis",
    dim: int,
    random: np.random.Generator,
    tolerance: float,
    max_passes: int,
    advance: Callable[[int], None],
) -> None:
    """Expand and restart the basis until the residuals of its `dim` best triplets are within the tolerance.

    The residuals follow from the next block: ‖Aᵀu − σv‖·σ is the norm of its factor R times the last elements of v's
    coordinates in the basis.
    """
    width = _block_width(dim)
    block, coupling = basis.orthonormal(basis.product.random_image(random, width))
    fresh_at = 0  # the pass at which random directions were added
    while basis.passes < max_passes:
        candidates = basis.expand(block)
        advance(1)
        block, coupling = basis.orthonormal(candidates)
        if not block.shape[1]:  # the Krylov space of the start is complete
            block, _ = basis.orthonormal(basis.product.random_image(random, width))
            coupling = np.zeros((0, candidates.shape[1]))
        is_full = basis.size + block.shape[1] > basis.width
        since_fresh = basis.passes - fresh_at if fresh_at else 0
        is_confirmed = since_fresh >= _CONFIRMING_PASSES
        if block.shape[1] and not is_full and not (is_confirmed and since_fresh % 2 == 0):
            continue
        values, rotation = basis.ritz_values()
        values = values[:dim]
        nonzero = values > tolerance * values[0]
        errors = np.linalg.norm(coupling @ rotation[basis.size - coupling.shape[1] :, : len(values)], axis=0)
        max_residual = float((errors[nonzero] / values[nonzero]).max() / values[0])
        if not block.shape[1] or (is_confirmed and max_residual <= tolerance):
            return
        if is_full:
            basis.restart(rotation[:, : _restart_width(dim)])
        if is_full and not fresh_at and max_residual <= _NEARLY_CONVERGED:
            # Block Lanczos finds at most as many copies of a repeated value as its block has columns. Random directions
            # find the other copies.
            fresh, _ = basis.orthonormal(basis.product.random_image(random, width // 2), block)
            block = np.concatenate([block, fresh], axis=1)
            fresh_at = basis.passes


class _Basis:
    """Orthonormal columns V, their images A·V, and the Gram matrix of the images."""

    def __init__(self, product: "_Product", width: int) -> None:
        rows, columns = product.shape
        self.product = product
        self.width, self.size, self.passes = width, 0, 0
        self.vectors = np.empty((columns, width), np.float32)
        self.images = np.empty((rows, width), np.float32)
        self.gram = np.zeros((width, width))

    def fill(self) -> None:
        """Fill the basis with the unit vectors of the whole space."""
        self.size = self.width
        self.vectors[:] = np.eye(self.width)
        self.images[:] = self.product.dense()
        self.gram[:] = self.product.inner(self.images, self.images.astype(np.float64))

    def expand(self, block: np.ndarray) -> np.ndarray:
        """Append orthonormal columns, and return the product of AᵀA with them."""
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
    ) -> tuple[Float32[np.ndarray, "columns rank"], Float64[np.ndarray, "rank block"]]:
        """Q and R of the part of a block that is orthogonal to the basis and `extra`, without directions of length 0.

        Orthogonalization is done twice, because once is not enough for columns that are nearly in the basis (Parlett
        1980).
        """
        inner, times = self.product.inner, self.product.times
        vectors = self.vectors[:, : self.size]
        min_length = _MIN_LENGTH * float(np.sqrt(np.einsum("rc,rc->c", block, block, dtype=np.float64).max(initial=0)))
        coupling = np.eye(block.shape[1])
        for _ in range(2):
            for others in (vectors,) if extra is None else (vectors, extra):
                block = block - times(others, inner(others, block).astype(np.float32))
            squares, rotation = np.linalg.eigh(inner(block, block.astype(np.float64)))
            nonzero = squares > min_length**2
            lengths, rotation = np.sqrt(squares[nonzero]), rotation[:, nonzero]
            coupling = (lengths[:, None] * rotation.T) @ coupling
            block = times(block, rotation / lengths)
            min_length = _MIN_LENGTH
        return block, coupling

    def ritz_values(self) -> tuple[Float64[np.ndarray, "size"], Float64[np.ndarray, "size size"]]:
        """Approximate singular values, descending, and the coordinates of their right vectors in the basis."""
        squares, rotation = np.linalg.eigh(self.gram[: self.size, : self.size])
        return np.sqrt(np.maximum(squares[::-1], 0)), rotation[:, ::-1]

    def restart(self, rotation: np.ndarray) -> None:
        """Replace the columns with the approximate singular vectors that have these coordinates in the basis."""
        squares = np.einsum("mk,mk->k", rotation, self.gram[: self.size, : self.size] @ rotation)
        for matrix in (self.vectors, self.images):
            self.product.times(matrix[:, : self.size], rotation, into=matrix)
        self.size = len(squares)
        self.gram[:] = 0
        np.fill_diagonal(self.gram[: self.size, : self.size], squares)


class _Product:
    """Products with a sparse matrix or its transpose (exchanged if `flipped`), and products of tall dense matrices."""

    def __init__(self, matrix: Any, flipped: bool, threads: ThreadPoolExecutor) -> None:
        self._matrix, self._flipped, self._threads = matrix, flipped, threads
        self._strips = _strips(matrix)
        self.shape = matrix.shape[::-1] if flipped else matrix.shape

    def forward(self, block: np.ndarray) -> Float32[np.ndarray, "rows block"]:
        return self._by_columns(block) if self._flipped else self._by_rows(block)

    def back(self, block: np.ndarray) -> Float32[np.ndarray, "columns block"]:
        return self._by_rows(block) if self._flipped else self._by_columns(block)

    def random_image(self, random: np.random.Generator, width: int) -> Float32[np.ndarray, "columns width"]:
        """Random vectors in the row space of the matrix; they are 0 at zero columns."""
        return self.back(random.standard_normal((self.shape[0], width), np.float32))

    def dense(self) -> Float32[np.ndarray, "rows columns"]:
        return self._matrix.T.toarray() if self._flipped else self._matrix.toarray()

    def inner(self, left: np.ndarray, right: np.ndarray) -> Float64[np.ndarray, "left right"]:
        """leftᵀ·right, summed over fixed parts of the rows in a fixed order; each part has the precision of `right`."""
        parts = self._threads.map(lambda part: left[part].T @ right[part], _parts(len(left)))
        return sum(parts, np.zeros((left.shape[1], right.shape[1])))

    def times(
        self, tall: np.ndarray, small: np.ndarray, into: np.ndarray | None = None
    ) -> Float32[np.ndarray, "rows _"]:
        """tall·small, in the first columns of `into`, which may be `tall` itself, or in a new matrix."""
        into = np.empty((len(tall), small.shape[1]), np.float32) if into is None else into

        def fill(part: slice) -> None:
            into[part, : small.shape[1]] = tall[part] @ small

        list(self._threads.map(fill, _parts(len(tall))))
        return into

    def _by_rows(self, block: np.ndarray) -> np.ndarray:
        return np.concatenate(list(self._threads.map(lambda strip: strip @ block, self._strips)))

    def _by_columns(self, block: np.ndarray) -> np.ndarray:
        """The product with the transpose. Each row adds to all rows of the result, so threads divide its columns."""
        result = np.empty((self._matrix.shape[1], block.shape[1]), np.float32)
        transpose = self._matrix.T

        def fill(start: int) -> None:
            part = slice(start, start + _PART_COLUMNS)
            result[:, part] = transpose @ np.ascontiguousarray(block[:, part])

        list(self._threads.map(fill, range(0, block.shape[1], _PART_COLUMNS)))
        return result


def _strips(matrix: Any) -> list[Any]:
    """Strips of rows with about equal numbers of elements, which share the memory of the matrix."""
    starts = matrix.indptr
    number = max(_MIN_STRIPS, min(_MAX_STRIPS, int(starts[-1]) // _STRIP_ELEMENTS))
    cuts = np.unique(np.searchsorted(starts, np.linspace(0, starts[-1], number + 1)[1:-1]))
    edges = [0, *(cut for cut in cuts.tolist() if 0 < cut < matrix.shape[0]), matrix.shape[0]]
    strips = []
    for first, end in pairwise(edges):
        elements = slice(int(starts[first]), int(starts[end]))
        strip = sparse.csr_matrix((end - first, matrix.shape[1]), dtype=matrix.dtype)
        # The constructor would copy small slices of another array.
        strip.data, strip.indices = matrix.data[elements], matrix.indices[elements]
        strip.indptr = starts[first : end + 1] - starts[first]
        strips.append(strip)
    return strips


def _parts(rows: int) -> list[slice]:
    return [slice(start, start + _PART_ROWS) for start in range(0, rows, _PART_ROWS)]


def _result(basis: _Basis, dim: int, tolerance: float, flipped: bool) -> TruncatedSvd:
    product = basis.product
    values, rotation = basis.ritz_values()
    nonzero = min(dim, int((values > tolerance * values[0]).sum()))
    values, rotation = values[:nonzero], rotation[:, :nonzero]
    right = product.times(basis.vectors[:, : basis.size], rotation)
    left = product.times(basis.images[:, : basis.size], rotation / values)
    signs = column_signs(right if flipped else left)
    left *= signs
    right *= signs
    residual = _residual(product, left, values, right)
    if flipped:
        left, right = right, left
    return _padded(left, values, right, dim, residual, basis.passes)


def _residual(product: _Product, left: np.ndarray, values: np.ndarray, right: np.ndarray) -> float:
    residual = 0.0
    for start in range(0, len(values), _RESIDUAL_COLUMNS):
        part = slice(start, start + _RESIDUAL_COLUMNS)
        scaled, u, v = values[part].astype(np.float32), left[:, part], right[:, part]
        for error in (product.forward(v) - u * scaled, product.back(u) - v * scaled):
            residual = max(residual, float(np.linalg.norm(error, axis=0).max()))
    return residual / float(values[0])


def _padded(
    left: np.ndarray, values: np.ndarray, right: np.ndarray, dim: int, residual: float, passes: int
) -> TruncatedSvd:
    missing = dim - len(values)
    if missing:
        left, right = (np.pad(side, ((0, 0), (0, missing))) for side in (left, right))
    return TruncatedSvd(
        left.astype(np.float32, copy=False),
        np.pad(values, (0, missing)),
        right.astype(np.float32, copy=False),
        residual,
        passes,
    )
