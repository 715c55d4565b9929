"""The lattice of all segmentations of many texts, and the probability of each last piece (Kudo 2018).

A node of the lattice is a boundary before a symbol, and has that symbol's number; an arc is a piece between two
boundaries. Boundaries that no arc spans cut a text into segments, which are segmented independently. With s the log
probability of a piece and Z(j) the sum over all segmentations up to boundary j (forward filtering):

    Z(start) = 1,   Z(j) = Σ over arcs i→j of Z(i) · exp(α·s),   P(i→j given a piece ends at j) = Z(i) · exp(α·s) / Z(j)

Z is computed for all segments in parallel, ordered by a boundary's distance from the start of its segment. A long
segment is computed by itself, so short ones need not wait for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt16

from costbank.tokenizers.sampling.trie import END, PieceMatches, Trie

__all__ = ["LONG_SEGMENT_BYTES", "Lattice", "PieceScores", "segment_boundaries", "to_symbols"]

LONG_SEGMENT_BYTES = 1 << 10
"""A segment of at least this many bytes is processed by itself."""

_MAX_CHARACTER_BYTES = 4
_CHARACTER_BYTES = np.zeros(END + 1, np.uint8)  # by the first byte of a character; 0 for other bytes and `END`
for _first, _length in ((0, 1), (0x80, 0), (0xC0, 2), (0xE0, 3), (0xF0, 4), (END, 0)):
    _CHARACTER_BYTES[_first:] = _length


@dataclass(frozen=True, eq=False)
class PieceScores:
    """Log probabilities of pieces.

    Attributes:
        log_probs: by piece id; those of pieces that no text can match are not used.
        unknown_id: the id of a character that is not a piece; −1 if every byte is a piece.
    """

    log_probs: Float64[np.ndarray, "vocab"]
    unknown_id: int = -1


@dataclass(frozen=True, eq=False)
class Lattice:
    """The arcs that end at each boundary: those of node n are rows `first_arc[n]` to `first_arc[n + 1]`.

    Attributes:
        symbols: the bytes of the texts, with `END` after each text.
        node: the node of each boundary at which an arc ends; −1 for other boundaries.
        first_arc: the first arc of each node.
        prob: the probability of each arc, given that a piece ends at its node.
        start, piece: the boundary at which each arc begins, and the id of its piece.
        segment_starts, segment_ends: the boundaries of each segment, in the order of the texts.
        long_segment_bytes: a segment of at least this many bytes is long.
    """

    symbols: UInt16[np.ndarray, "symbols"]
    node: Int32[np.ndarray, "symbols"]
    first_arc: Int64[np.ndarray, "nodes_plus_1"]
    prob: Float64[np.ndarray, "arcs"]
    start: Int32[np.ndarray, "arcs"]
    piece: Int32[np.ndarray, "arcs"]
    segment_starts: Int64[np.ndarray, "segments"]
    segment_ends: Int64[np.ndarray, "segments"]
    long_segment_bytes: int

    @classmethod
    def build(
        cls,
        symbols: UInt16[np.ndarray, "symbols"],
        trie: Trie,
        scores: PieceScores,
        alpha: float,
        long_segment_bytes: int = LONG_SEGMENT_BYTES,
    ) -> "Lattice":
        """The lattice of texts. The weight of a segmentation is its probability to the power of `alpha`."""
        matches = _with_unknown_characters(symbols, list(trie.matches(symbols)), scores)
        ending, spanning = _count_pieces(matches, len(symbols))
        is_cut = spanning == 0
        cuts = np.flatnonzero(is_cut)
        starts, ends = cuts[:-1], cuts[1:]
        has_pieces = ending[ends] > 0  # false between the end of a text and the start of the next
        starts, ends = starts[has_pieces], ends[has_pieces]
        order, step_sizes = _processing_order(ending, starts, ends, long_segment_bytes)
        node = np.full(len(symbols), -1, np.int32)
        node[order] = np.arange(len(order), dtype=np.int32)
        first_arc = np.concatenate([[0], np.cumsum(ending[order])])
        prob, start, piece = _list_arcs(matches, node, first_arc, scores.log_probs * alpha)
        log_z = np.zeros(len(symbols))  # stays 0 at cuts, because every segment begins anew
        nodes = 0
        for size in step_sizes.tolist():
            _forward_step(slice(nodes, nodes + size), order, first_arc, start, prob, log_z, is_cut)
            nodes += size
        is_long = ends - starts >= long_segment_bytes
        for low, high in zip(starts[is_long].tolist(), ends[is_long].tolist(), strict=True):
            size = int(np.count_nonzero(ending[low + 1 : high + 1]))
            _forward_segment(slice(nodes, nodes + size), order, first_arc, start, prob, low)
            nodes += size
        return cls(symbols, node, first_arc, prob, start, piece, starts, ends, long_segment_bytes)

    @property
    def is_long(self) -> Bool[np.ndarray, "segments"]:
        return self.segment_ends - self.segment_starts >= self.long_segment_bytes

    def sample_arcs(
        self, boundaries: Int64[np.ndarray, "draws"], uniforms: Float64[np.ndarray, "draws"]
    ) -> Int64[np.ndarray, "draws"]:
        """Draw an arc that ends at each boundary by its probability, with a uniform number for each boundary."""
        nodes = self.node[boundaries]
        arcs, last = self.first_arc[nodes], self.first_arc[nodes + 1] - 1
        rest, active = uniforms.copy(), np.flatnonzero(arcs < last)
        active = active[rest[active] >= self.prob[arcs[active]]]
        while len(active):
            rest[active] -= self.prob[arcs[active]]
            arcs[active] += 1
            active = active[(arcs[active] < last[active]) & (rest[active] >= self.prob[arcs[active]])]
        return arcs


def to_symbols(texts: Sequence[bytes]) -> UInt16[np.ndarray, "symbols"]:
    """The bytes of texts, with `END` after each."""
    data = np.frombuffer(b"\0".join([*texts, b""]), np.uint8).astype(np.uint16)
    data[np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1) - 1] = END
    return data


def segment_boundaries(text: bytes, trie: Trie) -> Int64[np.ndarray, "cuts"]:
    """The boundaries between whole characters that no piece spans, including the start and the end of the text."""
    symbols = to_symbols([text])
    _, spanning = _count_pieces(list(trie.matches(symbols)), len(symbols))
    return np.flatnonzero((spanning == 0) & ((_CHARACTER_BYTES[symbols] > 0) | (symbols == END)))


def _with_unknown_characters(
    symbols: UInt16[np.ndarray, "symbols"], matches: list[PieceMatches], scores: PieceScores
) -> list[PieceMatches]:
    """The matches, and one with the unknown id for each character that is not a piece."""
    if scores.unknown_id < 0:
        return matches
    lengths = _CHARACTER_BYTES[symbols]
    for length, of_length in enumerate(matches[:_MAX_CHARACTER_BYTES], 1):
        lengths[of_length.starts[lengths[of_length.starts] == length]] = 0
    empty = PieceMatches(np.zeros(0, np.int32), np.zeros(0, np.int32))
    matches = matches + [empty] * (_MAX_CHARACTER_BYTES - len(matches))
    for length in range(1, _MAX_CHARACTER_BYTES + 1):
        starts = np.flatnonzero(lengths == length).astype(np.int32)
        unknown = np.full(len(starts), scores.unknown_id, np.int32)
        known = matches[length - 1]
        matches[length - 1] = PieceMatches(np.concatenate([known.starts, starts]), np.concatenate([known.ids, unknown]))
    return matches


def _count_pieces(
    matches: list[PieceMatches], boundaries: int
) -> tuple[Int32[np.ndarray, "boundaries"], Int32[np.ndarray, "boundaries"]]:
    """How many pieces end at each boundary, and how many span it."""
    ending, change = np.zeros(boundaries, np.int32), np.zeros(boundaries + 1, np.int32)
    for length, (starts, _) in enumerate(matches, 1):
        ending[starts + length] += 1  # no two pieces of one length end at the same boundary
        change[starts + 1] += 1
    change[:-1] -= ending
    return ending, np.cumsum(change[:-1], dtype=np.int32)


def _processing_order(
    ending: Int32[np.ndarray, "symbols"],
    starts: Int64[np.ndarray, "segments"],
    ends: Int64[np.ndarray, "segments"],
    long_segment_bytes: int,
) -> tuple[Int64[np.ndarray, "nodes"], Int64[np.ndarray, "steps"]]:
    """The boundaries at which pieces end, and how many of them each parallel step covers.

    Those of short segments come first, ordered by their distance from the start of their segment. Those of long
    segments follow, one segment after the other.
    """
    reached = np.flatnonzero(ending)
    segment = np.searchsorted(ends, reached)
    is_long = (ends - starts)[segment] >= long_segment_bytes
    short = reached[~is_long]
    distance = (short - starts[segment[~is_long]]).astype(np.uint16)
    order = np.concatenate([short[np.argsort(distance, kind="stable")], reached[is_long]])
    return order, np.bincount(distance)[1:]


def _list_arcs(
    matches: list[PieceMatches],
    node: Int32[np.ndarray, "symbols"],
    first_arc: Int64[np.ndarray, "nodes_plus_1"],
    log_weights: Float64[np.ndarray, "vocab"],
) -> tuple[Float64[np.ndarray, "arcs"], Int32[np.ndarray, "arcs"], Int32[np.ndarray, "arcs"]]:
    """Log weight, start and piece of each arc. The arcs of a node are ordered from the longest to the shortest."""
    start, piece = np.empty(first_arc[-1], np.int32), np.empty(first_arc[-1], np.int32)
    next_arc = first_arc[:-1].copy()
    for length in range(len(matches), 0, -1):
        starts, ids = matches[length - 1]
        nodes = node[starts + length]
        arcs = next_arc[nodes]
        next_arc[nodes] = arcs + 1
        start[arcs], piece[arcs] = starts, ids
    return log_weights[piece], start, piece


def _forward_step(
    nodes: slice,
    order: Int64[np.ndarray, "nodes"],
    first_arc: Int64[np.ndarray, "nodes_plus_1"],
    start: Int32[np.ndarray, "arcs"],
    prob: Float64[np.ndarray, "arcs"],
    log_z: Float64[np.ndarray, "symbols"],
    is_cut: Bool[np.ndarray, "symbols"],
) -> None:
    """Set log Z of some nodes, and turn the log weights of their arcs into probabilities, in place."""
    bounds = first_arc[nodes.start : nodes.stop + 1]
    if len(bounds) < 2:
        return
    heads, counts = bounds[:-1] - bounds[0], np.diff(bounds)
    arcs = slice(bounds[0], bounds[-1])
    logs = log_z[start[arcs]] + prob[arcs]
    largest = np.maximum.reduceat(logs, heads)
    logs -= np.repeat(largest, counts)
    np.exp(logs, out=logs)
    sums = np.add.reduceat(logs, heads)
    prob[arcs] = logs / np.repeat(sums, counts)
    boundaries = order[nodes]
    log_z[boundaries] = np.where(is_cut[boundaries], 0.0, largest + np.log(sums))


def _forward_segment(
    nodes: slice,
    order: Int64[np.ndarray, "nodes"],
    first_arc: Int64[np.ndarray, "nodes_plus_1"],
    start: Int32[np.ndarray, "arcs"],
    prob: Float64[np.ndarray, "arcs"],
    segment_start: int,
) -> None:
    """`_forward_step` for all nodes of one segment. Plain Python is faster here: each node needs those before it."""
    bounds = first_arc[nodes.start : nodes.stop + 1].tolist()
    arcs = slice(bounds[0], bounds[-1])
    starts, log_weights, log_z = start[arcs].tolist(), prob[arcs].tolist(), {segment_start: 0.0}
    probs: list[float] = []
    for boundary, low, high in zip(order[nodes].tolist(), bounds, bounds[1:], strict=False):
        of_node = slice(low - bounds[0], high - bounds[0])
        logs = [log_z[begin] + weight for begin, weight in zip(starts[of_node], log_weights[of_node], strict=True)]
        largest = max(logs)
        weights = [math.exp(log - largest) for log in logs]
        total = math.fsum(weights)
        probs += [weight / total for weight in weights]
        log_z[boundary] = largest + math.log(total)
    prob[arcs] = probs
