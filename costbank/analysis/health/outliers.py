"""Rows with an unusual length or direction before they were normalized."""

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.health.duplicates import TokenGroups
from costbank.analysis.health.result import Norms, UnderTraining
from costbank.bank import Bank

__all__ = ["duplicate_row_cosines", "norm_outliers", "under_trained"]

_DEVIATIONS = 6.0
_LEAST_EQUAL_ROWS = 8
_LEAST_COHERENCE = 0.9
_BLOCK_ROWS = 8_192
_LEAST_FACTOR = 2.0
_MAD_TO_DEVIATION = 1.4826
_QUANTILES = (0, 0.01, 0.25, 0.5, 0.75, 0.99, 1)
_MOST_COSINE = 1 - 1e-7


def norm_outliers(norms: Float32[np.ndarray, "tokens"]) -> Norms:
    """The distribution of the lengths of raw rows, and the bounds beyond which a length is an outlier.

    Lengths are compared by ratio. An outlier's logarithm is at least 6 standard deviations from the median, estimated
    as 1.4826 × the median absolute deviation (Rousseeuw & Croux 1993), and its length is at least twice or at most half
    the median.

    Args:
        norms: Euclidean lengths, all above 0; at least one.
    """
    logs = np.log(norms.astype(np.float64))
    middle = float(np.median(logs))
    reach = max(_DEVIATIONS * _spread(logs, middle), float(np.log(_LEAST_FACTOR)))
    low, high = float(np.exp(middle - reach)), float(np.exp(middle + reach))
    least, p1, p25, median, p75, p99, largest = np.quantile(norms.astype(np.float64), _QUANTILES).tolist()
    small, large = int((norms < low).sum()), int((norms > high).sum())
    return Norms(least, p1, p25, median, p75, p99, largest, low, high, small, large)


def under_trained(cosines: Float32[np.ndarray, "tokens"]) -> tuple[UnderTraining, Int64[np.ndarray, "candidates"]]:
    """Tokens with raw rows near the mean of untrained rows: their number, and their positions, the nearest first.

    The indicator is that of Land & Bartolo 2024 ("Fishing for Magikarp"), who look at the nearest 2 %. Here the
    threshold follows from the distribution: 6 standard deviations above the median on Fisher's z scale, artanh(cosine),
    estimated by the median absolute deviation, and nearer to 1 than to the median.

    Args:
        cosines: of raw rows to the mean of untrained rows; at least one, none NaN.
    """
    scale = np.arctanh(np.clip(cosines.astype(np.float64), -_MOST_COSINE, _MOST_COSINE))
    middle = float(np.median(scale))
    median = float(np.tanh(middle))
    least = max(middle + _DEVIATIONS * _spread(scale, middle), float(np.arctanh((1 + median) / 2)))
    order = np.argsort(-cosines, kind="stable")
    nearest = order[scale[order] > least]
    return UnderTraining(median, float(cosines.max()), float(np.tanh(least)), len(nearest)), nearest


def duplicate_row_cosines(
    bank: Bank, groups: TokenGroups, norms: Float32[np.ndarray, "vocab"]
) -> Float32[np.ndarray, "vocab"] | None:
    """Cosines of all rows to the mean raw row of tokens that share a row bit for bit.

    In a trained head, two tokens have the same row only if neither was ever seen. So these rows can replace those of
    unused ids in a vocabulary that has none.

    Args:
        bank: a bank of untransformed rows.
        groups: ids with equal rows.
        norms: lengths of the raw rows.

    Returns:
        None for fewer than 8 such tokens, or if they do not share a direction, as untrained rows do.
    """
    ids = np.concatenate(groups) if groups else np.zeros(0, np.int64)
    if len(ids) < _LEAST_EQUAL_ROWS:
        return None
    rows = bank.vectors(ids)
    mean = (rows * norms[ids, None]).mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length == 0:
        return None
    direction = (mean / length).astype(np.float32)
    if float((rows @ direction).mean()) < _LEAST_COHERENCE:
        return None
    cosines = np.empty(bank.size, np.float32)
    for start in range(0, bank.size, _BLOCK_ROWS):
        cosines[start : start + _BLOCK_ROWS] = bank.vectors(slice(start, start + _BLOCK_ROWS)) @ direction
        bank.release()
    return cosines


def _spread(values: np.ndarray, middle: float) -> float:
    """The standard deviation of normal values, estimated so that a minority of outliers does not change it."""
    return _MAD_TO_DEVIATION * float(np.median(np.abs(values - middle)))
