"""Streams of random numbers: one for each seed and position, whose numbers go by their counts."""

import numpy as np
from jaxtyping import Float64, Integer, UInt64

from costbank.splitmix import splitmix64

__all__ = ["streams", "uniforms"]

_UNIT = 2.0**-53


def streams(
    seeds: Integer[np.ndarray, "draws"], positions: Integer[np.ndarray, "draws"]
) -> UInt64[np.ndarray, "draws"]:
    """A stream of random numbers for each position of each seed."""
    return splitmix64(splitmix64(seeds.astype(np.uint64), np.ones(1, np.int64)), positions)


def uniforms(
    streams: UInt64[np.ndarray, "#draws"], counts: Integer[np.ndarray, "#draws"]
) -> Float64[np.ndarray, "draws"]:
    """The numbers with these counts, from 0 on, in streams: uniform in [0, 1)."""
    return (splitmix64(streams, counts + 1) >> np.uint64(11)).astype(np.float64) * _UNIT
