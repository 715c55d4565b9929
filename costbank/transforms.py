"""Transforms of raw rows, and the normalization that turns them into a bank's unit rows.

    center      subtract the mean row
    abtt:n      all but the top: center, then remove the n leading principal directions (Mu & Viswanath 2018)
    pca:n       center, then keep the n leading principal directions
    whiten      center, then rotate and scale so that the covariance is the identity

Each transform is an affine map that follows from the mean and the covariance of the rows. The covariance of mapped rows
follows from that of the rows, so a sequence of transforms is fitted in one pass over the rows, and applied as one map
in the next. Zero rows stay zero and are not part of the mean.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from costbank.errors import InputError, UsageError

__all__ = [
    "Affine",
    "canonical_transform",
    "column_signs",
    "fit_transforms",
    "normalize",
    "output_dim",
    "parse_transform",
    "signed",
]

_WITH_COUNT = {"abtt": 2, "pca": None}
_WITHOUT_COUNT = ("center", "whiten")
_LEAST_VARIANCE = 1e-6
_ROUNDING = 1e-5
_CACHED_ELEMENTS = 1 << 16


def normalize(
    rows: Float[np.ndarray, "rows dim"],
) -> tuple[Float32[np.ndarray, "rows dim"], Float32[np.ndarray, "rows"]]:
    """Rows divided by their Euclidean norms, and the norms, computed in float64; zero rows stay zero."""
    unit = np.empty(rows.shape, np.float32)
    norms = np.empty(len(rows), np.float32)
    step = max(1, _CACHED_ELEMENTS // rows.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            wide = rows[part].astype(np.float64)
            lengths = np.sqrt(np.einsum("rd,rd->r", wide, wide))
            norms[part] = lengths
            unit[part] = np.divide(wide, np.where(lengths > 0, lengths, 1)[:, None], out=wide)
    return unit, norms


@dataclass(frozen=True)
class Affine:
    """x ↦ (x − `offset`) @ `matrix`; a matrix of None is the identity, and without an offset rows do not change.

    `gain` is the largest factor by which the matrix lengthens a vector. It helps to tell a short result from a zero
    with rounding errors.
    """

    offset: Float64[np.ndarray, "dim"] | None = None
    matrix: Float64[np.ndarray, "dim out"] | None = None
    gain: float = 1.0

    @property
    def changes(self) -> bool:
        return self.offset is not None

    def __call__(
        self, rows: Float32[np.ndarray, "rows dim"], usable: Bool[np.ndarray, "rows"]
    ) -> Float32[np.ndarray, "rows out"]:
        """The mapped rows. Rows that are not usable, and results that are zero except for rounding errors, are zero."""
        if self.offset is None:
            return np.where(usable[:, None], rows, np.float32(0))
        centered = rows - self.offset
        mapped = centered @ self.matrix if self.matrix is not None else centered
        lengths = _lengths(centered)
        is_nonzero = (lengths > _ROUNDING * _lengths(rows)) & (_lengths(mapped) > _ROUNDING * self.gain * lengths)
        return np.where((usable & is_nonzero)[:, None], mapped, 0).astype(np.float32)


def parse_transform(text: str) -> tuple[str, int | None]:
    """`center`, `abtt:3` or `pca:128` as a name and a number of directions.

    Raises:
        UsageError: there is no such transform, or its number is missing or invalid.
    """
    name, _, number = text.partition(":")
    if name in _WITHOUT_COUNT and not number:
        return name, None
    if name in _WITH_COUNT and ((number.isdecimal() and int(number)) or (not number and _WITH_COUNT[name])):
        return name, int(number or _WITH_COUNT[name] or 0)
    raise UsageError(
        f"{text!r} is not a transform",
        "write center, abtt:2 (directions to remove), pca:128 (directions to keep), or whiten",
    )


def canonical_transform(text: str) -> str:
    """The canonical text of a transform: `abtt:2` for `abtt`, `pca:64` for `pca:064`.

    Raises:
        UsageError: see `parse_transform`.
    """
    name, count = parse_transform(text)
    return name if count is None else f"{name}:{count}"


def output_dim(transforms: Sequence[str], dim: int) -> int:
    """The number of elements of a row after these transforms.

    Raises:
        UsageError: a transform needs more directions than the rows have.
    """
    for text in transforms:
        name, count = parse_transform(text)
        if count is not None and count >= dim + (name == "pca"):
            raise UsageError(f"{text} needs more directions than the rows have ({dim:,})", "give a smaller number")
        dim = count if name == "pca" and count else dim
    return dim


def fit_transforms(
    transforms: Sequence[str],
    blocks: Iterable[Float32[np.ndarray, "rows dim"]],
    advance: Callable[[int], None] | None = None,
) -> tuple[Affine, list[dict[str, object]]]:
    """One map for all transforms in their order, and a record of each for the manifest.

    Args:
        transforms: such as `center` or `pca:128`; at least one.
        blocks: all raw rows.
        advance: called after each block with its number of rows.

    Raises:
        InputError: fewer than two rows are not zero.
    """
    mean, covariance = _moments(blocks, any(text != "center" for text in transforms), advance)
    offset, matrix, gain, records = mean, None, 1.0, []
    for text in transforms:
        name, count = parse_transform(text)
        record: dict[str, object] = {"name": text, "mean_norm": float(np.linalg.norm(mean))}
        if name != "center":
            values, directions = np.linalg.eigh(covariance)
            values, directions = np.maximum(values[::-1], 0), signed(directions[:, ::-1])
            share = values / max(values.sum(), np.finfo(np.float64).tiny)
            factor, kept = _matrix_of(name, count, values, directions)
            record["variance_share"] = float(share[: count or len(share)].sum())
            record["kept"] = kept
            matrix = factor if matrix is None else matrix @ factor
            covariance = factor.T @ covariance @ factor
            gain *= float(np.linalg.norm(factor, axis=0).max()) if name == "whiten" else 1.0
        mean = np.zeros(covariance.shape[0])
        records.append(record)
    return Affine(offset, matrix, gain), records


def _matrix_of(name: str, count: int | None, values: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, int]:
    """The matrix of one transform of centered rows, and the number of directions that it keeps."""
    if name == "abtt":
        removed = directions[:, :count]
        return np.eye(len(values)) - removed @ removed.T, len(values) - (count or 0)
    if name == "pca":
        return directions[:, :count], count or 0
    # Directions with almost no variance are rounding errors, which must not be scaled up to the variance of the others.
    strong = values > _LEAST_VARIANCE * values[0]
    scales = np.where(strong, 1 / np.sqrt(np.where(strong, values, 1)), 0)
    return directions * scales, int(strong.sum())


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64))


def column_signs(directions: Float[np.ndarray, "dim directions"]) -> Float[np.ndarray, "directions"]:
    """1 or −1 for each column, so that the element of largest magnitude is positive in the product of the two.

    Eigenvectors and singular vectors are unique only up to their sign; multiplied by these signs, they do not depend on
    the solver.
    """
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.where(largest < 0, -1, 1).astype(directions.dtype)


def signed(directions: Float64[np.ndarray, "dim directions"]) -> Float64[np.ndarray, "dim directions"]:
    """The columns times their `column_signs`."""
    return directions * column_signs(directions)


def _moments(
    blocks: Iterable[np.ndarray], second: bool, advance: Callable[[int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the rows that are not zero; without `second`, the covariance is all zero."""
    total, products, count, shift = None, None, 0, None
    for block in blocks:
        rows = block[block.any(axis=1)]
        if shift is None and len(rows):
            shift = rows.astype(np.float64).mean(axis=0)  # near the mean, to avoid cancellation
        if shift is not None and len(rows):
            shifted = (rows - shift).astype(np.float32)
            total = shifted.sum(axis=0, dtype=np.float64) + (0 if total is None else total)
            if second:
                products = (shifted.T @ shifted).astype(np.float64) + (0 if products is None else products)
            count += len(rows)
        if advance:
            advance(len(block))
    if count < 2 or total is None or shift is None:
        raise InputError("fewer than two rows are not zero", "transforms need at least two nonzero rows")
    mean = total / count
    covariance = np.zeros((len(mean), len(mean))) if products is None else products / count - np.outer(mean, mean)
    return shift + mean, covariance
