"""Compute a neighbor table by a plan, and measure its recall against the exact table."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from costbank.neighbors.candidates import Int8Candidates, Proposer, ReducedCandidates
from costbank.neighbors.plan import NeighborPlan, spoken
from costbank.neighbors.table import NeighborTable, Rows, exact_nearest, exact_neighbors, rerank

__all__ = ["RECALL_TOLERANCE", "FoundNeighbors", "find_neighbors"]

RECALL_TOLERANCE = 1e-4
"""A neighbor counts as found where its cost is at most this much above the exact one. Untrained rows of a real head
lie within such costs of each other by the thousand, and it makes no difference which of them a table holds."""

_RECALL_AT = 10
_SAMPLED_ROWS = 512
_SAMPLE_SEED = 1
_SPARE = (32, 128, 512)
_PROPOSERS: dict[str, Callable[..., Proposer]] = {"int8": Int8Candidates, "reduced": ReducedCandidates}


@dataclass(frozen=True)
class FoundNeighbors:
    """A neighbor table and its measured recall.

    Attributes:
        table: the neighbors.
        method: the method used; `exact` also where an approximate method did not reach the required recall.
        recall_at: how many neighbors of a token `recall` looks at, 10 or fewer.
        recall: share of the neighbors in the table that are among the exact nearest, or cost at most `tolerance` more
            than the last of these, measured on `sampled` rows; 1 where the table is exact.
        recall_of_all: the same over all k columns.
        recall_tolerance: see `recall`; 0 where the table is exact.
        candidates: how many were decided by their costs for each row; 0 where the table is exact.
        sampled: rows that the recall was measured on.
    """

    table: NeighborTable
    method: str = "exact"
    recall_at: int = _RECALL_AT
    recall: float = 1.0
    recall_of_all: float = 1.0
    recall_tolerance: float = 0.0
    candidates: int = 0
    sampled: int = 0


def find_neighbors(
    rows: Rows,
    usable: Bool[np.ndarray, "vocab"],
    plan: NeighborPlan,
    least_recall: float,
    advance: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> FoundNeighbors:
    """The k nearest usable tokens of each usable token.

    A coarser method is tried on a sample first, with more and more candidates until its recall suffices. Where it
    never does, the table is made exactly; `note` is first called with an estimate of its time.

    Args:
        rows: unit rows as they are stored.
        usable: which rows have a vector.
        plan: k and the method.
        least_recall: recall@10 that a method other than `exact` must reach on the sample.
        advance: called with the number of rows finished, after each block.
        note: called with a message about the recall on the sample.
    """
    row_ids = np.flatnonzero(usable)
    wanted = min(plan.k, len(row_ids) - 1)
    if plan.method == "exact" or wanted < 1:
        return FoundNeighbors(exact_neighbors(rows, usable, plan.k, advance), recall_at=min(_RECALL_AT, plan.k))
    proposer = _PROPOSERS[plan.method](rows, row_ids)
    sample = np.random.default_rng(_SAMPLE_SEED).permutation(len(row_ids))[:_SAMPLED_ROWS]
    began = time.perf_counter()
    exact = exact_nearest(rows, row_ids, row_ids[sample], wanted)[1]
    exact_seconds = (time.perf_counter() - began) * len(row_ids) / len(sample)
    at, recall = min(_RECALL_AT, wanted), 0.0
    for spare in _SPARE:
        count = min(wanted + 1 + spare, len(row_ids))
        approximate = rerank(rows, row_ids[sample], row_ids[_proposed(proposer, sample, count)], wanted)[1]
        recall, recall_of_all = _recall(approximate, exact, at), _recall(approximate, exact, wanted)
        if note:
            note(f"{plan.method}, {count} candidates: recall@{at} {recall:.4f}, recall@{wanted} {recall_of_all:.4f} "
                 f"within {RECALL_TOLERANCE:g} of the exact costs, on {len(sample)} rows")  # fmt: skip
        if recall >= least_recall:
            break
    else:
        if note:
            note(f"recall@{at} stays below {least_recall}: the table is made exactly, which will take about "
                 f"{spoken(exact_seconds)}, as these rows took; to accept the recall instead, stop now and build "
                 f"with --set neighbors.min_recall={math.floor(recall * 100) / 100:.2f}")  # fmt: skip
        del proposer
        return FoundNeighbors(exact_neighbors(rows, usable, plan.k, advance), recall_at=at)
    table = NeighborTable.empty(len(usable), plan.k)
    for start in range(0, len(row_ids), proposer.query_rows):
        positions = np.arange(start, min(start + proposer.query_rows, len(row_ids)))
        part = row_ids[positions]
        near = row_ids[proposer.propose(positions, count)]
        table.ids[part, :wanted], table.costs[part, :wanted] = rerank(rows, part, near, wanted)
        if advance:
            advance(len(part))
    return FoundNeighbors(table, plan.method, at, recall, recall_of_all, RECALL_TOLERANCE, count, len(sample))


def _proposed(proposer: Proposer, positions: np.ndarray, count: int) -> np.ndarray:
    step = proposer.query_rows
    return np.concatenate([proposer.propose(positions[i : i + step], count) for i in range(0, len(positions), step)])


def _recall(
    approximate: Float32[np.ndarray, "rows wanted"], exact: Float32[np.ndarray, "rows wanted"], at: int
) -> float:
    """Recall by costs and not by ids, so that neighbors with equal or nearly equal costs are interchangeable."""
    return float((approximate[:, :at] <= exact[:, at - 1 : at] + RECALL_TOLERANCE).mean())
