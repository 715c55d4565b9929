"""All pairs of a corpus counted, by any engine, into one table that is kept next to the encoded text.

Work that was interrupted goes on where it was: what each shard counted is a file of its own until all are merged.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from costbank.corpus.encoded import EncodedCorpus
from costbank.engines import Engine
from costbank.errors import CorpusError
from costbank.files import fsync_directory, locked, no_abandoned, storage_errors, write_atomically
from costbank.progress import Progress
from costbank.sources.cooccurrence.counting import CountShard, Span, count_shard
from costbank.sources.cooccurrence.packing import PairPacking
from costbank.sources.cooccurrence.runs import Segment, merge_memory, merge_segments, merge_shards, read_run

__all__ = ["PairCounts", "count_pairs"]

_FORMAT = "costbank pair counts 1"
_LEAST_SHARD_PAIRS, _MOST_SHARD_PAIRS, _SHARDS = 5_000_000, 1_280_000_000, 64
_BLOCK_ENTRIES = 1 << 20
_MERGE_SHARE = 0.6
_WORTH_SHARING = 1 << 21


@dataclass(frozen=True)
class PairCounts:
    """Exact weights of unordered pairs of ids.

    Attributes:
        digest: sha256 of all entries in order; the same for the same corpus and weights, whoever counted.
        pairs: how many distinct pairs there are.
    """

    segments: tuple[Segment, ...]
    packing: PairPacking
    digest: str
    pairs: int

    def __iter__(
        self,
    ) -> Iterator[tuple[Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"], Int64[np.ndarray, "pairs"]]]:
        """Blocks of first ids, second ids (first ≤ second) and weights, each pair once, in order."""
        each_once = self.pairs == sum(segment.entries for segment in self.segments)
        for segment in self.segments:
            entries, start = segment.mapped(), 0
            while start < len(entries):
                stop = min(start + _BLOCK_ENTRIES, len(entries))
                if stop < len(entries):
                    bits = self.packing.weight_bits
                    next_pair = np.uint64(min(((int(entries[stop - 1]) >> bits) + 1) << bits, (1 << 64) - 1))
                    stop += int(np.searchsorted(entries[stop:], next_pair))
                first, second, weights = self.packing.unpack(entries[start:stop])
                start = stop
                if each_once:
                    yield first, second, weights
                    continue
                new = np.flatnonzero(np.diff(first, prepend=-1) | np.diff(second, prepend=-1))
                yield first[new], second[new], np.add.reduceat(weights, new)


def count_pairs(
    corpus: EncodedCorpus, weights: tuple[int, ...], engine: Engine, cache: Path, progress: Progress
) -> PairCounts:
    """Count the pairs of a corpus, or map what was counted before.

    Args:
        weights: of a pair at distance 1, 2, …; their number is the window.

    Raises:
        CorpusError: the vocabulary is too large for pairs, or the memory too small to merge.
        EngineError: workers died again and again.
    """
    packing = PairPacking(corpus.vocab_size)
    parts = [[part.path.name, part.tokens] for part in corpus.parts]
    key = sha256(json.dumps([_FORMAT, parts, corpus.vocab_size, weights]).encode()).hexdigest()[:32]
    place, work, staging = cache / "pairs" / key, cache / "pairs" / f"{key}.work", cache / "staging"
    if counts := _kept(place, packing):
        return counts
    with storage_errors(cache), _held(work, progress), no_abandoned(staging):
        if not _kept(place, packing):  # which another process may have had, and is done with
            segments = _counted(corpus, weights, packing, engine, work, staging, progress)
            merged = _merged(segments, packing, engine, work, staging, progress)
            _summarize(merged, packing)
            corpus.refuse_changed()
            shutil.rmtree(place, ignore_errors=True)
            merged.rename(place)
            fsync_directory(place.parent)
        shutil.rmtree(work, ignore_errors=True)
    if counts := _kept(place, packing):
        return counts
    raise CorpusError(f"the counts in {place} cannot be read back", f"remove {place} and build again")


def _counted(
    corpus: EncodedCorpus, weights: tuple[int, ...], packing: PairPacking, engine: Engine, work: Path, staging: Path,
    progress: Progress,
) -> list[Segment]:  # fmt: skip
    shards = [
        CountShard(spans, weights, packing, engine.memory, work / f"{number:06}.run", staging)
        for number, spans in enumerate(_spans(corpus, len(weights)))
    ]
    with progress.step("count pairs", corpus.tokens, "tokens") as step:
        for _ in engine.run(count_shard, shards, step.advance):
            pass
    return [segment for shard in shards for segment in read_run(shard.run) or ()]


def _merged(
    segments: list[Segment], packing: PairPacking, engine: Engine, work: Path, staging: Path, progress: Progress
) -> Path:
    total, place = sum(segment.entries for segment in segments), work / "merged"
    if (needed := merge_memory(segments)) > engine.memory * _MERGE_SHARE:
        asked = needed / _MERGE_SHARE * engine.machine_memory / engine.memory
        raise CorpusError(
            f"the memory is too little to merge {total:,} counted pairs in {len(segments):,} runs",
            f"give --memory {np.ceil(asked / 1e8) / 10:.1f}GB or more, or fewer --processes; what is counted is kept",
        )
    least = engine.workers if total > _WORTH_SHARING else 1
    ranges = merge_shards(segments, packing, int(engine.memory * _MERGE_SHARE), least, place, staging)
    for left in set(place.glob("*")) - {shard.out for shard in ranges}:  # of other ranges, before an interruption
        left.unlink()
    with progress.step("merge counts", total, "pairs") as step:
        for _ in engine.run(merge_segments, ranges, step.advance):
            pass
    return place


@contextmanager
def _held(work: Path, progress: Progress) -> Iterator[None]:
    """A directory to work in, held against other processes. One that has just finished removes it, so look again."""
    with ExitStack() as held:
        told = False
        while True:
            work.mkdir(parents=True, exist_ok=True)
            with ExitStack() as holding, suppress(FileNotFoundError):
                try:
                    holding.enter_context(locked(work, wait=False))
                except BlockingIOError:
                    if not told:
                        progress.note("another process is counting the same; waiting for it")
                    told = True
                    holding.enter_context(locked(work))
                held.push(holding.pop_all())
                break
        yield


def _kept(place: Path, packing: PairPacking) -> PairCounts | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((place / "counts.json").read_bytes())
        segments: list[Segment] = []
        for name in facts["files"]:
            run = read_run(place / name)
            if run is None:
                return None
            segments += run
        return PairCounts(tuple(segments), packing, facts["digest"], facts["pairs"])
    return None


def _summarize(merged: Path, packing: PairPacking) -> None:
    files = sorted(merged.glob("*.run"))
    digest, pairs = sha256(), 0
    for file in files:
        for segment in read_run(file) or ():
            entries, last = segment.mapped(), np.uint64((1 << 64) - 1)
            for start in range(0, len(entries), _BLOCK_ENTRIES):
                block = entries[start : start + _BLOCK_ENTRIES]
                digest.update(np.ascontiguousarray(block).data.cast("B"))
                ids = block >> np.uint64(packing.weight_bits)
                pairs += int((np.diff(ids) != 0).sum()) + int(ids[0] != last)
                last = ids[-1]
    facts = {"files": [file.name for file in files], "digest": digest.hexdigest(), "pairs": pairs}
    write_atomically(merged / "counts.json", json.dumps(facts).encode())


def _spans(corpus: EncodedCorpus, window: int) -> list[tuple[Span, ...]]:
    """The tokens of a corpus in shards. Their size follows from the corpus alone, so that any engine goes on with what
    another has left."""
    pairs = corpus.tokens * window
    most = max(1, min(max(pairs // _SHARDS, _LEAST_SHARD_PAIRS), _MOST_SHARD_PAIRS) // window)
    shards: list[tuple[Span, ...]] = []
    spans: list[Span] = []
    room = most
    for part in corpus.parts:
        start = 0
        while start < part.tokens:
            stop = min(part.tokens, start + room)
            spans.append(Span(part, start, stop))
            room -= stop - start
            start = stop
            if not room:
                shards.append(tuple(spans))
                spans, room = [], most
    return [*shards, tuple(spans)] if spans else shards
