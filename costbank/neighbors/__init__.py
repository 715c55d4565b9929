"""Neighbor tables and FAISS indexes.

    plan_neighbors ─▶ NeighborPlan ─ find_neighbors ─▶ NeighborTable, recall
                                     build_index ────▶ index.faiss

Exact costs (`costbank.cost`) always rank the candidates. A plan chooses what proposes them. FAISS over all rows, with
an error bound, makes the table exact. If that would take too long, a coarser form of the rows proposes them, and the
recall is measured against the exact table of a sample.
"""

from costbank.neighbors.index import build_index, load_index, nearest_in_index, search_index
from costbank.neighbors.plan import METHODS, NeighborPlan, plan_neighbors
from costbank.neighbors.search import NeighborResult, find_neighbors
from costbank.neighbors.table import NeighborTable, exact_neighbors, nearest_rows, nearest_to

__all__ = [
    "METHODS",
    "NeighborPlan",
    "NeighborResult",
    "NeighborTable",
    "build_index",
    "exact_neighbors",
    "find_neighbors",
    "load_index",
    "nearest_in_index",
    "nearest_rows",
    "nearest_to",
    "plan_neighbors",
    "search_index",
]
