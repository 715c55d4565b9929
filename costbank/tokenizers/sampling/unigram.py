"""Segmentations sampled from a unigram model in proportion to their probability to a power (Kudo 2018).

Texts are split into units, which no piece crosses. The lattice of each distinct unit is built once. The pieces of a
segmentation are drawn from the end of a text to its start, each by a random number that depends only on the seed of the
text and on where the piece ends.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from costbank.errors import UsageError
from costbank.tokenizers.base import merge_repeated_unknown
from costbank.tokenizers.sampling.lattice import Lattice, PieceScores, segment_boundaries, to_symbols
from costbank.tokenizers.sampling.random_streams import streams, uniforms
from costbank.tokenizers.sampling.trie import Trie

__all__ = ["UnigramSampler"]

_BLOCK_BYTES = 1 << 20
_MAX_ALPHA = 1e6


@dataclass(frozen=True, eq=False)
class UnigramSampler:
    """Samples segmentations of texts that are already normalized.

    Attributes:
        trie: the pieces that text can match, with their ids.
        scores: log probabilities of pieces.
        split: splits a text into units that no piece crosses.
        byte_ids: the piece of each byte, for unknown characters. Without it, consecutive unknown characters become one
            unknown id.
        block_bytes: units are processed in blocks of about this many bytes.
    """

    trie: Trie
    scores: PieceScores
    split: Callable[[str], list[str]]
    byte_ids: Int32[np.ndarray, "256"] | None = None
    block_bytes: int = _BLOCK_BYTES

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """See `SamplingTokenizer.sample`.

        Raises:
            UsageError: alpha is not above 0, or so large that sums of scores lose their precision.
        """
        if not 0 < alpha <= _MAX_ALPHA:
            raise UsageError(
                f"alpha is {alpha:g}, but must be above 0 and at most {_MAX_ALPHA:g}", "a usual value is 0.1"
            )
        units, occurrences = self._distinct_units(texts, seeds)
        piece_ending_at = np.full(occurrences.total_bytes + 1, -1, np.int32)
        for low, high in _blocks(units, self.block_bytes):
            self._sample_block(units[low:high], occurrences.of_units(low, high), alpha, piece_ending_at)
        return self._collect(piece_ending_at, occurrences.text_ends)

    def _distinct_units(
        self, texts: Sequence[str], seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[list[bytes], "_Occurrences"]:
        index = _UnitIndex()
        split = [np.fromiter(map(index.__getitem__, self._split(text)), np.int64) for text in texts]
        units = [unit.encode() for unit in index]
        units_of_text = np.fromiter(map(len, split), np.int64, len(split))
        unit = np.concatenate([np.zeros(0, np.int64), *split])
        sizes = np.fromiter(map(len, units), np.int64, len(units))[unit]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        text_bounds = bounds[np.concatenate([[0], np.cumsum(units_of_text)])]
        position_in_text = bounds[:-1] - np.repeat(text_bounds[:-1], units_of_text)
        random = streams(np.repeat(seeds, units_of_text), position_in_text)
        return units, _Occurrences(unit, bounds[:-1], random, text_bounds[1:])

    def _split(self, text: str) -> list[str]:
        units = self.split(text)
        if len(text) * 4 <= self.block_bytes:
            return units
        return [part for unit in units for part in self._split_long(unit)]

    def _split_long(self, unit: str) -> Iterator[str]:
        """Split a long unit at boundaries that no piece spans, into parts that fit a block if possible."""
        data = unit.encode()
        if len(data) <= self.block_bytes:
            yield unit
            return
        cuts, start = segment_boundaries(data, self.trie), 0
        while start < len(data):
            last_fitting = np.searchsorted(cuts, start + self.block_bytes, "right") - 1
            end = int(cuts[last_fitting]) if cuts[last_fitting] > start else int(cuts[last_fitting + 1])
            yield data[start:end].decode()
            start = end

    def _sample_block(
        self, units: list[bytes], occurrences: "_Occurrences", alpha: float, out: Int32[np.ndarray, "boundaries"]
    ) -> None:
        """Draw a segmentation for every occurrence of some units, and write its pieces where they end in the texts."""
        lattice = Lattice.build(to_symbols(units), self.trie, self.scores, alpha)
        segments = _segments_of(occurrences, units, lattice)
        starts, ends = lattice.segment_starts[segments.index], lattice.segment_ends[segments.index]
        is_long = lattice.is_long[segments.index]
        boundaries, active = ends.copy(), np.flatnonzero(~is_long)
        while len(active):
            piece_ends = boundaries[active]
            random = uniforms(segments.streams[active], piece_ends - segments.unit_starts[active])
            arcs = lattice.sample_arcs(piece_ends, random)
            self._write_pieces(lattice, arcs, piece_ends, segments.shifts[active], out)
            boundaries[active] = lattice.start[arcs]
            active = active[boundaries[active] > starts[active]]
        for n in np.flatnonzero(is_long).tolist():
            inner = np.arange(starts[n] + 1, ends[n] + 1)
            inner = inner[lattice.node[inner] >= 0]
            random = uniforms(segments.streams[n : n + 1], inner - segments.unit_starts[n])
            arcs = lattice.sample_arcs(inner, random)
            path = _backtrack(lattice.start[arcs], inner)
            self._write_pieces(lattice, arcs[path], inner[path], segments.shifts[n : n + 1], out)

    def _write_pieces(
        self,
        lattice: Lattice,
        arcs: Int64[np.ndarray, "draws"],
        ends: Int64[np.ndarray, "draws"],
        shifts: Int64[np.ndarray, "#draws"],
        out: Int32[np.ndarray, "boundaries"],
    ) -> None:
        """Write the piece of each arc where it ends in the texts, and those of the bytes of unknown characters."""
        pieces = lattice.piece[arcs]
        out[ends + shifts] = pieces
        if self.byte_ids is None:
            return
        unknown = np.flatnonzero(pieces == self.scores.unknown_id)
        shifts = np.broadcast_to(shifts, ends.shape)[unknown]
        at, ends = lattice.start[arcs[unknown]].astype(np.int64), ends[unknown]
        while len(at):
            out[at + 1 + shifts] = self.byte_ids[lattice.symbols[at]]
            more = at + 1 < ends
            at, ends, shifts = at[more] + 1, ends[more], shifts[more]

    def _collect(
        self, piece_ending_at: Int32[np.ndarray, "boundaries"], text_ends: Int64[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The ids in order, and the position at which each text ends."""
        piece_ends = np.flatnonzero(piece_ending_at >= 0)
        ids, ends = piece_ending_at[piece_ends], np.searchsorted(piece_ends, text_ends, "right")
        return (ids, ends) if self.byte_ids is not None else merge_repeated_unknown(ids, ends, self.scores.unknown_id)


@dataclass(frozen=True, eq=False)
class _Occurrences:
    """The occurrences of units in the texts, in the order of the texts.

    Attributes:
        unit: the index of the unit.
        start: the number of bytes before it in all texts.
        streams: its random stream, by the seed of its text and its position in the text.
        text_ends: the number of bytes up to the end of each text.
    """

    unit: Int64[np.ndarray, "occurrences"]
    start: Int64[np.ndarray, "occurrences"]
    streams: UInt64[np.ndarray, "occurrences"]
    text_ends: Int64[np.ndarray, "texts"]

    @property
    def total_bytes(self) -> int:
        return int(self.text_ends[-1]) if len(self.text_ends) else 0

    def of_units(self, low: int, high: int) -> "_Occurrences":
        """The occurrences of the units from `low` up to `high`, which are renumbered from 0."""
        among = np.flatnonzero((self.unit >= low) & (self.unit < high))
        return _Occurrences(self.unit[among] - low, self.start[among], self.streams[among], self.text_ends)


@dataclass(frozen=True, eq=False)
class _Segments:
    """The lattice segments of every occurrence of a unit.

    Attributes:
        index: the segment in the lattice.
        unit_starts: the boundary in the lattice at which its unit begins.
        shifts: what to add to a boundary in the lattice to get its position in the texts.
        streams: the random stream of its occurrence.
    """

    index: Int64[np.ndarray, "segments"]
    unit_starts: Int64[np.ndarray, "segments"]
    shifts: Int64[np.ndarray, "segments"]
    streams: UInt64[np.ndarray, "segments"]


def _segments_of(occurrences: _Occurrences, units: list[bytes], lattice: Lattice) -> _Segments:
    unit_bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, units), np.int64, len(units)) + 1)])
    segment_bounds = np.searchsorted(lattice.segment_starts, unit_bounds)
    counts = np.diff(segment_bounds)[occurrences.unit]
    heads = np.cumsum(counts) - counts
    unit_starts = unit_bounds[:-1][occurrences.unit]
    return _Segments(
        np.arange(counts.sum()) + np.repeat(segment_bounds[:-1][occurrences.unit] - heads, counts),
        np.repeat(unit_starts, counts),
        np.repeat(occurrences.start - unit_starts, counts),
        np.repeat(occurrences.streams, counts),
    )


class _UnitIndex(dict[str, int]):
    """The index of each distinct unit, in the order in which units are first looked up."""

    def __missing__(self, unit: str) -> int:
        index = self[unit] = len(self)
        return index


def _blocks(units: list[bytes], block_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of units that hold at most `block_bytes` bytes, or a single unit."""
    low = size = 0
    for high, unit in enumerate(units):
        if size and size + len(unit) > block_bytes:
            yield low, high
            low, size = high, 0
        size += len(unit)
    if low < len(units):
        yield low, len(units)


def _backtrack(starts: Int32[np.ndarray, "draws"], ends: Int64[np.ndarray, "draws"]) -> Int64[np.ndarray, "path"]:
    """Follow the pieces drawn at the boundaries of a segment from its end to its start, and return their indices."""
    before = np.searchsorted(ends, starts)
    before = np.where(ends[np.minimum(before, len(ends) - 1)] == starts, before, -1).tolist()
    path, at = [], len(ends) - 1
    while at >= 0:
        path.append(at)
        at = before[at]
    return np.array(path, np.int64)
