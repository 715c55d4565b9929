"""The numbers behind the charts of a report: aggregates, whose size does not grow with the bank.

Rows and the neighbor table are read in blocks. Every random choice has a fixed seed, so a bank always has one report.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from costbank.analysis.agreement import random_pairs
from costbank.bank import Bank
from costbank.cost import row_costs
from costbank.neighbors import nearest_to
from costbank.progress import Step

__all__ = ["Band", "FrequencyCurve", "Histogram", "NearestCosts", "RankCurve", "centrality", "cost_edges",
           "frequency_bands", "frequency_curve", "histogram", "map_sample", "nearest_neighbors", "neighbor_costs",
           "occurrence_bands", "random_costs", "rank_curve"]  # fmt: skip

_SEED = 1
_BLOCK_ROWS = 4_096
_TABLE_ROWS = 16_384
_BINS = 60
_MOST_RANKS = 100
_SAMPLED_TOKENS = 256
_SAMPLED_NEIGHBORS = 32


@dataclass(frozen=True)
class Histogram:
    """The share of values in each bin; `count` values, all within the edges."""

    edges: Float64[np.ndarray, "edges"]
    shares: Float64[np.ndarray, "bins"]
    count: int


@dataclass(frozen=True)
class NearestCosts:
    """Costs of the nearest tokens: of all tokens with a vector, or of a sample if the bank has no table.

    Attributes:
        costs: ascending in each row; infinity where a token has fewer neighbors.
        sampled: whether the tokens are a sample, and their neighbors were computed for the report.
    """

    costs: Float32[np.ndarray, "tokens k"]
    sampled: bool


@dataclass(frozen=True)
class RankCurve:
    """Percentiles over tokens of the cost of the neighbor at each rank; rank 1 is the nearest."""

    ranks: Int64[np.ndarray, "ranks"]
    percentile_10: Float64[np.ndarray, "ranks"]
    percentile_25: Float64[np.ndarray, "ranks"]
    median: Float64[np.ndarray, "ranks"]
    percentile_75: Float64[np.ndarray, "ranks"]
    percentile_90: Float64[np.ndarray, "ranks"]


@dataclass(frozen=True)
class FrequencyCurve:
    """Percentiles of a measure over the tokens in bands of counts, each band twice as wide as the one before.

    Attributes:
        least, largest: the smallest and the largest count in each band.
        middle: the geometric mean of these two, for drawing.
        tokens: the number of tokens in each band.
    """

    least: Int64[np.ndarray, "bands"]
    largest: Int64[np.ndarray, "bands"]
    middle: Float64[np.ndarray, "bands"]
    tokens: Int64[np.ndarray, "bands"]
    percentile_25: Float64[np.ndarray, "bands"]
    median: Float64[np.ndarray, "bands"]
    percentile_75: Float64[np.ndarray, "bands"]


@dataclass(frozen=True)
class Band:
    """A range of tokens, in words, and a few of them."""

    name: str
    token_ids: tuple[int, ...]


def neighbor_costs(bank: Bank, usable: Bool[np.ndarray, "vocab"], step: Step) -> NearestCosts:
    """The costs in the neighbor table, or of the 32 nearest of 256 tokens if the bank has no table.

    `step` receives the number of tokens.
    """
    if bank.neighbors.k:
        step.advance(bank.size)
        return NearestCosts(bank.neighbors.costs, sampled=False)
    row_ids = np.flatnonzero(usable)
    chosen = np.sort(np.random.default_rng(_SEED).permutation(row_ids)[:_SAMPLED_TOKENS])
    k = min(_SAMPLED_NEIGHBORS, len(row_ids) - 1)
    if k < 1:
        return NearestCosts(np.zeros((0, 0), np.float32), sampled=True)
    costs = [costs for _, costs in nearest_neighbors(bank, usable, chosen, k)]
    step.advance(bank.size)
    return NearestCosts(np.stack(costs), sampled=True)


def nearest_neighbors(
    bank: Bank, usable: Bool[np.ndarray, "vocab"], token_ids: Int64[np.ndarray, "tokens"], k: int
) -> list[tuple[Int64[np.ndarray, "neighbors"], Float32[np.ndarray, "neighbors"]]]:
    """Ids and costs of up to k nearest tokens of each of these tokens, from the table or else from one search."""
    if bank.neighbors.k >= min(k, int(usable.sum()) - 1):
        table = bank.neighbors
        rows = [(table.ids[i, :k].astype(np.int64), table.costs[i, :k]) for i in token_ids.tolist()]
        return [(ids[ids >= 0], costs[ids >= 0]) for ids, costs in rows]
    nearest = nearest_to(bank.vectors(token_ids), bank.vectors, usable, k + 1)
    bank.release()
    found = []
    for token, ids in zip(token_ids.tolist(), nearest, strict=True):
        others = ids[ids != token][:k]
        costs = bank.cost_matrix([token], others)[0]
        order = np.lexsort((others, costs))
        found.append((others[order], costs[order]))
    return found


def random_costs(bank: Bank, usable: Bool[np.ndarray, "vocab"], most: int, step: Step) -> Float32[np.ndarray, "pairs"]:
    """The costs of random pairs of different tokens with a vector, or of all pairs if there are at most `most`."""
    row_ids = np.flatnonzero(usable)
    if len(row_ids) < 2:
        return np.zeros(0, np.float32)
    pairs = row_ids[random_pairs(len(row_ids), most, np.random.default_rng(_SEED))]
    costs = np.empty(pairs.shape[1], np.float32)
    for start in range(0, len(costs), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        costs[part] = row_costs(bank.vectors(pairs[0, part]), bank.vectors(pairs[1, part])[:, None, :])[:, 0]
        bank.release()
        step.advance(len(costs[part]))
    return costs


def cost_edges(*arrays: Float32[np.ndarray, "..."]) -> Float64[np.ndarray, "edges"]:
    """The edges of 60 equal bins from 0 to the largest finite cost, rounded up to a multiple of 0.05."""
    largest = max(
        (float(part.max(initial=0, where=np.isfinite(part))) for a in arrays for part in _parts(a)), default=0
    )
    return np.linspace(0, max(np.ceil(largest * 20 - 1e-6) / 20, 0.05), _BINS + 1)


def histogram(values: Float32[np.ndarray, "..."], edges: Float64[np.ndarray, "edges"]) -> Histogram:
    """The finite values in each bin, as shares. The last bin includes its right edge."""
    totals = np.zeros(len(edges) - 1, np.int64)
    for part in _parts(values):
        finite = part[np.isfinite(part)].astype(np.float64)
        totals += np.histogram(np.minimum(finite, edges[-1]), edges)[0]
    count = int(totals.sum())
    return Histogram(edges, totals / max(count, 1), count)


def rank_curve(costs: Float32[np.ndarray, "tokens k"]) -> RankCurve:
    """Percentiles of the finite costs in each column; at most 100 columns, evenly spaced on a logarithmic scale."""
    filled = [column for column in range(costs.shape[1]) if np.isfinite(costs[:, column]).any()]
    if len(filled) > _MOST_RANKS:
        spaced = np.geomspace(1, len(filled), _MOST_RANKS).round().astype(np.int64) - 1
        filled = [filled[i] for i in np.unique(spaced)]
    percentiles = np.empty((len(filled), 5))
    for row, column in enumerate(filled):
        values = costs[:, column].astype(np.float64)
        percentiles[row] = np.percentile(values[np.isfinite(values)], (10, 25, 50, 75, 90))
    return RankCurve(np.array(filled, np.int64) + 1, *np.ascontiguousarray(percentiles.T))


def centrality(
    bank: Bank, usable: Bool[np.ndarray, "vocab"], step: Step
) -> Float32[np.ndarray, "vocab"]:  # fmt: skip
    """The cosine of each row to the mean of all rows with a vector; NaN without a vector or a mean.

    Tokens near the mean are near many others (Radovanović et al. 2010). `step` receives the number of rows, twice.
    """
    total = np.zeros(bank.dim)
    for rows, _ in _row_blocks(bank, step):
        total += rows.sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    cosines = np.full(bank.size, np.nan, np.float32)
    if length < 1e-9 * max(int(usable.sum()), 1):
        return cosines
    for rows, part in _row_blocks(bank, step):
        cosines[part] = rows @ (total / length)
    cosines[~usable] = np.nan
    return cosines


def frequency_curve(counts: Int64[np.ndarray, "tokens"], values: Float32[np.ndarray, "tokens"]) -> FrequencyCurve:
    """Percentiles of the finite `values` over tokens with counts 1, 2–3, 4–7 and so on; empty bands are omitted."""
    known = (counts > 0) & np.isfinite(values)
    counts, values = counts[known], values[known].astype(np.float64)
    bands = np.frexp(counts.astype(np.float64))[1] - 1
    members = [bands == band for band in np.unique(bands)]
    least = np.array([counts[own].min() for own in members], np.int64)
    largest = np.array([counts[own].max() for own in members], np.int64)
    percentiles = np.array([np.percentile(values[own], (25, 50, 75)) for own in members]).reshape(-1, 3)
    tokens = np.array([own.sum() for own in members], np.int64)
    return FrequencyCurve(least, largest, np.sqrt(least.astype(np.float64) * largest), tokens,
                          *np.ascontiguousarray(percentiles.T))  # fmt: skip


def occurrence_bands(occurrences: Int64[np.ndarray, "tokens"]) -> list[tuple[str, int]]:
    """How many tokens are in 0, 1, 2–3, 4–7, … neighbor lists, up to the largest number."""
    bands = np.where(occurrences > 0, np.frexp(np.maximum(occurrences, 1).astype(np.float64))[1], 0)
    totals = np.bincount(bands) if len(bands) else np.zeros(1, np.int64)
    return [(_band_name(band), int(total)) for band, total in enumerate(totals)]


def frequency_bands(bank: Bank, usable: Bool[np.ndarray, "vocab"], per_band: int) -> tuple[Band, ...]:
    """A few random tokens of each band of frequency; of each quarter of the ids if counts are unknown."""
    row_ids, counts = np.flatnonzero(usable), bank.vocab.counts
    if len(row_ids) and (counts[row_ids] >= 0).all():
        ordered = row_ids[np.lexsort((row_ids, -counts[row_ids]))]
        shares = (("the most frequent 1 %", 0.01), ("1 to 10 %", 0.1), ("10 to 50 %", 0.5), ("the rarest half", 1.0))
    else:
        ordered = row_ids
        shares = (("the first quarter of the ids", 0.25), ("the second quarter", 0.5), ("the third quarter", 0.75),
                  ("the last quarter", 1.0))  # fmt: skip
    random, bands, start = np.random.default_rng(_SEED), [], 0
    for name, share in shares:
        end = int(np.ceil(share * len(ordered)))
        chosen = np.sort(random.permutation(end - start)[:per_band]) + start
        if len(chosen):
            bands.append(Band(name, tuple(ordered[chosen].tolist())))
        start = end
    return tuple(bands)


def map_sample(xy: Float32[np.ndarray, "vocab 2"], most: int) -> Int64[np.ndarray, "chosen"]:
    """Ascending ids of the tokens with a place on the map, or of `most` of them drawn with a fixed seed."""
    placed = np.flatnonzero(np.isfinite(xy).all(axis=1))
    return placed if len(placed) <= most else np.sort(np.random.default_rng(_SEED).permutation(placed)[:most])


def _band_name(band: int) -> str:
    return str(band) if band < 2 else f"{1 << (band - 1):,}–{(1 << band) - 1:,}"


def _parts(values: Float32[np.ndarray, "..."]) -> Iterator[Float32[np.ndarray, "..."]]:
    for start in range(0, len(values), _TABLE_ROWS):
        yield values[start : start + _TABLE_ROWS]


def _row_blocks(bank: Bank, step: Step) -> Iterator[tuple[Float32[np.ndarray, "rows dim"], slice]]:
    for start in range(0, bank.size, _BLOCK_ROWS):
        part = slice(start, min(start + _BLOCK_ROWS, bank.size))
        yield bank.vectors(part), part
        bank.release()
        step.advance(part.stop - part.start)
