"""Nearest-cost tables and FAISS indexes.

    plan_neighbors ─▶ NeighborPlan ─ find_neighbors ─▶ NeighborTable, recall
                                     build_index ────▶ index.faiss

A table is decided by the costs of `costbank.cost` in every case. What a plan chooses is who proposes the candidates:
FAISS over all rows with a bound that makes the table exact, or, where that would take too long, a coarser form of the
rows, whose recall is then measured against the exact table of a sample.
"""

from costbank.neighbors.index import build_index, load_index, nearest_in_index, search_index
from costbank.neighbors.plan import METHODS, NeighborPlan, plan_neighbors
from costbank.neighbors.search import FoundNeighbors, find_neighbors
from costbank.neighbors.table import NeighborTable, exact_neighbors, nearest_rows, nearest_to

__all__ = [
    "METHODS",
    "FoundNeighbors",
    "NeighborPlan",
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
