"""Random numbers by a seed, a position and a count, so that none depends on what was drawn before it."""

import numpy as np
from jaxtyping import Float64, Integer, UInt64

__all__ = ["streams", "uniforms"]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_UNIT = 2.0**-53


def streams(
    seeds: Integer[np.ndarray, "draws"], positions: Integer[np.ndarray, "draws"]
) -> UInt64[np.ndarray, "draws"]:
    """A stream of random numbers for each position of each seed."""
    return _mixed(_mixed(seeds.astype(np.uint64) + _STEP) + positions.astype(np.uint64) * _STEP)


def uniforms(
    streams: UInt64[np.ndarray, "#draws"], counts: Integer[np.ndarray, "#draws"]
) -> Float64[np.ndarray, "draws"]:
    """The numbers of these counts in streams, in [0, 1), by SplitMix64 (Steele, Lea & Flood 2014)."""
    state = _mixed(streams + (counts.astype(np.uint64) + np.uint64(1)) * _STEP)
    return (state >> np.uint64(11)).astype(np.float64) * _UNIT


def _mixed(state: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    state = (state ^ (state >> np.uint64(30))) * _MIX[0]
    state = (state ^ (state >> np.uint64(27))) * _MIX[1]
    return state ^ (state >> np.uint64(31))
