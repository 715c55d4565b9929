"""Count exactly which tokens occur near each other: the hot loop of the source `cooccurrence`.

Two tokens of a document at distance d ≤ window add `window − d + 1` (1 with flat weights) to their unordered pair if
both sides count, and else to the ordered pair of a token and its context. The weights are integers, so the sums do not
depend on the division of the work or its order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from costbank.corpus.entries import EncodedPart
from costbank.engines import Report
from costbank.sources.cooccurrence.contexts import ContextSet
from costbank.sources.cooccurrence.packing import PairPacking, fold_pairs
from costbank.sources.cooccurrence.runs import RunWriter, read_run

__all__ = ["DEFAULT_SIZES", "CountShard", "CountSizes", "Span", "count_shard", "pair_weights"]

_ENTRY_BYTES = 8
_BUFFER_SHARE = 0.8


@dataclass(frozen=True)
class CountSizes:
    """Sizes that divide the work of counting. They do not change the counts.

    Attributes:
        shards: the number of shards of a corpus, unless these would be too small or too large.
        min_shard_pairs: the minimum size of a shard, in pairs of tokens within the window.
        max_shard_pairs: the maximum size of a shard, in pairs of tokens within the window.
        chunk_tokens: the number of tokens that a worker counts at a time.
        flush_share: a worker writes its entries as a segment when they fill this share of its buffer after folding.
        samples: the maximum number of sampled entries of a segment.
        block_entries: the number of merged entries that are read at a time.
    """

    shards: int = 64
    min_shard_pairs: int = 5_000_000
    max_shard_pairs: int = 1_280_000_000
    chunk_tokens: int = 1 << 20
    flush_share: float = 0.6
    samples: int = 1024
    block_entries: int = 1 << 20


DEFAULT_SIZES = CountSizes()


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` of a part; the pairs with their first token in this range are counted."""

    part: EncodedPart
    start: int
    stop: int


@dataclass(frozen=True)
class CountShard:
    """The work of one call of `count_shard`.

    Attributes:
        spans: the tokens to count.
        weights: the weight of a pair at distance 1, 2, …
        contexts: what is counted instead of pairs of tokens: pairs of a token and a context.
        packing: the layout of entries.
        memory: bytes of memory that the work may use.
        run: the run file to write.
        staging: the directory for the unfinished file.
        sizes: how the work is divided.
    """

    spans: tuple[Span, ...]
    weights: tuple[int, ...]
    packing: PairPacking
    memory: int
    run: Path
    staging: Path
    sizes: CountSizes = DEFAULT_SIZES
    contexts: ContextSet | None = None

    @property
    def span(self) -> int:
        """The largest distance of a pair."""
        return len(self.weights) if self.contexts is None else self.contexts.span

    @property
    def pairs_per_token(self) -> int:
        return len(self.weights) if self.contexts is None else len(self.contexts.kinds)


def pair_weights(window: int, flat: bool = False) -> tuple[int, ...]:
    """The weight of a pair at distance 1, 2, … window."""
    return (1,) * window if flat else tuple(range(window, 0, -1))


def count_shard(shard: CountShard, report: Report) -> None:
    """Count a shard into its run file, unless that file exists. Runs in an engine."""
    if read_run(shard.run) is not None:
        return
    sizes, per_token = shard.sizes, shard.pairs_per_token
    write = _write_pairs if shard.contexts is None else _write_contexts
    capacity = int(shard.memory * _BUFFER_SHARE) // _ENTRY_BYTES
    chunk_tokens = max(1, min(sizes.chunk_tokens, capacity // (4 * per_token)))
    chunk_entries = np.empty(per_token * chunk_tokens, np.uint64)
    buffer, used = np.empty(max(capacity - len(chunk_entries), 3 * len(chunk_entries)), np.uint64), 0
    scratch = np.empty(chunk_tokens, np.uint64)
    with RunWriter(shard.run, shard.staging, sizes.samples) as writer:
        for ids, to_end, tokens in _chunks(shard.spans, chunk_tokens, shard.span):
            count = write(ids, to_end, tokens, shard, chunk_entries, scratch)
            folded = fold_pairs(chunk_entries[:count], shard.packing)
            if used + len(folded) > len(buffer):
                used = len(fold_pairs(buffer[:used], shard.packing))
                if used > sizes.flush_share * len(buffer):
                    writer.append(buffer[:used])
                    used = 0
            buffer[used : used + len(folded)] = folded
            used += len(folded)
            report(tokens)
        writer.append(fold_pairs(buffer[:used], shard.packing))
        writer.finish()


def _chunks(
    spans: tuple[Span, ...], chunk_tokens: int, window: int
) -> Iterator[tuple[UInt64[np.ndarray, "tokens"], Int64[np.ndarray, "chunk"], int]]:
    """For each chunk: its ids and up to `window` more, the distance of each id from its document's end, its size."""
    for span in spans:
        ids, ends = span.part.ids, span.part.ends
        document = int(np.searchsorted(ends, span.start, "right"))
        for start in range(span.start, span.stop, chunk_tokens):
            stop = min(start + chunk_tokens, span.stop)
            last = int(np.searchsorted(ends, stop, "left"))
            chunk_ends = np.asarray(ends[document : last + 1])
            lengths = np.diff(np.minimum(chunk_ends, stop), prepend=start)
            to_end = np.repeat(chunk_ends, lengths) - np.arange(start, stop)
            yield ids[start : stop + window].astype(np.uint64), to_end, stop - start
            document = int(np.searchsorted(ends, stop, "right"))


def _write_pairs(
    ids: UInt64[np.ndarray, "tokens"],
    to_end: Int64[np.ndarray, "chunk"],
    tokens: int,
    shard: CountShard,
    out: UInt64[np.ndarray, "capacity"],
    scratch: UInt64[np.ndarray, "scratch"],
) -> int:
    """Write an entry for every pair of a chunk to `out`, and return the number of entries."""
    bits = np.uint64(shard.packing.weight_bits)
    low = ids << bits
    high = low << np.uint64(shard.packing.id_bits)
    written = 0
    for distance, weight in enumerate(shard.weights, 1):
        pairs = min(tokens, len(ids) - distance)
        if pairs <= 0:
            break
        entries, swapped = out[written : written + pairs], scratch[:pairs]
        np.bitwise_or(high[:pairs], low[distance : distance + pairs], out=entries)
        np.bitwise_or(high[distance : distance + pairs], low[:pairs], out=swapped)
        np.minimum(entries, swapped, out=entries)
        np.bitwise_or(entries, np.uint64(weight), out=entries)
        in_document = entries[to_end[:pairs] > distance]
        out[written : written + len(in_document)] = in_document
        written += len(in_document)
    return written


def _write_contexts(
    ids: UInt64[np.ndarray, "tokens"],
    to_end: Int64[np.ndarray, "chunk"],
    tokens: int,
    shard: CountShard,
    out: UInt64[np.ndarray, "capacity"],
    scratch: UInt64[np.ndarray, "scratch"],
) -> int:
    """Write an entry for every token and context whose span begins in a chunk to `out`, and return their number."""
    contexts, packing = shard.contexts, shard.packing
    assert contexts is not None
    bits = np.uint64(packing.weight_bits)
    low = ids << bits
    high = low << np.uint64(packing.second_bits)
    written = 0
    for kind in contexts.kinds:
        pairs = min(tokens, len(ids) - kind.distance)
        if pairs <= 0:
            continue
        entries, context = out[written : written + pairs], low[kind.first : kind.first + pairs]
        if kind.length > 1:
            context = np.left_shift(contexts.buckets_of(kind, ids, pairs), bits, out=scratch[:pairs])
        np.add(context, np.uint64((kind.start << packing.weight_bits) + kind.weight), out=entries)
        np.bitwise_or(entries, high[kind.counted : kind.counted + pairs], out=entries)
        in_document = entries[to_end[:pairs] > kind.distance]
        out[written : written + len(in_document)] = in_document
        written += len(in_document)
    return written
