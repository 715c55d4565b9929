"""Tokens that no cost tells apart: those that share a row, and those whose rows all but agree."""

import numpy as np
from jaxtyping import Bool, Int64

from costbank.analysis.health.result import Duplicates
from costbank.neighbors import NeighborTable

__all__ = ["NEAR_COST", "Groups", "equal_groups", "near_groups", "summary"]

NEAR_COST = 1e-6
"""Costs below it are those of rounding in float32 rows."""

_BLOCK_ELEMENTS = 1 << 22

Groups = list[Int64[np.ndarray, "members"]]
"""Ids that belong together, ascending; the largest group first, then by its first id."""


def equal_groups(first_equal: Int64[np.ndarray, "vocab"]) -> Groups:
    """Groups of ids with one row, given the smallest id that has the same row as each."""
    return _groups(first_equal, np.bincount(first_equal, minlength=len(first_equal)) > 1)


def near_groups(
    table: NeighborTable, usable: Bool[np.ndarray, "vocab"], first_equal: Int64[np.ndarray, "vocab"]
) -> Groups:
    """Groups of ids that a chain of costs below `NEAR_COST` joins, of two different rows at least."""
    one, other = _near_pairs(table, usable)
    one, other = first_equal[one], first_equal[other]
    apart = one != other
    joined = _components(len(first_equal), one[apart], other[apart])[first_equal]
    firsts = first_equal == np.arange(len(first_equal))
    return _groups(joined, np.bincount(joined[firsts], minlength=len(joined)) > 1)


def summary(groups: Groups) -> Duplicates:
    return Duplicates(len(groups), sum(map(len, groups)), max(map(len, groups), default=0))


def _groups(labels: np.ndarray, wanted: np.ndarray) -> Groups:
    """The ids of each label that is wanted."""
    ids = np.flatnonzero(wanted[labels])
    if not len(ids):
        return []
    sizes = np.bincount(labels, minlength=len(labels))[labels[ids]]
    ids = ids[np.lexsort((ids, labels[ids], -sizes))]
    return np.split(ids, np.flatnonzero(np.diff(labels[ids])) + 1)


def _near_pairs(table: NeighborTable, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, _BLOCK_ELEMENTS // max(table.k, 1))
    ones, others = [], []
    for start in range(0, len(usable), step):
        part = slice(start, start + step)
        rows, columns = np.nonzero((table.costs[part] < NEAR_COST) & (table.ids[part] >= 0))
        ones.append(rows + start)
        others.append(table.ids[part][rows, columns].astype(np.int64))
    return np.concatenate(ones), np.concatenate(others)


def _components(size: int, one: np.ndarray, other: np.ndarray) -> Int64[np.ndarray, "vocab"]:
    """The smallest id that pairs lead to from each id; roots are joined, so that a chain takes few rounds."""
    labels = np.arange(size)
    while (labels[one] != labels[other]).any():
        low = np.minimum(labels[one], labels[other])
        for end in (one, other):
            np.minimum.at(labels, labels[end], low)
            np.minimum.at(labels, end, low)
        while (labels[labels] != labels).any():
            labels = labels[labels]
    return labels
