"""Hubs: tokens that are among the nearest of many others, whatever they mean."""

import numpy as np
from jaxtyping import Bool, Int64

from costbank.analysis.health.result import Hubness
from costbank.neighbors import NeighborTable

__all__ = ["HUB_FACTOR", "hubness", "k_occurrences"]

HUB_FACTOR = 10
"""A hub is in this many times as many neighbor lists as the average token."""

_MAX_K = 10


def k_occurrences(table: NeighborTable, k: int) -> Int64[np.ndarray, "vocab"]:
    """N_k of every id: how many tokens have it among their k nearest (Radovanović et al. 2010, section 3)."""
    near = table.ids[:, :k]
    return np.bincount(near[near >= 0], minlength=len(near))


def hubness(
    table: NeighborTable, usable: Bool[np.ndarray, "vocab"], exact: bool
) -> tuple[Hubness, Int64[np.ndarray, "vocab"]]:
    """How unevenly tokens occur among the 10 nearest (fewer in a narrower table) of others, and N_k of every id."""
    k = min(_MAX_K, table.k)
    counts = k_occurrences(table, k)
    usable_counts = counts[usable].astype(np.float64)
    hubs = counts >= HUB_FACTOR * k
    result = Hubness(
        k=k,
        exact=exact,
        skewness=_skewness(usable_counts),
        largest=int(counts.max(initial=0)),
        hubs=int(hubs.sum()),
        hub_share=float(counts[hubs].sum() / max(counts.sum(), 1)),
        antihubs=int((usable_counts == 0).sum()),
    )
    return result, counts


def _skewness(values: np.ndarray) -> float:
    if not len(values):
        return 0.0
    deviations = values - values.mean()
    variance = float(np.mean(deviations**2))
    return float(np.mean(deviations**3)) / variance**1.5 if variance > 0 else 0.0
