"""Sorted runs of pairs on disk, and merging them: what counting keeps when it cannot keep all in memory.

A run file holds segments, each sorted and folded, one after the other, and a footer for merging: their lengths and a
sample of their entries. It is written in a staging directory and renamed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from costbank.engines import Report
from costbank.files import staging_directory
from costbank.footers import read_footer, write_footer
from costbank.sources.cooccurrence.packing import PairPacking, fold_pairs

__all__ = ["MergeShard", "RunWriter", "Segment", "merge_memory", "merge_segments", "merge_shards", "read_run"]

_MAGIC = b"cbrun\0\0\1"
_SAMPLES = 1024
_ENTRY = np.dtype("<u8")


@dataclass(frozen=True)
class Segment:
    """A sorted part of a run file: entries from byte `offset` on, and an evenly spaced sample of them."""

    path: Path
    offset: int
    entries: int
    samples: tuple[int, ...] = field(repr=False)

    def mapped(self) -> UInt64[np.ndarray, "entries"]:
        return np.asarray(np.memmap(self.path, _ENTRY, "r", self.offset, (self.entries,)))


class RunWriter:
    """Writes segments into a run file, which gets its name once all are in it.

    Use as a context manager; without `finish` nothing is kept.
    """

    def __init__(self, path: Path, staging: Path) -> None:
        self._path, self._staged = path, staging_directory(staging)
        self._segments: list[dict[str, Any]] = []

    def __enter__(self) -> "RunWriter":
        self._part = self._staged.__enter__() / "run"
        self._file = self._part.open("wb")
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._staged.__exit__(*error)

    def append(self, entries: UInt64[np.ndarray, "entries"]) -> None:
        if len(entries):
            samples = entries[np.linspace(0, len(entries) - 1, min(_SAMPLES, len(entries))).astype(np.int64)]
            facts = {"offset": self._file.tell(), "entries": len(entries), "samples": samples.tolist()}
            self._segments.append(facts)
            self._file.write(np.ascontiguousarray(entries, _ENTRY).data.cast("B"))

    def finish(self) -> None:
        write_footer(self._file, self._segments, _MAGIC)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part.replace(self._path)


def read_run(path: Path) -> tuple[Segment, ...] | None:
    """The segments of a run file; None where it does not exist or is not whole."""
    try:
        footer = read_footer(path, _MAGIC)
        if footer is None:
            return None
        segments = tuple(Segment(path, s["offset"], s["entries"], tuple(s["samples"])) for s in footer.content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = footer.offset == sum(s.entries for s in segments) * _ENTRY.itemsize
    return segments if whole else None


@dataclass(frozen=True)
class MergeShard:
    """A range of pairs to merge out of all segments, from entry value `low` to before `high`."""

    segments: tuple[Segment, ...]
    low: int
    high: int
    packing: PairPacking
    out: Path
    staging: Path


def merge_memory(segments: Sequence[Segment]) -> int:
    """The least memory for merging, in bytes, in any number of ranges."""
    return int(3 * _slack(segments)) * _ENTRY.itemsize


def merge_shards(
    segments: Sequence[Segment], packing: PairPacking, memory: int, least: int, out: Path, staging: Path
) -> list[MergeShard]:
    """Ranges of pairs, in order, each of which fits in so many bytes; `least` of them where there are pairs enough.

    The bytes are `merge_memory(segments)` or more.
    """
    total = sum(segment.entries for segment in segments)
    samples = np.concatenate([np.zeros(0, _ENTRY), *(np.array(s.samples, _ENTRY) for s in segments)])
    stands_for = np.concatenate([np.zeros(0), *(np.full(len(s.samples), s.entries / len(s.samples)) for s in segments)])
    room = memory / _ENTRY.itemsize - 2 * _slack(segments)
    parts = max(1, min(max(least, int(np.ceil(total / room))), len(samples)))
    order = np.argsort(samples, kind="stable")
    reached = np.cumsum(stands_for[order])
    at = np.searchsorted(reached, total * np.arange(1, parts) / parts)
    bits = np.uint64(packing.weight_bits)
    cuts = np.unique((samples[order[np.minimum(at, len(order) - 1)]] >> bits) << bits) if parts > 1 else samples[:0]
    bounds = [0, *cuts.tolist(), (1 << 64) - 1]
    return [
        MergeShard(tuple(segments), low, high, packing, out / f"{low:016x}-{high:016x}.run", staging)
        for low, high in pairwise(bounds)
    ]


def _slack(segments: Sequence[Segment]) -> float:
    """Entries by which a range may exceed its samples' estimate: those between two samples of each segment."""
    return sum(segment.entries / len(segment.samples) for segment in segments)


def merge_segments(shard: MergeShard, report: Report) -> None:
    """Write the folded entries of a range of pairs as a run of one segment. An engine's work."""
    if read_run(shard.out) is not None:
        return
    slices = list(_slices(shard))
    entries = np.empty(sum(stop - start for _, start, stop in slices), _ENTRY)
    at = 0
    for segment, start, stop in slices:
        entries[at : at + stop - start] = segment.mapped()[start:stop]
        at += stop - start
    with RunWriter(shard.out, shard.staging) as writer:
        writer.append(fold_pairs(entries, shard.packing))
        writer.finish()
    report(len(entries))


def _slices(shard: MergeShard) -> Iterator[tuple[Segment, int, int]]:
    for segment in shard.segments:
        start, stop = np.searchsorted(segment.mapped(), np.array([shard.low, shard.high], _ENTRY)).tolist()
        if stop > start:
            yield segment, start, stop
