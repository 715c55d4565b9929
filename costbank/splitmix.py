"""Random numbers from a seed and a counter, so that a number does not depend on earlier ones.

SplitMix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators").
"""

import numpy as np
from jaxtyping import Integer, UInt64

__all__ = ["splitmix64"]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def splitmix64(
    seeds: UInt64[np.ndarray, "..."] | np.uint64, counts: Integer[np.ndarray, "..."]
) -> UInt64[np.ndarray, "..."]:
    """64-bit random numbers: number `counts`, from 1, of the generators with these seeds. The arrays broadcast."""
    state = seeds + counts.astype(np.uint64) * _STEP
    state = (state ^ (state >> np.uint64(30))) * _FACTORS[0]
    state = (state ^ (state >> np.uint64(27))) * _FACTORS[1]
    return state ^ (state >> np.uint64(31))
