"""A two-dimensional map of a bank's tokens: t-SNE of the stored neighbor table, by openTSNE.

Each token pulls at its stored neighbors, in a graph made symmetric, with Gaussian weights of a perplexity of a third of
the table's columns (van der Maaten & Hinton 2008; Kobak & Berens 2019, who also start from principal components). The
repulsion of many tokens is interpolated on a grid (FIt-SNE, Linderman et al. 2019). Vectors serve only for the start.

The same bank and seed give the same bytes on the same kind of machine, whatever the number of threads: everything runs
in one thread. Distances on the map mean little beyond the nearest tokens; `MapFacts.kept` says how much these do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from costbank.bank import Bank
from costbank.bank.manifest import MapFacts
from costbank.errors import UsageError, require
from costbank.neighbors import NeighborTable
from costbank.neighbors.table import RowReader
from costbank.progress import Progress, QuietProgress

__all__ = ["EXTRA", "LayoutOptions", "TokenMap", "check_neighbors", "lay_out", "layout_method", "map_bank"]

EXTRA = "map"
"""The optional extra with the libraries that a map needs."""

_MOST_COLUMNS = 90
_NEIGHBORS_PER_PERPLEXITY = 3
_FAR = 100.0
"""A distance at which a weight is 0: that of unit vectors is at most 2."""

_LEAST_FOR_TSNE = 5
_EARLY_EXAGGERATION = 12.0
_CELL_WIDTH = 2.0
"""The width of a cell of the grid: twice openTSNE's. That is much faster, and keeps nearly as many of the nearest
tokens; `python -m benchmarks.layout` compares the two."""

_LEAST_FOR_GRID = 5_000
"""With fewer tokens, Barnes-Hut is used: it keeps more of the nearest tokens, and is not yet much slower."""

_START_STD = 1e-4
_JITTER = 0.01
_PCA_ROWS = 10_000
_BLOCK_BYTES = 64 << 20
_REPORT_EVERY = 10

_KEPT_OF = 10
_KEPT_SAMPLE = 2_000


@dataclass(frozen=True)
class LayoutOptions:
    """How a map is made: the seed, and the iterations with exaggerated attraction and then without."""

    seed: int = 0
    early_iterations: int = 250
    iterations: int = 500


@dataclass(frozen=True)
class TokenMap:
    """The place of each token, NaN for tokens without a vector; and how the map was made."""

    xy: Float32[np.ndarray, "vocab 2"]
    facts: MapFacts


def layout_method() -> str:
    """The library that makes maps, and its version; raises MissingExtraError if it is not installed."""
    return f"openTSNE {require('openTSNE', EXTRA).__version__}"


def check_neighbors(k: int) -> None:
    """Check that a bank with k neighbors per token can have a map.

    Raises:
        UsageError: k is 0.
    """
    if not k:
        raise UsageError(
            "a map is made from the neighbor table, but this bank has none (neighbors.k is 0)",
            "build the bank with neighbors: without --for-training and --set neighbors.k=0",
        )


def map_bank(bank: Bank, options: LayoutOptions | None = None, progress: Progress | None = None) -> TokenMap:
    """The map of a bank's tokens; `costbank.bank.maps.add_map` stores it.

    Raises:
        UsageError: the bank has no neighbor table.
        MissingExtraError: openTSNE is not installed.
    """
    check_neighbors(bank.manifest.neighbors.k)
    token_map = lay_out(bank.vectors, bank.usable, bank.neighbors, options, progress)
    bank.release()
    return token_map


def lay_out(
    read_rows: RowReader,
    usable: Bool[np.ndarray, "vocab"],
    table: NeighborTable,
    options: LayoutOptions | None = None,
    progress: Progress | None = None,
) -> TokenMap:
    """Place all tokens that have a vector.

    Args:
        read_rows: returns the unit rows of ids.
        usable: which tokens have a vector.
        table: the neighbor table, of at least one column.
        options: the seed and the number of iterations.
        progress: receives the progress.

    Raises:
        MissingExtraError: openTSNE is not installed.
        UsageError: no token has a vector.
    """
    options, progress = options or LayoutOptions(), progress or QuietProgress()
    method = layout_method()
    ids = np.flatnonzero(usable)
    if not len(ids):
        raise UsageError("no token of the bank has a vector, so there is nothing to place on a map", "use another bank")
    columns = _columns(table, ids, len(usable))
    with _one_thread():
        places = _start(read_rows, ids, options.seed)
        if len(ids) >= _LEAST_FOR_TSNE:
            places = _optimized(places, _affinities(columns), options, progress)
        placed = places.astype(np.float32)
        kept, kept_of, sampled = _kept(placed, columns.neighbors, columns.known, options.seed)
    xy = np.full((len(usable), 2), np.nan, np.float32)
    xy[ids] = placed
    facts = MapFacts(
        seed=options.seed, method=method, neighbors=columns.neighbors.shape[1],
        kept=round(kept, 4), kept_of=kept_of, sampled=sampled,
    )  # fmt: skip
    return TokenMap(xy, facts)


@dataclass(frozen=True)
class _Columns:
    """The first columns of the table for tokens that have a vector, which are numbered anew without gaps.

    Attributes:
        neighbors: their neighbors; the token itself where the table has none.
        distances: Euclidean distances of the unit vectors.
        known: where the table has a neighbor.
    """

    neighbors: Int64[np.ndarray, "tokens columns"]
    distances: Float64[np.ndarray, "tokens columns"]
    known: Bool[np.ndarray, "tokens columns"]


def _columns(table: NeighborTable, ids: Int64[np.ndarray, "tokens"], vocab_size: int) -> _Columns:
    count = max(1, min(_MOST_COLUMNS, table.k, len(ids) - 1))
    number = np.full(vocab_size, -1, np.int64)
    number[ids] = np.arange(len(ids))
    listed = table.ids[ids, :count]
    neighbors = np.where(listed >= 0, number[listed], -1)
    known = neighbors >= 0
    own = np.broadcast_to(np.arange(len(ids))[:, None], neighbors.shape)
    # |a − b|² = 2 (1 − ⟨a, b⟩) for unit vectors. A neighbor that is the token itself does not pull.
    missing = np.where(known.any(axis=1, keepdims=True), _FAR, 0.0)
    distances = np.where(known, np.sqrt(2 * np.where(known, table.costs[ids, :count], 0).astype(np.float64)), missing)
    return _Columns(np.where(known, neighbors, own), distances, known)


def _affinities(columns: _Columns) -> Any:
    """The symmetric affinity matrix of the neighbor graph, as openTSNE takes it."""
    affinity = require("openTSNE.affinity", EXTRA)
    perplexity = max(1.0, columns.neighbors.shape[1] / _NEIGHBORS_PER_PERPLEXITY)
    joint = affinity.joint_probabilities_nn(columns.neighbors, columns.distances, [perplexity], n_jobs=1)
    return affinity.PrecomputedAffinities(joint, normalize=False)


def _start(read_rows: RowReader, ids: Int64[np.ndarray, "tokens"], seed: int) -> Float64[np.ndarray, "tokens 2"]:
    """The first two principal components of the vectors, fitted to a sample, and a little noise: no two are equal."""
    random = np.random.default_rng(seed)
    sample = np.sort(random.choice(ids, min(len(ids), _PCA_ROWS), replace=False))
    rows = read_rows(sample)
    count = min(2, *rows.shape)
    pca = require("sklearn.decomposition", EXTRA).PCA(count, svd_solver="randomized", random_state=seed)
    places = np.zeros((len(ids), 2))
    if np.ptp(rows, axis=0).any():
        pca.fit(rows)
        step = max(1, _BLOCK_BYTES // rows[0].nbytes)
        for start in range(0, len(ids), step):
            places[start : start + step, :count] = pca.transform(read_rows(ids[start : start + step]))
    std = places[:, 0].std()
    places *= _START_STD / std if std else 0.0
    return places + random.normal(0, _JITTER * _START_STD if std else _START_STD, places.shape)


def _optimized(
    places: Float64[np.ndarray, "tokens 2"], affinities: Any, options: LayoutOptions, progress: Progress
) -> Float64[np.ndarray, "tokens 2"]:
    total = options.early_iterations + options.iterations
    method = "fft" if len(places) >= _LEAST_FOR_GRID else "bh"
    with progress.step("lay out the map", total, "iterations") as step:

        def report(_iteration: int, _error: float, _embedding: np.ndarray) -> None:
            step.advance(_REPORT_EVERY)

        embedding = require("openTSNE", EXTRA).TSNEEmbedding(
            places, affinities, negative_gradient_method=method, ints_in_interval=_CELL_WIDTH, n_jobs=1,
            random_state=options.seed, callbacks=report, callbacks_every_iters=_REPORT_EVERY,
        )  # fmt: skip
        embedding.optimize(options.early_iterations, exaggeration=_EARLY_EXAGGERATION, inplace=True)
        embedding.optimize(options.iterations, inplace=True)
    return np.asarray(embedding)


def _kept(
    places: Float32[np.ndarray, "tokens 2"],
    neighbors: Int64[np.ndarray, "tokens columns"],
    known: Bool[np.ndarray, "tokens columns"],
    seed: int,
) -> tuple[float, int, int]:
    """The mean share of a token's stored neighbors that are as near on the map; of how many; the size of the sample.

    A token is compared by as many of its neighbors as the table has, but at most `_KEPT_OF`.
    """
    spatial = require("scipy.spatial", EXTRA)
    compared = np.flatnonzero(known[:, 0])
    most = min(_KEPT_OF, neighbors.shape[1])
    sample = np.sort(np.random.default_rng(seed).choice(compared, min(len(compared), _KEPT_SAMPLE), replace=False))
    if not len(sample):
        return 0.0, most, 0
    _, nearest = spatial.cKDTree(places).query(places[sample], min(most + 1, len(places)))
    shares = []
    for token, row in zip(sample, nearest, strict=True):
        stored = neighbors[token, :most][known[token, :most]]
        shares.append(np.isin(stored, row[row != token][: len(stored)]).mean())
    return float(np.mean(shares)), most, len(sample)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread, because rounding depends on how threads divide a sum."""
    with require("threadpoolctl", EXTRA).threadpool_limits(1):
        yield
