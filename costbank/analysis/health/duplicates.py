"""Tokens that costs cannot distinguish: those with equal rows, and those with rows that are equal up to rounding."""

import numpy as np
from jaxtyping import Bool, Int64

from costbank.analysis.health.result import Duplicates
from costbank.neighbors import NeighborTable

__all__ = ["NEAR_COST", "TokenGroups", "count_duplicates", "duplicate_groups", "near_duplicate_groups"]

NEAR_COST = 1e-6
"""Smaller costs are rounding errors of float32 rows."""

_BLOCK_ELEMENTS = 1 << 22

TokenGroups = list[Int64[np.ndarray, "members"]]
"""Ids of tokens in groups: the largest group first, then by its smallest id. The ids of a group ascend."""


def duplicate_groups(first_equal: Int64[np.ndarray, "vocab"]) -> TokenGroups:
    """Groups of ids with equal rows.

    Args:
        first_equal: for each id, the smallest id with the same row.
    """
    return _groups_by_label(first_equal, np.bincount(first_equal, minlength=len(first_equal)) > 1)


def near_duplicate_groups(
    table: NeighborTable, usable: Bool[np.ndarray, "vocab"], first_equal: Int64[np.ndarray, "vocab"]
) -> TokenGroups:
    """Groups of ids that a chain of costs below `NEAR_COST` connects, each with at least two different rows."""
    sources, targets = _near_pairs(table, usable)
    sources, targets = first_equal[sources], first_equal[targets]
    differ = sources != targets
    components = _components(len(first_equal), sources[differ], targets[differ])[first_equal]
    is_first = first_equal == np.arange(len(first_equal))
    different_rows = np.bincount(components[is_first], minlength=len(components))
    return _groups_by_label(components, different_rows > 1)


def count_duplicates(groups: TokenGroups) -> Duplicates:
    return Duplicates(len(groups), sum(map(len, groups)), max(map(len, groups), default=0))


def _groups_by_label(labels: np.ndarray, included: np.ndarray) -> TokenGroups:
    """The ids of each included label."""
    ids = np.flatnonzero(included[labels])
    if not len(ids):
        return []
    sizes = np.bincount(labels, minlength=len(labels))[labels[ids]]
    ids = ids[np.lexsort((ids, labels[ids], -sizes))]
    return np.split(ids, np.flatnonzero(np.diff(labels[ids])) + 1)


def _near_pairs(table: NeighborTable, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of ids with a cost below `NEAR_COST`."""
    step = max(1, _BLOCK_ELEMENTS // max(table.k, 1))
    sources, targets = [], []
    for start in range(0, len(usable), step):
        block = slice(start, start + step)
        rows, columns = np.nonzero((table.costs[block] < NEAR_COST) & (table.ids[block] >= 0))
        sources.append(rows + start)
        targets.append(table.ids[block][rows, columns].astype(np.int64))
    return np.concatenate(sources), np.concatenate(targets)


def _components(size: int, sources: np.ndarray, targets: np.ndarray) -> Int64[np.ndarray, "vocab"]:
    """The connected component of each id, as its smallest id. Roots are joined, so a long chain takes few rounds."""
    labels = np.arange(size)
    while (labels[sources] != labels[targets]).any():
        low = np.minimum(labels[sources], labels[targets])
        for ends in (sources, targets):
            np.minimum.at(labels, labels[ends], low)
            np.minimum.at(labels, ends, low)
        while (labels[labels] != labels).any():
            labels = labels[labels]
    return labels
