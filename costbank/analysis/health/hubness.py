"""Hubs: tokens that are among the nearest of many others, whatever these mean."""

import numpy as np
from jaxtyping import Bool, Int64

from costbank.analysis.health.result import Hubness
from costbank.neighbors import NeighborTable

__all__ = ["HUB_FACTOR", "hubness", "occurrences"]

HUB_FACTOR = 10
"""A hub is in this many times as many lists as the mean token."""

_MOST_COLUMNS = 10


def occurrences(table: NeighborTable, k: int) -> Int64[np.ndarray, "vocab"]:
    """N_k of every id: how many tokens have it among their k nearest (Radovanović et al. 2010, section 3)."""
    near = table.ids[:, :k]
    return np.bincount(near[near >= 0], minlength=len(near))


def hubness(
    table: NeighborTable, usable: Bool[np.ndarray, "vocab"], exact: bool
) -> tuple[Hubness, Int64[np.ndarray, "vocab"]]:
    """How unevenly the 10 nearest (or as many as there are) are spread over tokens, and N_k of every id."""
    k = min(_MOST_COLUMNS, table.k)
    counts = occurrences(table, k)
    usable_counts = counts[usable].astype(np.float64)
    hubs = counts >= HUB_FACTOR * k
    found = Hubness(
        k=k,
        exact=exact,
        skewness=_skewness(usable_counts),
        largest=int(counts.max(initial=0)),
        hubs=int(hubs.sum()),
        hub_share=float(counts[hubs].sum() / max(counts.sum(), 1)),
        antihubs=int((usable_counts == 0).sum()),
    )
    return found, counts


def _skewness(values: np.ndarray) -> float:
    if not len(values):
        return 0.0
    away = values - values.mean()
    variance = float(np.mean(away**2))
    return float(np.mean(away**3)) / variance**1.5 if variance > 0 else 0.0
