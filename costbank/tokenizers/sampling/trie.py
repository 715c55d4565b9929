"""Where pieces begin in bytes, at all positions at once, by a double-array trie (Aoe 1989) in NumPy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt16

from costbank.splitmix import splitmix64

__all__ = ["END", "PieceMatches", "Trie"]

END = 256
"""What stands for the end of a text among its bytes, and is part of no piece."""

_ROOM = 4  # slots for each node, so that few tries find free ones
_FEWEST_SLOTS = 1 << 12
_MOST_TRIES = 200
_CHILDREN = (64, 16, 4, 1)  # nodes of many children are placed first, while all is free


class PieceMatches(NamedTuple):
    """Pieces of one length: where each begins, in ascending order, and which it is."""

    starts: Int32[np.ndarray, "matches"]
    pieces: Int32[np.ndarray, "matches"]


class _Edges(NamedTuple):
    """A trie's edges, ordered by parent. Node 0 is the root."""

    parents: Int64[np.ndarray, "edges"]
    bytes: Int64[np.ndarray, "edges"]
    children: Int64[np.ndarray, "edges"]


@dataclass(frozen=True, eq=False)
class Trie:
    """A node is its slot; its child by a byte is in slot `base` + byte, if the owner of that slot is the node.

    Attributes:
        base: of each slot's node.
        owner: the parent of each slot's node, or −1.
        piece: the piece that ends in each slot's node, or −1.
        root: the root's slot.
    """

    base: Int32[np.ndarray, "slots"]
    owner: Int32[np.ndarray, "slots"]
    piece: Int32[np.ndarray, "slots"]
    root: int

    @classmethod
    def of(cls, pieces: Sequence[bytes], numbers: Sequence[int]) -> "Trie":
        """The trie of pieces, none of them empty or given twice, with the number of each."""
        edges, ends = _edges(pieces)
        nodes = len(edges.parents) + 1
        slots = max(_FEWEST_SLOTS, 1 << (_ROOM * nodes).bit_length())
        while (bases := _placed(edges, nodes, slots)) is None:
            slots *= 2
        root = slots + END
        slot = np.full(nodes, root, np.int64)
        slot[edges.children] = bases[edges.parents] + edges.bytes
        base, owner, piece = (np.full(root + 1, fill, np.int32) for fill in (0, -1, -1))
        base[slot] = bases
        owner[slot[edges.children]] = slot[edges.parents]
        piece[slot[ends]] = numbers
        return cls(base, owner, piece, root)

    def matches(self, symbols: UInt16[np.ndarray, "symbols"]) -> Iterator[PieceMatches]:
        """The pieces of 1, 2, … bytes that begin anywhere in texts, each of which has `END` after it."""
        starts = np.arange(len(symbols), dtype=np.int32)
        slots = self.base[self.root] + symbols.astype(np.int32)
        parents = np.int32(self.root)
        length = 0
        while True:
            hit = np.flatnonzero(self.owner[slots] == parents)
            if not len(hit):
                return
            starts, nodes = starts[hit], slots[hit]
            pieces = self.piece[nodes]
            ends = np.flatnonzero(pieces >= 0)
            yield PieceMatches(starts[ends], pieces[ends])
            length += 1
            parents, slots = nodes, self.base[nodes] + symbols[starts + length]


def _edges(pieces: Sequence[bytes]) -> tuple[_Edges, Int64[np.ndarray, "pieces"]]:
    """A trie's edges, and the node that each piece ends in."""
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    data = np.frombuffer(b"".join(pieces), np.uint8)
    firsts = np.cumsum(lengths) - lengths
    ends = np.zeros(len(pieces), np.int64)
    parts, nodes = [], 1
    longer = np.arange(len(pieces))
    for depth in range(int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > depth]
        keys, which = np.unique(ends[longer] << 8 | data[firsts[longer] + depth], return_inverse=True)
        children = np.arange(nodes, nodes + len(keys))
        parts.append(_Edges(keys >> 8, keys & 0xFF, children))
        ends[longer] = children[which]
        nodes += len(keys)
    if not parts:
        return _Edges(*(np.zeros(0, np.int64) for _ in range(3))), ends
    return _Edges(*map(np.concatenate, zip(*parts, strict=True))), ends


def _placed(edges: _Edges, nodes: int, slots: int) -> Int64[np.ndarray, "nodes"] | None:
    """A base for each node such that no two children share a slot; none where that takes too many tries."""
    bases, taken = np.zeros(nodes, np.int64), np.full(slots + END, -1, np.int64)
    counts = np.bincount(edges.parents, minlength=nodes)
    firsts = np.cumsum(counts) - counts
    fewer = np.inf
    for least in _CHILDREN:
        waiting = np.flatnonzero((counts >= least) & (counts < fewer))
        fewer = least
        for attempt in range(_MOST_TRIES):
            if not len(waiting):
                break
            drawn = splitmix64(np.uint64(0), waiting * _MOST_TRIES + attempt + 1)
            bases[waiting] = (drawn % np.uint64(slots)).astype(np.int64)
            many = counts[waiting]
            heads = np.cumsum(many) - many
            rows = np.arange(many.sum()) + np.repeat(firsts[waiting] - heads, many)
            wanted, parents = bases[edges.parents[rows]] + edges.bytes[rows], edges.parents[rows]
            free = np.repeat(np.logical_and.reduceat(taken[wanted] < 0, heads), many)
            taken[wanted[free]] = parents[free]
            won = np.logical_and.reduceat(free & (taken[wanted] == parents), heads)
            lost = wanted[free & ~np.repeat(won, many)]
            kept = wanted[np.repeat(won, many)]
            taken[lost] = -1
            taken[kept] = parents[np.repeat(won, many)]
            waiting = waiting[~won]
        if len(waiting):
            return None
    return bases
