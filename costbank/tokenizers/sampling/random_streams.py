"""Streams of random numbers: one for each pair of seed and position. Each number can be computed by itself."""

import numpy as np
from jaxtyping import Float64, Integer, UInt64

from costbank.splitmix import splitmix64

__all__ = ["streams", "uniforms"]

_UNIT = 2.0**-53


def streams(
    seeds: Integer[np.ndarray, "draws"], positions: Integer[np.ndarray, "draws"]
) -> UInt64[np.ndarray, "draws"]:
    """The state of the random stream for each seed and position."""
    return splitmix64(splitmix64(seeds.astype(np.uint64), np.ones(1, np.int64)), positions)


def uniforms(
    streams: UInt64[np.ndarray, "#draws"], counters: Integer[np.ndarray, "#draws"]
) -> Float64[np.ndarray, "draws"]:
    """The random numbers of the streams at these counters, which start at 0: uniform in [0, 1)."""
    return (splitmix64(streams, counters + 1) >> np.uint64(11)).astype(np.float64) * _UNIT
