"""Segmentations drawn from a unigram model in proportion to their probability to a power (Kudo 2018).

Each piece of a segmentation is drawn given where it ends, from the end of a text to its start, by a number that depends
on the text's seed and that place alone. What is equal in the texts is looked up once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from costbank.errors import UsageError
from costbank.tokenizers.base import without_repeats
from costbank.tokenizers.sampling.lattice import LONG, Lattice, Scores, cuts_of, symbols_of
from costbank.tokenizers.sampling.random_streams import streams, uniforms
from costbank.tokenizers.sampling.trie import Trie

__all__ = ["UnigramSampler"]

_BLOCK_BYTES = 1 << 20
_MOST_ALPHA = 1e6


@dataclass(frozen=True, eq=False)
class UnigramSampler:
    """Draws segmentations of texts that a model's own rules have already normalised.

    Attributes:
        trie: the pieces that text can match, with their ids.
        scores: log probabilities by these ids.
        split: cuts a text into units that no piece reaches beyond.
        byte_ids: what an unknown character becomes, byte by byte; without it, unknown ones in a row become one id.
    """

    trie: Trie
    scores: Scores
    split: Callable[[str], list[str]]
    byte_ids: Int32[np.ndarray, "256"] | None = None

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """As `SamplingTokenizer.sample`.

        Raises:
            UsageError: alpha is not above 0, or so large that sums of scores lose their digits.
        """
        if not 0 < alpha <= _MOST_ALPHA:
            raise UsageError(f"alpha is {alpha:g}, and must be above 0, up to {_MOST_ALPHA:g}", "a usual value is 0.1")
        units, uses = self._units(texts, seeds)
        out = np.full(uses.total + 1, -1, np.int32)
        for low, high in _blocks(units):
            self._draw(units[low:high], uses.of(low, high), alpha, out)
        return self._joined(out, uses.text_ends)

    def _units(self, texts: Sequence[str], seeds: Integer[np.ndarray, "texts"]) -> tuple[list[bytes], "_Uses"]:
        numbers = _Numbers()
        found = [np.fromiter(map(numbers.__getitem__, self._split(text)), np.int64) for text in texts]
        units = [unit.encode() for unit in numbers]
        counts = np.fromiter(map(len, found), np.int64, len(found))
        unit = np.concatenate([np.zeros(0, np.int64), *found])
        sizes = np.fromiter(map(len, units), np.int64, len(units))[unit]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        text_bounds = bounds[np.concatenate([[0], np.cumsum(counts)])]
        places = streams(np.repeat(seeds, counts), bounds[:-1] - np.repeat(text_bounds[:-1], counts))
        return units, _Uses(unit, bounds[:-1], places, text_bounds[1:])

    def _split(self, text: str) -> list[str]:
        units = self.split(text)
        if len(text) * 4 <= _BLOCK_BYTES:
            return units
        return [part for unit in units for part in self._parts(unit)]

    def _parts(self, unit: str) -> Iterator[str]:
        """A unit that is longer than a block in parts that fit, as far as it falls into such."""
        data = unit.encode()
        if len(data) <= _BLOCK_BYTES:
            yield unit
            return
        cuts, start = cuts_of(data, self.trie), 0
        while start < len(data):
            reached = np.searchsorted(cuts, start + _BLOCK_BYTES, "right") - 1
            end = int(cuts[reached]) if cuts[reached] > start else int(cuts[reached + 1])
            yield data[start:end].decode()
            start = end

    def _draw(self, units: list[bytes], uses: "_Uses", alpha: float, out: Int32[np.ndarray, "boundaries"]) -> None:
        lattice = Lattice.of(symbols_of(units), self.trie, self.scores, alpha)
        unit_bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, units), np.int64, len(units)) + 1)])
        unit_starts = unit_bounds[:-1]
        segment_bounds = np.searchsorted(lattice.segment_start, unit_bounds)
        lows = segment_bounds[:-1]
        counts = np.diff(segment_bounds)[uses.unit]
        heads = np.cumsum(counts) - counts
        segments = np.arange(counts.sum()) + np.repeat(lows[uses.unit] - heads, counts)
        shifts = np.repeat(uses.start - unit_starts[uses.unit], counts)
        places = np.repeat(uses.streams, counts)
        firsts = np.repeat(unit_starts[uses.unit], counts)
        starts, ends = lattice.segment_start[segments], lattice.segment_end[segments]
        boundaries, active = ends.copy(), np.flatnonzero(ends - starts < LONG)
        while len(active):
            ended = boundaries[active]
            rows = lattice.pick(ended, uniforms(places[active], ended - firsts[active]))
            self._write(lattice, rows, ended, shifts[active], out)
            boundaries[active] = lattice.origin[rows]
            active = active[boundaries[active] > starts[active]]
        for long in np.flatnonzero(ends - starts >= LONG).tolist():
            inner = np.arange(starts[long] + 1, ends[long] + 1)
            inner = inner[lattice.rank[inner] >= 0]
            rows = lattice.pick(inner, uniforms(places[long : long + 1], inner - firsts[long]))
            chosen = _chosen(lattice.origin[rows], inner)
            self._write(lattice, rows[chosen], inner[chosen], shifts[long : long + 1], out)

    def _write(
        self,
        lattice: Lattice,
        rows: Int64[np.ndarray, "draws"],
        ends: Int64[np.ndarray, "draws"],
        shifts: Int64[np.ndarray, "#draws"],
        out: Int32[np.ndarray, "boundaries"],
    ) -> None:
        """Put each piece where it ends in the texts."""
        pieces = lattice.piece[rows]
        out[ends + shifts] = pieces
        if self.byte_ids is None:
            return
        unknown = np.flatnonzero(pieces == self.scores.unknown_id)
        shifts = np.broadcast_to(shifts, ends.shape)[unknown]
        at, ends = lattice.origin[rows[unknown]].astype(np.int64), ends[unknown]
        while len(at):
            out[at + 1 + shifts] = self.byte_ids[lattice.symbols[at]]
            more = at + 1 < ends
            at, ends, shifts = at[more] + 1, ends[more], shifts[more]

    def _joined(
        self, out: Int32[np.ndarray, "boundaries"], text_ends: Int64[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """The ids in order, and where each text ends in them."""
        ended = np.flatnonzero(out >= 0)
        ids, ends = out[ended], np.searchsorted(ended, text_ends, "right")
        return (ids, ends) if self.byte_ids is not None else without_repeats(ids, ends, self.scores.unknown_id)


@dataclass(frozen=True, eq=False)
class _Uses:
    """Where units stand in the texts.

    Attributes:
        unit: the number of each unit, in the order of the texts.
        start: the bytes before it in all texts.
        streams: of random numbers, for its text's seed and where it stands in the text.
        text_ends: the bytes up to the end of each text.
    """

    unit: Int64[np.ndarray, "uses"]
    start: Int64[np.ndarray, "uses"]
    streams: UInt64[np.ndarray, "uses"]
    text_ends: Int64[np.ndarray, "texts"]

    @property
    def total(self) -> int:
        return int(self.text_ends[-1]) if len(self.text_ends) else 0

    def of(self, low: int, high: int) -> "_Uses":
        """Those of the units from `low` up to `high`, which become 0 and so on."""
        among = np.flatnonzero((self.unit >= low) & (self.unit < high))
        return _Uses(self.unit[among] - low, self.start[among], self.streams[among], self.text_ends)


class _Numbers(dict[str, int]):
    """Numbers units as they are first met."""

    def __missing__(self, unit: str) -> int:
        number = self[unit] = len(self)
        return number


def _blocks(units: list[bytes]) -> Iterator[tuple[int, int]]:
    """Ranges of units that hold a block of bytes, or a single unit."""
    low = size = 0
    for high, unit in enumerate(units):
        if size and size + len(unit) > _BLOCK_BYTES:
            yield low, high
            low, size = high, 0
        size += len(unit)
    if low < len(units):
        yield low, len(units)


def _chosen(origins: Int32[np.ndarray, "draws"], ends: Int64[np.ndarray, "draws"]) -> Int64[np.ndarray, "chosen"]:
    """Which of the pieces drawn at every boundary of a segment follow each other from its end to its start."""
    before = np.searchsorted(ends, origins)
    before = np.where(ends[np.minimum(before, len(ends) - 1)] == origins, before, -1).tolist()
    chosen, at = [], len(ends) - 1
    while at >= 0:
        chosen.append(at)
        at = before[at]
    return np.array(chosen, np.int64)
