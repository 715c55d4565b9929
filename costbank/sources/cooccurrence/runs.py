"""Sorted runs of pairs on disk, for counts that exceed the memory, and their merge.

A run file holds consecutive segments, each sorted and folded, and a footer with the length of each segment and a sample
of its entries, which the merge needs. It is written in a staging directory and then renamed.
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
    """A sorted part of a run file: its entries, which start at byte `offset`, and an evenly spaced sample of them."""

    path: Path
    offset: int
    entries: int
    samples: tuple[int, ...] = field(repr=False)

    def mapped(self) -> UInt64[np.ndarray, "entries"]:
        """The entries, mapped read-only."""
        return np.asarray(np.memmap(self.path, _ENTRY, "r", self.offset, (self.entries,)))


class RunWriter:
    """Writes a run file. Use it as a context manager; unless `finish` is called, no file is created.

    Args:
        path: the file to write.
        staging: the directory for the unfinished file.
        samples: the maximum number of sampled entries of a segment.
    """

    def __init__(self, path: Path, staging: Path, samples: int = _SAMPLES) -> None:
        self._path, self._staged, self._samples = path, staging_directory(staging), samples
        self._segments: list[dict[str, Any]] = []

    def __enter__(self) -> "RunWriter":
        self._part = self._staged.__enter__() / "run"
        self._file = self._part.open("wb")
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._staged.__exit__(*error)

    def append(self, entries: UInt64[np.ndarray, "entries"]) -> None:
        """Write folded entries as a segment."""
        if len(entries):
            samples = entries[np.linspace(0, len(entries) - 1, min(self._samples, len(entries))).astype(np.int64)]
            facts = {"offset": self._file.tell(), "entries": len(entries), "samples": samples.tolist()}
            self._segments.append(facts)
            self._file.write(np.ascontiguousarray(entries, _ENTRY).data.cast("B"))

    def finish(self) -> None:
        """Write the footer, and rename the file to its path."""
        write_footer(self._file, self._segments, _MAGIC)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part.replace(self._path)


def read_run(path: Path) -> tuple[Segment, ...] | None:
    """The segments of a run file; None if it does not exist or is incomplete."""
    try:
        footer = read_footer(path, _MAGIC)
        if footer is None:
            return None
        segments = tuple(Segment(path, s["offset"], s["entries"], tuple(s["samples"])) for s in footer.content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_complete = footer.offset == sum(s.entries for s in segments) * _ENTRY.itemsize
    return segments if is_complete else None


@dataclass(frozen=True)
class MergeShard:
    """A range of pairs to merge from all segments: entries of at least `low` and less than `high`."""

    segments: tuple[Segment, ...]
    low: int
    high: int
    packing: PairPacking
    out: Path
    staging: Path


def merge_memory(segments: Sequence[Segment]) -> int:
    """The minimum memory for a merge, in bytes, with any number of ranges."""
    return int(3 * _slack(segments)) * _ENTRY.itemsize


def merge_shards(
    segments: Sequence[Segment], packing: PairPacking, memory: int, min_ranges: int, out: Path, staging: Path
) -> list[MergeShard]:
    """Divide the merge into ranges of pairs, in order.

    Args:
        segments: the segments to merge.
        packing: the layout of their entries.
        memory: bytes of memory for the merge of one range; at least `merge_memory(segments)`.
        min_ranges: the minimum number of ranges, if there are enough pairs.
        out: the directory of the merged runs.
        staging: the directory for unfinished files.
    """
    total = sum(segment.entries for segment in segments)
    samples = np.concatenate([np.zeros(0, _ENTRY), *(np.array(s.samples, _ENTRY) for s in segments)])
    sample_weights = np.concatenate(
        [np.zeros(0), *(np.full(len(s.samples), s.entries / len(s.samples)) for s in segments)]
    )
    range_entries = memory / _ENTRY.itemsize - 2 * _slack(segments)
    ranges = max(1, min(max(min_ranges, int(np.ceil(total / range_entries))), len(samples)))
    order = np.argsort(samples, kind="stable")
    cumulative = np.cumsum(sample_weights[order])
    cut_samples = np.searchsorted(cumulative, total * np.arange(1, ranges) / ranges)
    bits = np.uint64(packing.weight_bits)
    cuts = (
        np.unique((samples[order[np.minimum(cut_samples, len(order) - 1)]] >> bits) << bits)
        if ranges > 1
        else samples[:0]
    )
    bounds = [0, *cuts.tolist(), (1 << 64) - 1]
    return [
        MergeShard(tuple(segments), low, high, packing, out / f"{low:016x}-{high:016x}.run", staging)
        for low, high in pairwise(bounds)
    ]


def _slack(segments: Sequence[Segment]) -> float:
    """How many more entries than estimated a range can have: those between two samples of each segment."""
    return sum(segment.entries / len(segment.samples) for segment in segments)


def merge_segments(shard: MergeShard, report: Report) -> None:
    """Merge a range of pairs into a run of one segment. Runs in an engine."""
    if read_run(shard.out) is not None:
        return
    slices = list(_slices(shard))
    entries = np.empty(sum(stop - start for _, start, stop in slices), _ENTRY)
    filled = 0
    for segment, start, stop in slices:
        entries[filled : filled + stop - start] = segment.mapped()[start:stop]
        filled += stop - start
    with RunWriter(shard.out, shard.staging) as writer:
        writer.append(fold_pairs(entries, shard.packing))
        writer.finish()
    report(len(entries))


def _slices(shard: MergeShard) -> Iterator[tuple[Segment, int, int]]:
    for segment in shard.segments:
        start, stop = np.searchsorted(segment.mapped(), np.array([shard.low, shard.high], _ENTRY)).tolist()
        if stop > start:
            yield segment, start, stop
