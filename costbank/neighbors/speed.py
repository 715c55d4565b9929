"""How fast this machine multiplies: tried for a moment, so that a person can be told how long a table will take."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from costbank.errors import require

__all__ = ["float32_products_a_second", "int8_products_a_second"]

_TRIED_SECONDS = 0.15
_ON_A_DEVICE = 1e14
_MULTIPLE = 32


def float32_products_a_second(dim: int) -> float:
    """Multiplications and additions of float32 matrices with rows of this size, by NumPy."""
    sample = np.ones((2_048, min(dim, 1_024)), np.float32)
    return _rate(lambda: sample @ sample.T, len(sample) ** 2 * sample.shape[1])


def int8_products_a_second(dim: int) -> float:
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
