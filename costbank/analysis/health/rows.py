"""A pass over a bank's rows: their mean, their isotropy, and measures of each row.

Rows are read in blocks, so memory is needed only for a block and a dim × dim matrix.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from costbank.analysis.health.result import Isotropy
from costbank.bank import Bank
from costbank.bank.manifest import REPAIR
from costbank.errors import CorruptBankError
from costbank.progress import Progress

__all__ = ["LEAST_DIM", "RowMeasures", "iso_score", "measure_rows", "saturated_rows"]

LEAST_DIM = 32
"""Rows with fewer elements are not tested: too many would be saturated by chance; see `saturated_rows`."""

_SATURATED_VARIATION = 0.2
_AT_TOP = 0.99
_TOP_SHARE = 0.1
_LEAST_AT_TOP = 10

_BLOCK_BYTES = 64 << 20
_CACHED_ELEMENTS = 1 << 18
_MOST_PRODUCTS = 6e12
_MOST_DIM = 4_096
_SAMPLE_SEED = 1
_SAMPLED_ROWS = 8_192
_GRAM_ROWS = 1_024
_LEAST_VARIANCE = 1e-9
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class RowMeasures:
    """The results of the pass.

    Attributes:
        usable: which rows are not zero.
        mean_cosine: the mean of 1 − cost over all pairs of different usable rows; None for fewer than two.
        isotropy: None for fewer than two rows or dimensions, and if all rows are the same.
        variation: std(|x|) / mean(|x|) of each row's elements; infinity for a zero row.
        at_top: the number of elements of each row within 1 % of its largest magnitude.
        first_equal: for each id, the smallest id with the same row bit for bit; the id itself for a zero row.
    """

    usable: Bool[np.ndarray, "vocab"]
    mean_cosine: float | None
    isotropy: Isotropy | None
    variation: Float32[np.ndarray, "vocab"]
    at_top: Int64[np.ndarray, "vocab"]
    first_equal: Int64[np.ndarray, "vocab"]


def measure_rows(
    bank: Bank,
    progress: Progress,
    most_products: float = _MOST_PRODUCTS,
    sampled_rows: int = _SAMPLED_ROWS,
    block_bytes: int = _BLOCK_BYTES,
) -> RowMeasures:
    """Measure all rows of a bank.

    The covariance Σ is computed from all rows if rows · dim² is at most `most_products` and dim at most 4,096. For
    larger banks, ‖Σ‖² is estimated from `sampled_rows` rows, drawn with a fixed seed.

    Args:
        bank: the bank.
        progress: receives the number of rows that were read.
        most_products: the largest number of products for the covariance of all rows.
        sampled_rows: the size of the sample.
        block_bytes: memory for a block of rows.

    Raises:
        CorruptBankError: a row has NaN or infinity.
    """
    size, dim = bank.size, bank.dim
    squares = np.zeros(size)
    variation = np.full(size, np.inf, np.float32)
    at_top = np.zeros(size, np.int64)
    first_equal = np.arange(size)
    seen: dict[bytes, int] = {}
    moments = _Moments(dim, second=size * dim**2 <= most_products and dim <= _MOST_DIM)
    with progress.step("measure rows", size, "rows") as step:
        for start, block in _blocks(bank, block_bytes):
            part = slice(start, start + len(block))
            with np.errstate(over="ignore", invalid="ignore"):  # the check below reports damaged rows
                squares[part], variation[part], at_top[part] = _measure(block)
            _check(bank, squares[part], start)
            usable = squares[part] > 0
            for row in np.flatnonzero(usable).tolist():
                digest = hashlib.blake2b(block[row].data, digest_size=_DIGEST_BYTES).digest()
                first_equal[start + row] = seen.setdefault(digest, start + row)
            moments.add(block if usable.all() else block[usable])
            bank.release()
            step.advance(len(block))
    usable = squares > 0
    isotropy = _isotropy(bank, usable, moments, sampled_rows)
    return RowMeasures(usable, moments.mean_cosine(squares.sum()), isotropy, variation, at_top, first_equal)


def iso_score(effective_dimension: float, dim: int) -> float:
    """IsoScore (Rudman et al. 2022, "IsoScore: Measuring the Uniformity of Embedding Space Utilization").

    Their steps reduce to (D − 1) / (dim − 1), where D = tr(Σ)² / ‖Σ‖² in the Frobenius norm: with eigenvalues λ of Σ,
    scaled to √dim · λ / ‖λ‖, the squared isotropy defect is δ² = (dim − √dim · Σλ / ‖λ‖) / (dim − √dim), and their
    number of dimensions in use, (dim − δ² (dim − √dim))² / dim, is then (Σλ)² / ‖λ‖². Σλ and ‖λ‖ are the trace and the
    norm of Σ, so no eigenvalue is needed.

    Args:
        effective_dimension: D, from 1 to dim.
        dim: the number of elements of a row; 2 or more.
    """
    return (effective_dimension - 1) / (dim - 1)


def saturated_rows(
    variation: Float32[np.ndarray, "vocab"], at_top: Int64[np.ndarray, "vocab"], dim: int
) -> tuple[Bool[np.ndarray, "vocab"], Bool[np.ndarray, "vocab"]]:
    """Which rows are saturated, and which others are partly saturated.

    A sign-based optimizer such as Lion (Chen et al. 2023) drives rows of rare tokens to ±c in every element. A row
    counts as saturated if std(|x|) / mean(|x|) is below 0.2. That ratio is the tangent of the angle θ to the nearest of
    the 2^dim corners (±1, …, ±1). A row of random direction counts as saturated with a probability below
    2^dim · sin(θ)^(dim − 1), the share of the sphere that caps around all corners cover: below 1e-12 at 32 elements,
    1e-25 at 64. Uniform elements have a ratio of 0.58 ± 0.08 at 32; heavier tails only raise it.

    A row is partly saturated if a tenth of its elements, and at least ten, are within 1 % of the largest magnitude, as
    after clipping. A row of normal elements has about 0.01 · m² such elements, where m is the largest in standard
    deviations: 0.2 for 4,096 elements.
    """
    saturated = variation < _SATURATED_VARIATION
    partly = ~saturated & np.isfinite(variation) & (at_top >= max(_LEAST_AT_TOP, _TOP_SHARE * dim))
    return saturated, partly


class _Moments:
    """The sum of rows and, with `second`, the sum of their outer products about a point near their mean."""

    def __init__(self, dim: int, second: bool) -> None:
        self.count, self.total, self._second = 0, np.zeros(dim), second
        self._shift: np.ndarray | None = None
        self._products = np.zeros((dim, dim)) if second else None

    def add(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        self.count += len(rows)
        total = rows.sum(axis=0, dtype=np.float64)
        self.total += total
        if self._products is None:
            return
        if self._shift is None:
            self._shift = (total / len(rows)).astype(np.float32)  # near the mean, to avoid cancellation
        centered = rows - self._shift
        self._products += centered.T @ centered

    @property
    def mean(self) -> Float64[np.ndarray, "dim"]:
        return self.total / self.count

    def take_covariance(self) -> Float64[np.ndarray, "dim dim"] | None:
        """The covariance Σ, computed in place of the products, which are lost; None without `second`."""
        if self._products is None or self._shift is None:
            return None
        offset = self.mean - self._shift
        self._products /= self.count
        self._products -= offset[:, None] * offset
        covariance, self._products = self._products, None
        return covariance

    def mean_cosine(self, squares: float) -> float | None:
        """The mean over all ordered pairs of different rows: (‖Σe‖² − Σ‖e‖²) / (n (n − 1))."""
        if self.count < 2:
            return None
        return float((self.total @ self.total - squares) / (self.count * (self.count - 1)))


def _blocks(bank: Bank, block_bytes: int) -> Iterator[tuple[int, Float32[np.ndarray, "rows dim"]]]:
    step = max(1, block_bytes // (4 * bank.dim))
    for start in range(0, bank.size, step):
        yield start, np.ascontiguousarray(bank.vectors(slice(start, start + step)))


def _check(bank: Bank, squares: np.ndarray, start: int) -> None:
    invalid = np.flatnonzero(~np.isfinite(squares))
    if len(invalid):
        raise CorruptBankError(f"{bank.path}: row {start + int(invalid[0]):,} has NaN or infinity", REPAIR)


def _measure(
    block: Float32[np.ndarray, "rows dim"],
) -> tuple[Float64[np.ndarray, "rows"], Float32[np.ndarray, "rows"], Int64[np.ndarray, "rows"]]:
    """Squared length, variation and number of elements at the top of each row, in steps that fit a core's cache."""
    rows, dim = block.shape
    squares, sums, at_top = np.zeros(rows), np.zeros(rows), np.zeros(rows, np.int64)
    step = max(1, _CACHED_ELEMENTS // dim)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        magnitudes = np.abs(block[part])
        top = magnitudes.max(axis=1, keepdims=True)
        at_top[part] = np.count_nonzero(magnitudes >= np.float32(_AT_TOP) * top, axis=1)
        sums[part] = magnitudes.sum(axis=1, dtype=np.float64)
        squares[part] = np.square(magnitudes, out=magnitudes).sum(axis=1, dtype=np.float64)
    # The mean square is the squared mean plus the variance.
    ratio = np.divide(dim * squares, sums**2, out=np.full(rows, np.inf), where=sums > 0)
    return squares, np.sqrt(np.maximum(ratio - 1, 0)).astype(np.float32), at_top


def _isotropy(bank: Bank, usable: np.ndarray, moments: _Moments, sampled_rows: int) -> Isotropy | None:
    dim = bank.dim
    if moments.count < 2 or dim < 2:
        return None
    covariance, sampled = moments.take_covariance(), 0
    if covariance is not None:
        trace, squared_norm = float(np.trace(covariance)), float(np.einsum("ij,ij->", covariance, covariance))
    else:
        trace, squared_norm, sampled = _sampled_norms(bank, np.flatnonzero(usable), moments.mean, sampled_rows)
    if trace <= _LEAST_VARIANCE:
        return None
    # An estimate from a sample may be outside the range from 1 to dim.
    effective = min(max(trace**2 / squared_norm, 1.0), float(dim)) if squared_norm > 0 else float(dim)
    return Isotropy(iso_score(effective, dim), effective, sampled)


def _sampled_norms(
    bank: Bank, row_ids: Int64[np.ndarray, "usable"], mean: Float64[np.ndarray, "dim"], sampled_rows: int
) -> tuple[float, float, int]:
    """Estimates of tr(Σ) and ‖Σ‖² from a sample of rows, and the size of the sample.

    For rows x about their mean, ‖Σ‖² is the mean of (x·y)² over all ordered pairs, including each row with itself. The
    two kinds of pairs are averaged separately, because pairs of a row with itself are a larger share in a sample.
    """
    count = len(row_ids)
    chosen = np.sort(np.random.default_rng(_SAMPLE_SEED).permutation(row_ids)[:sampled_rows])
    centered = np.empty((len(chosen), bank.dim), np.float32)
    for start in range(0, len(chosen), _GRAM_ROWS):
        part = slice(start, start + _GRAM_ROWS)
        np.subtract(bank.vectors(chosen[part]), mean.astype(np.float32), out=centered[part])
        bank.release()
    lengths = np.einsum("rd,rd->r", centered, centered, dtype=np.float64)
    total = 0.0
    for start in range(0, len(centered), _GRAM_ROWS):
        products = centered[start : start + _GRAM_ROWS] @ centered.T
        total += float(np.square(products, out=products).sum(dtype=np.float64))
    own = float(np.square(lengths).sum())
    different = (total - own) / (len(centered) * (len(centered) - 1))
    return float(lengths.mean()), ((count - 1) * different + own / len(centered)) / count, len(centered)
