"""Count all pairs of a corpus, with any engine, into one table that is cached next to the encoded text.

Each shard's counts stay in a file until all are merged, so an interrupted run continues from the shards it finished.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from costbank.corpus.encoded import EncodedCorpus
from costbank.engines import Engine
from costbank.errors import CorpusError
from costbank.files import fsync_directory, locked, no_abandoned, storage_errors, write_atomically
from costbank.progress import Progress
from costbank.sources.cooccurrence.contexts import ContextSet
from costbank.sources.cooccurrence.counting import DEFAULT_SIZES, CountShard, CountSizes, Span, count_shard
from costbank.sources.cooccurrence.packing import PairPacking
from costbank.sources.cooccurrence.runs import Segment, merge_memory, merge_segments, merge_shards, read_run

__all__ = ["PairCounts", "count_pairs"]

_FORMAT = "costbank pair counts 1"
_MERGE_SHARE = 0.6
_MIN_PARALLEL_ENTRIES = 1 << 21


@dataclass(frozen=True)
class PairCounts:
    """Exact weights of unordered pairs of token ids, or of pairs of a token and a context.

    Attributes:
        segments: the sorted entries of all pairs.
        packing: the layout of the entries.
        digest: the sha256 of all entries in order; equal for equal corpora and weights, with any engine.
        pairs: the number of distinct pairs.
        block_entries: the number of entries that an iteration reads at a time.
    """

    segments: tuple[Segment, ...]
    packing: PairPacking
    digest: str
    pairs: int
    block_entries: int = DEFAULT_SIZES.block_entries

    def __iter__(
        self,
    ) -> Iterator[tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"]]]:
        """Yield blocks of first ids, second ids and weights; each pair occurs once, in order.

        Of two tokens, the first id is the smaller one.
        """
        is_distinct = self.pairs == sum(segment.entries for segment in self.segments)
        for segment in self.segments:
            entries, start = segment.mapped(), 0
            while start < len(entries):
                stop = min(start + self.block_entries, len(entries))
                if stop < len(entries):
                    bits = self.packing.weight_bits
                    next_pair = np.uint64(min(((int(entries[stop - 1]) >> bits) + 1) << bits, (1 << 64) - 1))
                    stop += int(np.searchsorted(entries[stop:], next_pair))
                first, second, weights = self.packing.unpack(entries[start:stop])
                start = stop
                if is_distinct:
                    yield first, second, weights
                    continue
                new = np.flatnonzero(np.diff(first, prepend=-1) | np.diff(second, prepend=-1))
                yield first[new], second[new], np.add.reduceat(weights, new)


def count_pairs(
    corpus: EncodedCorpus, weights: tuple[int, ...], engine: Engine, cache: Path, progress: Progress,
    sizes: CountSizes = DEFAULT_SIZES, contexts: ContextSet | None = None,
) -> PairCounts:  # fmt: skip
    """Count the pairs of a corpus, or open the cached counts.

    Args:
        corpus: the encoded corpus.
        weights: the weight of a pair at distance 1, 2, …; their number is the window.
        engine: runs the work.
        cache: the directory of the counts.
        progress: shows the steps.
        sizes: how the work is divided; does not change the counts.
        contexts: count tokens with these contexts, instead of pairs of tokens.

    Raises:
        CorpusError: the vocabulary is too large to count pairs, there is not enough memory for the merge, or a file of
            the corpus was changed.
        StorageError: the cache cannot be written.
        EngineError: workers died again and again.
    """
    packing = PairPacking(corpus.vocab_size, None if contexts is None else contexts.size)
    parts = [[part.path.name, part.tokens] for part in corpus.parts]
    counted = [weights] if contexts is None else [weights, asdict(contexts)]
    key = sha256(json.dumps([_FORMAT, parts, corpus.vocab_size, *counted]).encode()).hexdigest()[:32]
    table, work, staging = cache / "pairs" / key, cache / "pairs" / f"{key}.work", cache / "staging"
    if counts := _open_counts(table, packing, sizes):
        return counts
    with storage_errors(cache), _locked(work, progress), no_abandoned(staging):
        if not _open_counts(table, packing, sizes):  # another process may have finished it in the meantime
            shard = CountShard((), weights, packing, engine.memory, work / "shard.run", staging, sizes, contexts)
            segments = _count(corpus, shard, engine, work, progress)
            merged = _merge(segments, packing, engine, work, staging, progress)
            _summarize(merged, packing, sizes)
            corpus.refuse_changed()
            shutil.rmtree(table, ignore_errors=True)
            merged.rename(table)
            fsync_directory(table.parent)
        shutil.rmtree(work, ignore_errors=True)
    if counts := _open_counts(table, packing, sizes):
        return counts
    raise CorpusError(f"the counts in {table} cannot be read", f"delete {table} and run the build again")


def _count(corpus: EncodedCorpus, shard: CountShard, engine: Engine, work: Path, progress: Progress) -> list[Segment]:
    """Count the whole corpus in shards that differ from `shard` in their spans and run files."""
    shards = [
        replace(shard, spans=spans, run=work / f"{number:06}.run")
        for number, spans in enumerate(_spans(corpus, shard.pairs_per_token, shard.sizes))
    ]
    with progress.step("count pairs", corpus.tokens, "tokens") as step:
        for _ in engine.run(count_shard, shards, step.advance):
            pass
    return [segment for shard in shards for segment in read_run(shard.run) or ()]


def _merge(
    segments: list[Segment], packing: PairPacking, engine: Engine, work: Path, staging: Path, progress: Progress
) -> Path:
    total, merged = sum(segment.entries for segment in segments), work / "merged"
    if (needed := merge_memory(segments)) > engine.memory * _MERGE_SHARE:
        required = needed / _MERGE_SHARE * engine.machine_memory / engine.memory
        raise CorpusError(
            f"there is not enough memory to merge {total:,} counted pairs from {len(segments):,} runs",
            f"set --memory {np.ceil(required / 1e8) / 10:.1f}GB or more, or reduce --processes, then run the command "
            "again; finished counts are reused",
        )
    min_ranges = engine.workers if total > _MIN_PARALLEL_ENTRIES else 1
    ranges = merge_shards(segments, packing, int(engine.memory * _MERGE_SHARE), min_ranges, merged, staging)
    for stale in set(merged.glob("*")) - {shard.out for shard in ranges}:  # an interrupted run had other ranges
        stale.unlink()
    with progress.step("merge counts", total, "pairs") as step:
        for _ in engine.run(merge_segments, ranges, step.advance):
            pass
    return merged


@contextmanager
def _locked(work: Path, progress: Progress) -> Iterator[None]:
    """Make and lock the work directory. Another process can delete it before it is locked, so this retries."""
    with ExitStack() as lock:
        has_noted = False
        while True:
            work.mkdir(parents=True, exist_ok=True)
            with ExitStack() as attempt, suppress(FileNotFoundError):
                try:
                    attempt.enter_context(locked(work, wait=False))
                except BlockingIOError:
                    if not has_noted:
                        progress.note("waiting for another process that is counting the same corpus")
                    has_noted = True
                    attempt.enter_context(locked(work))
                lock.push(attempt.pop_all())
                break
        yield


def _open_counts(table: Path, packing: PairPacking, sizes: CountSizes) -> PairCounts | None:
    """The counts in a directory; None if they are missing or incomplete."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((table / "counts.json").read_bytes())
        segments: list[Segment] = []
        for name in facts["files"]:
            run = read_run(table / name)
            if run is None:
                return None
            segments += run
        return PairCounts(tuple(segments), packing, facts["digest"], facts["pairs"], sizes.block_entries)
    return None


def _summarize(merged: Path, packing: PairPacking, sizes: CountSizes) -> None:
    """Write counts.json: the run files in order, the digest of their entries, and the number of distinct pairs."""
    files = sorted(merged.glob("*.run"))
    digest, pairs = sha256(), 0
    for file in files:
        for segment in read_run(file) or ():
            entries, last = segment.mapped(), np.uint64((1 << 64) - 1)
            for start in range(0, len(entries), sizes.block_entries):
                block = entries[start : start + sizes.block_entries]
                digest.update(np.ascontiguousarray(block).data.cast("B"))
                ids = block >> np.uint64(packing.weight_bits)
                pairs += int((np.diff(ids) != 0).sum()) + int(ids[0] != last)
                last = ids[-1]
    facts = {"files": [file.name for file in files], "digest": digest.hexdigest(), "pairs": pairs}
    write_atomically(merged / "counts.json", json.dumps(facts).encode())


def _spans(corpus: EncodedCorpus, pairs_per_token: int, sizes: CountSizes) -> list[tuple[Span, ...]]:
    """Divide the tokens of a corpus into shards.

    The shards do not depend on the engine, so any engine can continue the interrupted work of another.
    """
    pairs = corpus.tokens * pairs_per_token
    shard_pairs = min(max(pairs // sizes.shards, sizes.min_shard_pairs), sizes.max_shard_pairs)
    shard_tokens = max(1, shard_pairs // pairs_per_token)
    shards: list[tuple[Span, ...]] = []
    spans: list[Span] = []
    remaining = shard_tokens
    for part in corpus.parts:
        start = 0
        while start < part.tokens:
            stop = min(part.tokens, start + remaining)
            spans.append(Span(part, start, stop))
            remaining -= stop - start
            start = stop
            if not remaining:
                shards.append(tuple(spans))
                spans, remaining = [], shard_tokens
    return [*shards, tuple(spans)] if spans else shards
