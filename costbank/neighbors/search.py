"""Compute a neighbor table by a plan, and measure its recall against the exact table."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from costbank.neighbors.candidates import Int8Candidates, Proposer, ReducedCandidates
from costbank.neighbors.plan import NeighborPlan, readable_duration
from costbank.neighbors.table import NeighborTable, RowReader, exact_nearest, exact_neighbors, rerank

__all__ = ["RECALL_TOLERANCE", "NeighborResult", "find_neighbors"]

RECALL_TOLERANCE = 1e-4
"""An entry of a table counts as correct in the recall if its cost is at most this much above that of the last exact
entry. The costs between thousands of untrained rows of a real head differ by less, so any of them is as good an entry
as another."""

_RECALL_AT = 10
_SAMPLED_ROWS = 512
_SAMPLE_SEED = 1
_SPARE = (32, 128, 512)
_PROPOSERS: Mapping[str, Callable[..., Proposer]] = {"int8": Int8Candidates, "reduced": ReducedCandidates}


@dataclass(frozen=True)
class NeighborResult:
    """A neighbor table and its measured recall.

    Attributes:
        table: the neighbors.
        method: the method used; `exact` also if an approximate method did not reach the required recall.
        recall_at: the number of nearest tokens that `recall` counts, at most 10.
        recall: the share of a row's first `recall_at` entries that are among the exact nearest, or cost at most
            `recall_tolerance` more than the last of these, measured on `sampled` rows; 1 if the table is exact.
        recall_of_all: the recall over all k columns.
        recall_tolerance: a difference of costs, see `recall`; 0 if the table is exact.
        candidates: the number of candidates per row that exact costs ranked; 0 if the table is exact.
        sampled: the number of rows that the recall was measured on; 0 if the table is exact.
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
    read_rows: RowReader,
    usable: Bool[np.ndarray, "vocab"],
    plan: NeighborPlan,
    least_recall: float,
    advance: Callable[[int], None] | None = None,
    note: Callable[[str], None] | None = None,
    proposers: Mapping[str, Callable[..., Proposer]] = _PROPOSERS,
) -> NeighborResult:
    """The k nearest usable tokens of each usable token.

    An approximate method is first tried on a sample, with more and more candidates until it reaches the required
    recall. If it never does, an exact table is computed; `note` is first called with an estimate of the time.

    Args:
        read_rows: unit rows as they are stored.
        usable: which rows have a vector.
        plan: k and the method.
        least_recall: the recall@10 on the sample that an approximate method must reach.
        advance: called after each block with its number of rows.
        note: called with messages about the recall on the sample.
        proposers: for each approximate method, the class of its `Proposer`.
    """
    row_ids = np.flatnonzero(usable)
    k = min(plan.k, len(row_ids) - 1)
    if plan.method == "exact" or k < 1:
        table = exact_neighbors(read_rows, usable, plan.k, advance)
        return NeighborResult(table, recall_at=min(_RECALL_AT, plan.k))
    proposer = proposers[plan.method](read_rows, row_ids)
    trial = _try_on_sample(proposer, read_rows, row_ids, k, plan.method, least_recall, note or _ignore)
    if trial is None:
        del proposer  # its memory is needed for the exact table
        return NeighborResult(exact_neighbors(read_rows, usable, plan.k, advance), recall_at=min(_RECALL_AT, k))
    table = NeighborTable.empty(len(usable), plan.k)
    for start in range(0, len(row_ids), proposer.query_rows):
        positions = np.arange(start, min(start + proposer.query_rows, len(row_ids)))
        block_ids = row_ids[positions]
        candidates = row_ids[proposer.propose(positions, trial.candidates)]
        table.ids[block_ids, :k], table.costs[block_ids, :k] = rerank(read_rows, block_ids, candidates, k)
        if advance:
            advance(len(block_ids))
    return NeighborResult(
        table,
        plan.method,
        min(_RECALL_AT, k),
        trial.recall,
        trial.recall_of_all,
        RECALL_TOLERANCE,
        trial.candidates,
        trial.sampled,
    )


@dataclass(frozen=True)
class _Trial:
    """The number of candidates per row that reaches the required recall on a sample, and the recall that it reaches."""

    candidates: int
    recall: float
    recall_of_all: float
    sampled: int


def _try_on_sample(
    proposer: Proposer,
    read_rows: RowReader,
    row_ids: np.ndarray,
    k: int,
    method: str,
    least_recall: float,
    note: Callable[[str], None],
) -> _Trial | None:
    """Try increasing numbers of candidates on a sample of rows; None if no number of candidates reaches the recall."""
    sample = np.random.default_rng(_SAMPLE_SEED).permutation(len(row_ids))[:_SAMPLED_ROWS]
    began = time.perf_counter()
    exact_costs = exact_nearest(read_rows, row_ids, row_ids[sample], k)[1]
    exact_seconds = (time.perf_counter() - began) * len(row_ids) / len(sample)
    at, recall = min(_RECALL_AT, k), 0.0
    for spare in _SPARE:
        count = min(k + 1 + spare, len(row_ids))
        costs = rerank(read_rows, row_ids[sample], row_ids[_propose_in_blocks(proposer, sample, count)], k)[1]
        recall, recall_of_all = _recall(costs, exact_costs, at), _recall(costs, exact_costs, k)
        note(f"{method}, {count} candidates: recall@{at} {recall:.4f}, recall@{k} {recall_of_all:.4f} "
             f"within {RECALL_TOLERANCE:g} of the exact costs, on {len(sample)} rows")  # fmt: skip
        if recall >= least_recall:
            return _Trial(count, recall, recall_of_all, len(sample))
    note(f"recall@{at} stays below {least_recall}: an exact table is computed, which will take about "
         f"{readable_duration(exact_seconds)} at the speed of the sample; to accept the recall instead, stop now and "
         f"build with --set neighbors.min_recall={math.floor(recall * 100) / 100:.2f}")  # fmt: skip
    return None


def _propose_in_blocks(proposer: Proposer, positions: np.ndarray, count: int) -> np.ndarray:
    step = proposer.query_rows
    return np.concatenate([proposer.propose(positions[i : i + step], count) for i in range(0, len(positions), step)])


def _recall(costs: Float32[np.ndarray, "rows k"], exact_costs: Float32[np.ndarray, "rows k"], at: int) -> float:
    """Recall by costs instead of ids, so that neighbors with equal or nearly equal costs are interchangeable."""
    return float((costs[:, :at] <= exact_costs[:, at - 1 : at] + RECALL_TOLERANCE).mean())


def _ignore(text: str) -> None:
    pass
