"""Which tokens occur near each other, counted exactly: the hot loop of the co-occurrence source.

Two tokens of a document at distance d ≤ window add `window − d + 1` to their unordered pair (or 1, with flat weights).
The weights are integers, so the sums do not depend on who counts which part, or in what order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from costbank.corpus.entries import EncodedPart
from costbank.engines import Report
from costbank.sources.cooccurrence.packing import PairPacking, fold_pairs
from costbank.sources.cooccurrence.runs import RunWriter, read_run

__all__ = ["CountShard", "Span", "count_shard", "pair_weights"]

_CHUNK_TOKENS = 1 << 20
_ENTRY_BYTES = 8
_NO_ENTRY = np.uint64((1 << 64) - 1)
_FULL = 0.6


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` of a part; a span counts the pairs whose left token lies in it."""

    part: EncodedPart
    start: int
    stop: int


@dataclass(frozen=True)
class CountShard:
    """What one worker counts at a time, with which weights by distance, in how many bytes, and where to."""

    spans: tuple[Span, ...]
    weights: tuple[int, ...]
    packing: PairPacking
    memory: int
    run: Path
    staging: Path


def pair_weights(window: int, flat: bool = False) -> tuple[int, ...]:
    """The weight of a pair at distance 1, 2, … window."""
    return (1,) * window if flat else tuple(range(window, 0, -1))


def count_shard(shard: CountShard, report: Report) -> None:
    """Count a shard into a run file, where that has not been done. An engine's work."""
    if read_run(shard.run) is not None:
        return
    window = len(shard.weights)
    room = int(shard.memory * 0.8) // _ENTRY_BYTES
    chunk = max(1, min(_CHUNK_TOKENS, room // (4 * window)))
    fresh = np.empty(window * chunk, np.uint64)
    kept, used = np.empty(max(room - len(fresh), 3 * len(fresh)), np.uint64), 0
    scratch = np.empty(chunk, np.uint64)
    with RunWriter(shard.run, shard.staging) as writer:
        for ids, left, tokens in _chunks(shard.spans, chunk, window):
            count = _pairs_of(ids, left, tokens, shard, fresh, scratch)
            folded = fold_pairs(fresh[:count], shard.packing)
            if used + len(folded) > len(kept):
                used = len(fold_pairs(kept[:used], shard.packing))
                if used > _FULL * len(kept):
                    writer.append(kept[:used])
                    used = 0
            kept[used : used + len(folded)] = folded
            used += len(folded)
            report(tokens)
        writer.append(fold_pairs(kept[:used], shard.packing))
        writer.finish()


def _chunks(
    spans: tuple[Span, ...], chunk: int, window: int
) -> Iterator[tuple[UInt64[np.ndarray, "tokens"], Int64[np.ndarray, "left"], int]]:
    """Ids of a chunk and up to `window` after it; how far each of the chunk's own is from the end of its document."""
    for span in spans:
        ids, ends = span.part.ids, span.part.ends
        document = int(np.searchsorted(ends, span.start, "right"))
        for start in range(span.start, span.stop, chunk):
            stop = min(start + chunk, span.stop)
            last = int(np.searchsorted(ends, stop, "left"))
            here = np.asarray(ends[document : last + 1])
            lengths = np.diff(np.minimum(here, stop), prepend=start)
            left = np.repeat(here, lengths) - np.arange(start, stop)
            yield ids[start : stop + window].astype(np.uint64), left, stop - start
            document = int(np.searchsorted(ends, stop, "right"))


def _pairs_of(
    ids: UInt64[np.ndarray, "tokens"],
    left: Int64[np.ndarray, "left"],
    tokens: int,
    shard: CountShard,
    out: UInt64[np.ndarray, "room"],
    scratch: UInt64[np.ndarray, "chunk"],
) -> int:
    """Write an entry for every pair of a chunk into `out`; how many there are."""
    bits = np.uint64(shard.packing.weight_bits)
    low = ids << bits
    high = low << np.uint64(shard.packing.id_bits)
    written = 0
    for distance, weight in enumerate(shard.weights, 1):
        lefts = min(tokens, len(ids) - distance)
        if lefts <= 0:
            break
        entries, other = out[written : written + lefts], scratch[:lefts]
        np.bitwise_or(high[:lefts], low[distance : distance + lefts], out=entries)
        np.bitwise_or(high[distance : distance + lefts], low[:lefts], out=other)
        np.minimum(entries, other, out=entries)
        np.bitwise_or(entries, np.uint64(weight), out=entries)
        within = left[:lefts] > distance
        kept = entries[within]
        out[written : written + len(kept)] = kept
        written += len(kept)
    return written
