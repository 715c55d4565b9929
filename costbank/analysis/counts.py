"""How the agreement of neighbors depends on how often a token occurs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from costbank.bank import Bank

__all__ = ["CountBand", "bands_by_count", "known_counts"]

_FACTOR = 10


@dataclass(frozen=True)
class CountBand:
    """The mean agreement of the `tokens` that occur at least `least` and at most `most` times."""

    least: int
    most: int
    tokens: int
    overlap: float
    rank_biased_overlap: float


def known_counts(banks: Sequence[Bank]) -> tuple[int, Int64[np.ndarray, "vocab"]] | None:
    """The first of the banks that has counts, by its position, and these counts; None if none has."""
    return next(((i, bank.vocab.counts) for i, bank in enumerate(banks) if (bank.vocab.counts > 0).any()), None)


def bands_by_count(
    counts: Int64[np.ndarray, "tokens"],
    overlaps: Float64[np.ndarray, "tokens"],
    ranked: Float64[np.ndarray, "tokens"],
) -> tuple[CountBand, ...]:
    """The mean agreement of tokens that occur 1 to 9 times, 10 to 99 times, and so on, without bands of no tokens.

    Args:
        counts: how often each token occurs; tokens with a count below 1 are left out.
        overlaps, ranked: the agreement of each token's neighbors.
    """
    bands, least = [], 1
    while least <= counts.max(initial=0):
        inside = (counts >= least) & (counts < _FACTOR * least)
        if inside.any():
            means = float(overlaps[inside].mean()), float(ranked[inside].mean())
            bands.append(CountBand(least, _FACTOR * least - 1, int(inside.sum()), *means))
        least *= _FACTOR
    return tuple(bands)
