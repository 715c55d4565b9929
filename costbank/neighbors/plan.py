"""Which way to a neighbor table: exact where it is affordable, else with candidates of a coarser form."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from costbank.errors import require

__all__ = ["METHODS", "NeighborPlan", "plan_neighbors", "spoken"]

METHODS = ("exact", "int8", "reduced")
"""`exact`: FAISS over all rows. `int8`: 8 bits an element, by torch. `reduced`: fewer dimensions, by FAISS."""

_MOST_EXACT_WORK = 3e13
_SECONDS_A_COST = 1e-9
_SECONDS_A_RERANKED_ELEMENT = 1e-9
_TRIED_SECONDS = 0.15
_ON_A_DEVICE = 1e14
_MULTIPLE = 32


@dataclass(frozen=True)
class NeighborPlan:
    """How the table will be made.

    Attributes:
        k: neighbors a token.
        method: one of `METHODS`.
        seconds: what it will take on this machine, about.
        exact_seconds: what an exact table would take.
    """

    k: int
    method: str
    seconds: float
    exact_seconds: float

    def __str__(self) -> str:
        ways = {
            "exact": "exact",
            "int8": "candidates from 8 bits an element, decided by exact costs",
            "reduced": "candidates from fewer dimensions, decided by exact costs",
        }
        text = f"the neighbor table will take about {spoken(self.seconds)}: {ways[self.method]}"
        return text if self.method == "exact" else f"{text}; an exact one would take {spoken(self.exact_seconds)}"


def plan_neighbors(rows: int, dim: int, k: int, method: str = "auto") -> NeighborPlan:
    """Choose a method by the amount of work, never by the speed of the machine, so that a config means one table.

    Args:
        rows: how many rows there are at most.
        dim: their size.
        k: neighbors a token.
        method: one of `METHODS`, or `auto`: exact up to 3e13 products (`rows`² · `dim`), else int8 where torch
            is installed, else reduced.
    """
    work = float(rows) ** 2 * dim
    if method == "auto":
        coarse = "int8" if find_spec("torch") else "reduced"
        method = "exact" if work <= _MOST_EXACT_WORK else coarse
    if not k:
        return NeighborPlan(0, method, 0.0, 0.0)
    selecting = float(rows) ** 2 * _SECONDS_A_COST
    exact_seconds = work / _float32_products_a_second(dim) + selecting
    plan = NeighborPlan(k, method, exact_seconds, exact_seconds)
    if method == "int8":
        reranked = float(rows) * 2 * k * dim * _SECONDS_A_RERANKED_ELEMENT
        return replace(plan, seconds=work / _int8_products_a_second(dim) + selecting + reranked)
    return replace(plan, seconds=exact_seconds / 4) if method == "reduced" else plan


def spoken(seconds: float) -> str:
    """A duration as a person says it: `45 s`, `16 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5_400 else f"{seconds / 3_600:,.1f} h"


def _float32_products_a_second(dim: int) -> float:
    """Multiplications and additions of float32 matrices with rows of this size, by NumPy."""
    sample = np.ones((2_048, min(dim, 1_024)), np.float32)
    return _rate(lambda: sample @ sample.T, len(sample) ** 2 * sample.shape[1])


def _int8_products_a_second(dim: int) -> float:
    """The same of 8-bit integers, by torch; where there is a CUDA device, a figure that any reaches."""
    torch: Any = require("torch", "train")
    if torch.cuda.is_available():
        return _ON_A_DEVICE
    codes = torch.ones((8_192, -(-min(dim, 4_096) // _MULTIPLE) * _MULTIPLE), dtype=torch.int8)
    queries = codes[:128]
    return _rate(lambda: torch._int_mm(queries, codes.T), len(queries) * codes.shape[0] * codes.shape[1])


def _rate(run: Callable[[], object], work: float) -> float:
    """Work a second of the fastest of several runs: the first ones wake threads and fill caches."""
    fastest = float("inf")
    until = time.perf_counter() + _TRIED_SECONDS
    while (began := time.perf_counter()) < until or fastest == float("inf"):
        run()
        fastest = min(fastest, time.perf_counter() - began)
    return work / fastest
