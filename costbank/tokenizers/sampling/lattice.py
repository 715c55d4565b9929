"""All segmentations of many texts at once, and how probable each last piece is (forward filtering; Kudo 2018).

A boundary lies before a symbol, and has its number. Boundaries that no piece spans cut a text into segments, which are
segmented independently. The sums over segmentations go through all segments in parallel, by the distance of a boundary
from its segment's start; a long segment goes by itself, so that short ones need not wait for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt16

from costbank.tokenizers.sampling.trie import END, PieceMatches, Trie

__all__ = ["LONG", "Lattice", "Scores", "cuts_of", "symbols_of"]

LONG = 1 << 10
"""Bytes from which a segment is processed by itself."""

_MOST_CHARACTER_BYTES = 4
_CHARACTER_BYTES = np.zeros(END + 1, np.uint8)  # by a character's first byte; 0 for any other, and at the end of a text
for _first, _length in ((0, 1), (0x80, 0), (0xC0, 2), (0xE0, 3), (0xF0, 4), (END, 0)):
    _CHARACTER_BYTES[_first:] = _length


@dataclass(frozen=True, eq=False)
class Scores:
    """Log probabilities of pieces by their ids.

    Attributes:
        of_pieces: for each id; what no text can match is not looked at.
        unknown_id: the id of a character that is not a piece, −1 where all bytes are pieces.
    """

    of_pieces: Float64[np.ndarray, "vocab"]
    unknown_id: int = -1


@dataclass(frozen=True, eq=False)
class Lattice:
    """The pieces that end at each boundary, as rows from `first[rank]` up to `first[rank + 1]`.

    Attributes:
        symbols: the texts' bytes, with `END` after each text.
        rank: of each boundary that a piece ends at, in the order in which they are computed; −1 for others.
        share: the probability of each piece, given that a piece ends at its boundary.
        origin, piece: where each piece begins, and its id.
        segment_start, segment_end: boundaries of each segment, in the order of the texts.
    """

    symbols: UInt16[np.ndarray, "symbols"]
    rank: Int32[np.ndarray, "symbols"]
    first: Int64[np.ndarray, "ranks_plus_1"]
    share: Float64[np.ndarray, "rows"]
    origin: Int32[np.ndarray, "rows"]
    piece: Int32[np.ndarray, "rows"]
    segment_start: Int64[np.ndarray, "segments"]
    segment_end: Int64[np.ndarray, "segments"]

    @classmethod
    def of(cls, symbols: UInt16[np.ndarray, "symbols"], trie: Trie, scores: Scores, alpha: float) -> "Lattice":
        """The lattice of texts in which a segmentation has a probability in proportion to its own to the `alpha`."""
        matches = _with_unknown(symbols, list(trie.matches(symbols)), scores)
        into, spanned = _counts(matches, len(symbols))
        cut = spanned == 0
        cuts = np.flatnonzero(cut)
        starts, ends = cuts[:-1], cuts[1:]
        real = into[ends] > 0  # not between the end of a text and the start of the next
        starts, ends = starts[real], ends[real]
        reached = np.flatnonzero(into)
        segment = np.searchsorted(ends, reached)
        distance = reached - starts[segment]
        long = (ends - starts)[segment] >= LONG
        short = reached[~long]
        distance = distance[~long].astype(np.uint16)
        order = np.concatenate([short[np.argsort(distance, kind="stable")], reached[long]])
        rank = np.full(len(symbols), -1, np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        first = np.concatenate([[0], np.cumsum(into[order])])
        share, origin, piece = _rows(matches, rank, first, scores.of_pieces * alpha)
        total = np.zeros(len(symbols))  # at cuts it stays 0, since each segment begins anew
        step = 0
        for count in np.bincount(distance)[1:].tolist():
            _advance(slice(step, step + count), order, first, origin, share, total, cut)
            step += count
        for segment_start, segment_end in zip(starts.tolist(), ends.tolist(), strict=True) if long.any() else ():
            if segment_end - segment_start >= LONG:
                count = int(np.count_nonzero(into[segment_start + 1 : segment_end + 1]))
                _advance_alone(slice(step, step + count), order, first, origin, share, segment_start)
                step += count
        return cls(symbols, rank, first, share, origin, piece, starts, ends)

    def pick(
        self, boundaries: Int64[np.ndarray, "draws"], uniforms: Float64[np.ndarray, "draws"]
    ) -> Int64[np.ndarray, "draws"]:
        """The row of a piece that ends at each boundary, by a number in [0, 1) for each."""
        ranks = self.rank[boundaries]
        rows, last = self.first[ranks], self.first[ranks + 1] - 1
        rest, active = uniforms.copy(), np.flatnonzero(rows < last)
        active = active[rest[active] >= self.share[rows[active]]]
        while len(active):
            rest[active] -= self.share[rows[active]]
            rows[active] += 1
            active = active[(rows[active] < last[active]) & (rest[active] >= self.share[rows[active]])]
        return rows


def symbols_of(texts: Sequence[bytes]) -> UInt16[np.ndarray, "symbols"]:
    """The bytes of texts, with `END` after each."""
    data = np.frombuffer(b"\0".join([*texts, b""]), np.uint8).astype(np.uint16)
    data[np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1) - 1] = END
    return data


def cuts_of(text: bytes, trie: Trie) -> Int64[np.ndarray, "cuts"]:
    """Where a text falls into parts of whole characters that no piece spans, its start and end included."""
    symbols = symbols_of([text])
    _, spanned = _counts(list(trie.matches(symbols)), len(symbols))
    return np.flatnonzero((spanned == 0) & ((_CHARACTER_BYTES[symbols] > 0) | (symbols == END)))


def _with_unknown(
    symbols: UInt16[np.ndarray, "symbols"], matches: list[PieceMatches], scores: Scores
) -> list[PieceMatches]:
    """The matches, and one for each character that is not among them."""
    if scores.unknown_id < 0:
        return matches
    lengths = _CHARACTER_BYTES[symbols]
    for length, known in enumerate(matches[:_MOST_CHARACTER_BYTES], 1):
        lengths[known.starts[lengths[known.starts] == length]] = 0
    matches = matches + [PieceMatches(*(np.zeros(0, np.int32) for _ in range(2)))] * (
        _MOST_CHARACTER_BYTES - len(matches)
    )
    for length in range(1, _MOST_CHARACTER_BYTES + 1):
        starts = np.flatnonzero(lengths == length).astype(np.int32)
        known = matches[length - 1]
        unknown = np.full(len(starts), scores.unknown_id, np.int32)
        matches[length - 1] = PieceMatches(
            np.concatenate([known.starts, starts]), np.concatenate([known.pieces, unknown])
        )
    return matches


def _counts(
    matches: list[PieceMatches], boundaries: int
) -> tuple[Int32[np.ndarray, "boundaries"], Int32[np.ndarray, "boundaries"]]:
    """How many pieces end at each boundary, and how many span it."""
    into, change = np.zeros(boundaries, np.int32), np.zeros(boundaries + 1, np.int32)
    for length, (starts, _) in enumerate(matches, 1):
        into[starts + length] += 1  # pieces of one length all end elsewhere
        change[starts + 1] += 1
    change[:-1] -= into
    return into, np.cumsum(change[:-1], dtype=np.int32)


def _rows(
    matches: list[PieceMatches],
    rank: Int32[np.ndarray, "symbols"],
    first: Int64[np.ndarray, "ranks_plus_1"],
    weights: Float64[np.ndarray, "vocab"],
) -> tuple[Float64[np.ndarray, "rows"], Int32[np.ndarray, "rows"], Int32[np.ndarray, "rows"]]:
    """Weight, origin and id of each piece, ordered by where it ends, and there the longest first."""
    origin, piece = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    free = first[:-1].copy()
    for length in range(len(matches), 0, -1):
        starts, pieces = matches[length - 1]
        ranks = rank[starts + length]
        rows = free[ranks]
        free[ranks] = rows + 1
        origin[rows], piece[rows] = starts, pieces
    return weights[piece], origin, piece


def _advance(
    ranks: slice,
    order: Int64[np.ndarray, "ranks"],
    first: Int64[np.ndarray, "ranks_plus_1"],
    origin: Int32[np.ndarray, "rows"],
    share: Float64[np.ndarray, "rows"],
    total: Float64[np.ndarray, "symbols"],
    cut: Bool[np.ndarray, "symbols"],
) -> None:
    """Weights of rows become shares, and logs of the sums over segmentations reach one step further."""
    bounds = first[ranks.start : ranks.stop + 1]
    if len(bounds) < 2:
        return
    heads, counts = bounds[:-1] - bounds[0], np.diff(bounds)
    rows = slice(bounds[0], bounds[-1])
    logs = total[origin[rows]] + share[rows]
    best = np.maximum.reduceat(logs, heads)
    logs -= np.repeat(best, counts)
    np.exp(logs, out=logs)
    sums = np.add.reduceat(logs, heads)
    share[rows] = logs / np.repeat(sums, counts)
    boundaries = order[ranks]
    total[boundaries] = np.where(cut[boundaries], 0.0, best + np.log(sums))


def _advance_alone(
    ranks: slice,
    order: Int64[np.ndarray, "ranks"],
    first: Int64[np.ndarray, "ranks_plus_1"],
    origin: Int32[np.ndarray, "rows"],
    share: Float64[np.ndarray, "rows"],
    start: int,
) -> None:
    """The same for all boundaries of one segment, in plain Python, which is faster at one boundary after the other."""
    bounds = first[ranks.start : ranks.stop + 1].tolist()
    rows = slice(bounds[0], bounds[-1])
    origins, weights, total = origin[rows].tolist(), share[rows].tolist(), {start: 0.0}
    shares: list[float] = []
    for boundary, low, high in zip(order[ranks].tolist(), bounds, bounds[1:], strict=False):
        near = slice(low - bounds[0], high - bounds[0])
        logs = [total[begin] + weight for begin, weight in zip(origins[near], weights[near], strict=True)]
        best = max(logs)
        terms = [math.exp(log - best) for log in logs]
        term_sum = math.fsum(terms)
        shares += [term / term_sum for term in terms]
        total[boundary] = best + math.log(term_sum)
    share[rows] = shares
