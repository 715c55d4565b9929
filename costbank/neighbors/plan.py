"""The method for a neighbor table: exact if affordable, else with candidates from a coarser form of the rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from costbank.errors import require

__all__ = ["METHODS", "NeighborPlan", "measured_rate", "plan_neighbors", "readable_duration"]

METHODS = ("exact", "int8", "reduced")
"""`exact`: FAISS over all rows. `int8`: 8 bits per element, by torch. `reduced`: fewer dimensions, by FAISS."""

Rate = Callable[[Literal["float32", "int8"], int], float]
"""Multiply-adds per second in matrix products of an element type, for rows of a given size."""

_MOST_EXACT_WORK = 3e13
_SECONDS_PER_COST = 1e-9
_SECONDS_PER_RERANKED_ELEMENT = 1e-9
_MEASURED_SECONDS = 0.15
_CUDA_RATE = 1e14
_MULTIPLE = 32


@dataclass(frozen=True)
class NeighborPlan:
    """The method for a neighbor table, and estimates of its time.

    Attributes:
        k: neighbors per token.
        method: one of `METHODS`.
        seconds: the estimated time of this method on this machine.
        exact_seconds: the estimated time of an exact table.
    """

    k: int
    method: str
    seconds: float
    exact_seconds: float

    def __str__(self) -> str:
        descriptions = {
            "exact": "exact",
            "int8": "candidates from 8 bits per element, ranked by exact costs",
            "reduced": "candidates from fewer dimensions, ranked by exact costs",
        }
        text = f"the neighbor table will take about {readable_duration(self.seconds)}: {descriptions[self.method]}"
        if self.method == "exact":
            return text
        return f"{text}; an exact table would take {readable_duration(self.exact_seconds)}"


def measured_rate(element_type: Literal["float32", "int8"], dim: int) -> float:
    """The `Rate` of this machine, measured in 0.15 s: NumPy multiplies float32, torch 8-bit integers.

    With a CUDA device, integers are not measured: the result is a rate that every such device reaches.

    Raises:
        MissingExtraError: `element_type` is `int8`, and torch is not installed.
    """
    if element_type == "float32":
        rows = np.ones((2_048, min(dim, 1_024)), np.float32)
        return _work_per_second(lambda: rows @ rows.T, len(rows) ** 2 * rows.shape[1])
    torch: Any = require("torch", "train")
    if torch.cuda.is_available():
        return _CUDA_RATE
    codes = torch.ones((8_192, -(-min(dim, 4_096) // _MULTIPLE) * _MULTIPLE), dtype=torch.int8)
    queries = codes[:128]
    return _work_per_second(lambda: torch._int_mm(queries, codes.T), len(queries) * codes.shape[0] * codes.shape[1])


def plan_neighbors(rows: int, dim: int, k: int, method: str = "auto", rate: Rate = measured_rate) -> NeighborPlan:
    """Choose a method by the amount of work. The machine's speed changes only the estimates, never the method.

    Args:
        rows: the number of rows, or an upper bound.
        dim: the number of elements of a row.
        k: neighbors per token.
        method: one of `METHODS`, or `auto`: exact up to 3e13 products (`rows`² · `dim`), else int8 if torch is
            installed, else reduced.
        rate: the speed of the machine.
    """
    work = float(rows) ** 2 * dim
    if method == "auto":
        coarse = "int8" if find_spec("torch") else "reduced"
        method = "exact" if work <= _MOST_EXACT_WORK else coarse
    if not k:
        return NeighborPlan(0, method, 0.0, 0.0)
    selection = float(rows) ** 2 * _SECONDS_PER_COST
    exact_seconds = work / rate("float32", dim) + selection
    plan = NeighborPlan(k, method, exact_seconds, exact_seconds)
    if method == "int8":
        reranking = float(rows) * 2 * k * dim * _SECONDS_PER_RERANKED_ELEMENT
        return replace(plan, seconds=work / rate("int8", dim) + selection + reranking)
    return replace(plan, seconds=exact_seconds / 4) if method == "reduced" else plan


def readable_duration(seconds: float) -> str:
    """A duration in the largest fitting unit: `45 s`, `16 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3_600:,.1f} h"


def _work_per_second(run: Callable[[], object], work: float) -> float:
    """The rate of the fastest run: the first runs also start threads and fill caches."""
    fastest = float("inf")
    until = time.perf_counter() + _MEASURED_SECONDS
    while (began := time.perf_counter()) < until or fastest == float("inf"):
        run()
        fastest = min(fastest, time.perf_counter() - began)
    return work / fastest
