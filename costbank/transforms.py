"""What happens to raw vectors before they become a bank's unit rows.

    center      subtract the mean row
    abtt:n      all but the top: center, then remove the n leading principal directions (Mu & Viswanath 2018)
    pca:n       center, then keep the n leading principal directions
    whiten      center, then turn and scale so that the covariance is the identity

Each is an affine map that the mean and the covariance of the rows determine. The covariance of mapped rows follows from
that of the rows, so any sequence of them is fitted in one pass over the rows, and applied as one map in the next.
Rows without length stay zero, and take no part in the mean.
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
_WITHOUT = ("center", "whiten")
_LEAST_VARIANCE = 1e-6
_ROUNDING = 1e-5
_CACHED_ELEMENTS = 1 << 16


def normalize(
    rows: Float[np.ndarray, "rows dim"],
) -> tuple[Float32[np.ndarray, "rows dim"], Float32[np.ndarray, "rows"]]:
    """Rows divided by their Euclidean norm, which is taken in float64, and the norms; zero rows stay zero."""
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
    """x ↦ (x − `offset`) @ `matrix`; a matrix of None is the identity.

    `gain` is how many times longer the matrix can make a vector, which tells a short result from a rounded zero.
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
        """The mapped rows; those that are not usable, or that only rounding keeps from zero, become zero."""
        if self.offset is None:
            return np.where(usable[:, None], rows, np.float32(0))
        moved = rows - self.offset
        mapped = moved @ self.matrix if self.matrix is not None else moved
        lengths = _lengths(moved)
        kept = (lengths > _ROUNDING * _lengths(rows)) & (_lengths(mapped) > _ROUNDING * self.gain * lengths)
        return np.where((usable & kept)[:, None], mapped, 0).astype(np.float32)


def parse_transform(text: str) -> tuple[str, int | None]:
    """`center`, `abtt:3` or `pca:128` as a name and a number of directions.

    Raises:
        UsageError: it is none of the transforms, or its number is missing or no number.
    """
    name, _, number = text.partition(":")
    if name in _WITHOUT and not number:
        return name, None
    if name in _WITH_COUNT and ((number.isdecimal() and int(number)) or (not number and _WITH_COUNT[name])):
        return name, int(number or _WITH_COUNT[name] or 0)
    raise UsageError(
        f"{text!r} is not a transform",
        "write center, abtt:2 (directions to remove), pca:128 (directions to keep), or whiten",
    )


def canonical_transform(text: str) -> str:
    """The one way to write a transform: `abtt` as `abtt:2`, `pca:064` as `pca:64`.

    Raises:
        UsageError: as in `parse_transform`.
    """
    name, count = parse_transform(text)
    return name if count is None else f"{name}:{count}"


def output_dim(transforms: Sequence[str], dim: int) -> int:
    """The size of rows after these transforms.

    Raises:
        UsageError: a transform asks for more directions than there are.
    """
    for text in transforms:
        name, count = parse_transform(text)
        if count is not None and count >= dim + (name == "pca"):
            raise UsageError(f"{text} asks for more directions than the {dim:,} there are", "give a smaller number")
        dim = count if name == "pca" and count else dim
    return dim


def fit_transforms(
    transforms: Sequence[str],
    blocks: Iterable[Float32[np.ndarray, "rows dim"]],
    advance: Callable[[int], None] | None = None,
) -> tuple[Affine, list[dict[str, object]]]:
    """One map for all transforms in their order, and for each what is worth recording of it.

    Raises:
        InputError: there are not two rows with a direction.
    """
    mean, covariance = _moments(blocks, any(text != "center" for text in transforms), advance)
    offset, matrix, gain, applied = mean, None, 1.0, []
    for text in transforms:
        name, count = parse_transform(text)
        record: dict[str, object] = {"name": text, "mean_norm": float(np.linalg.norm(mean))}
        if name != "center":
            values, directions = np.linalg.eigh(covariance)
            values, directions = np.maximum(values[::-1], 0), signed(directions[:, ::-1])
            share = values / max(values.sum(), np.finfo(np.float64).tiny)
            step, kept = _step(name, count, values, directions)
            record["variance_share"] = float(share[: count or len(share)].sum())
            record["kept"] = kept
            matrix = step if matrix is None else matrix @ step
            covariance = step.T @ covariance @ step
            gain *= float(np.linalg.norm(step, axis=0).max()) if name == "whiten" else 1.0
        mean = np.zeros(covariance.shape[0])
        applied.append(record)
    return Affine(offset, matrix, gain), applied


def _step(name: str, count: int | None, values: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, int]:
    if name == "abtt":
        removed = directions[:, :count]
        return np.eye(len(values)) - removed @ removed.T, len(values) - (count or 0)
    if name == "pca":
        return directions[:, :count], count or 0
    # Directions with next to no variance hold rounding, which scaling up would make as loud as the rest.
    strong = values > _LEAST_VARIANCE * values[0]
    scales = np.where(strong, 1 / np.sqrt(np.where(strong, values, 1)), 0)
    return directions * scales, int(strong.sum())


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("rd,rd->r", rows, rows, dtype=np.float64))


def column_signs(directions: Float[np.ndarray, "dim directions"]) -> Float[np.ndarray, "directions"]:
    """1 or −1 for each column: what makes its largest element positive.

    Eigenvectors and singular vectors are unique up to their sign; times these, they do not depend on the solver.
    """
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.where(largest < 0, -1, 1).astype(directions.dtype)


def signed(directions: Float64[np.ndarray, "dim directions"]) -> Float64[np.ndarray, "dim directions"]:
    """The columns times their `column_signs`."""
    return directions * column_signs(directions)


def _moments(
    blocks: Iterable[np.ndarray], second: bool, advance: Callable[[int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the rows that have a direction; the covariance is a 1 × 1 stand-in unless asked for."""
    total, products, count, shift = None, None, 0, None
    for block in blocks:
        rows = block[block.any(axis=1)]
        if shift is None and len(rows):
            shift = rows.astype(np.float64).mean(axis=0)  # near the mean, against cancellation
        if shift is not None and len(rows):
            moved = (rows - shift).astype(np.float32)
            total = moved.sum(axis=0, dtype=np.float64) + (0 if total is None else total)
            if second:
                products = (moved.T @ moved).astype(np.float64) + (0 if products is None else products)
            count += len(rows)
        if advance:
            advance(len(block))
    if count < 2 or total is None or shift is None:
        raise InputError("fewer than two rows have a direction", "transforms need vectors to be fitted to")
    mean = total / count
    covariance = np.zeros((len(mean), len(mean))) if products is None else products / count - np.outer(mean, mean)
    return shift + mean, covariance
