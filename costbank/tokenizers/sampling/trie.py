"""A double-array trie (Aoe 1989) in NumPy that finds pieces at all positions of many texts at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt16

from costbank.splitmix import splitmix64

__all__ = ["END", "PieceMatches", "Trie"]

END = 256
"""The symbol after the last byte of a text. No piece contains it."""

_SLOTS_PER_NODE = 4  # with this many free slots, few attempts are needed to place a node's children
_MIN_SLOTS = 1 << 12
_MAX_ATTEMPTS = 200
_MIN_CHILDREN = (64, 16, 4, 1)  # nodes with many children are placed first, while most slots are free


class PieceMatches(NamedTuple):
    """Matches of pieces of one length: where each match begins, in ascending order, and the id of its piece."""

    starts: Int32[np.ndarray, "matches"]
    ids: Int32[np.ndarray, "matches"]


class _Edges(NamedTuple):
    """The edges of a trie, ordered by parent. Node 0 is the root."""

    parents: Int64[np.ndarray, "edges"]
    bytes: Int64[np.ndarray, "edges"]
    children: Int64[np.ndarray, "edges"]


@dataclass(frozen=True, eq=False)
class Trie:
    """The arrays of a double-array trie: the child of slot s by byte b is slot `base[s]` + b, if its `check` is s.

    Attributes:
        base: the offset of each slot's children.
        check: the slot of each slot's parent, or −1.
        piece_id: the id of the piece that ends at each slot, or −1.
        root: the slot of the root.
    """

    base: Int32[np.ndarray, "slots"]
    check: Int32[np.ndarray, "slots"]
    piece_id: Int32[np.ndarray, "slots"]
    root: int

    @classmethod
    def build(cls, pieces: Sequence[bytes], ids: Sequence[int]) -> "Trie":
        """The trie of distinct pieces, none of them empty, and their ids."""
        edges, end_nodes = _build_edges(pieces)
        nodes = len(edges.parents) + 1
        slots = max(_MIN_SLOTS, 1 << (_SLOTS_PER_NODE * nodes).bit_length())
        while (bases := _assign_bases(edges, nodes, slots)) is None:
            slots *= 2
        root = slots + END
        slot_of_node = np.full(nodes, root, np.int64)
        slot_of_node[edges.children] = bases[edges.parents] + edges.bytes
        base, check, piece_id = (np.full(root + 1, fill, np.int32) for fill in (0, -1, -1))
        base[slot_of_node] = bases
        check[slot_of_node[edges.children]] = slot_of_node[edges.parents]
        piece_id[slot_of_node[end_nodes]] = ids
        return cls(base, check, piece_id, root)

    def matches(self, symbols: UInt16[np.ndarray, "symbols"]) -> Iterator[PieceMatches]:
        """The matches of pieces of 1, 2, … bytes anywhere in texts. `END` must follow each text."""
        starts = np.arange(len(symbols), dtype=np.int32)
        slots = self.base[self.root] + symbols.astype(np.int32)
        parents = np.int32(self.root)
        length = 0
        while True:
            has_edge = np.flatnonzero(self.check[slots] == parents)
            if not len(has_edge):
                return
            starts, nodes = starts[has_edge], slots[has_edge]
            ids = self.piece_id[nodes]
            is_piece = np.flatnonzero(ids >= 0)
            yield PieceMatches(starts[is_piece], ids[is_piece])
            length += 1
            parents, slots = nodes, self.base[nodes] + symbols[starts + length]


def _build_edges(pieces: Sequence[bytes]) -> tuple[_Edges, Int64[np.ndarray, "pieces"]]:
    """The edges of a trie, and the node at which each piece ends."""
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    data = np.frombuffer(b"".join(pieces), np.uint8)
    starts = np.cumsum(lengths) - lengths
    end_nodes = np.zeros(len(pieces), np.int64)
    levels, nodes = [], 1
    longer = np.arange(len(pieces))
    for depth in range(int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > depth]
        keys, key_of_piece = np.unique(end_nodes[longer] << 8 | data[starts[longer] + depth], return_inverse=True)
        children = np.arange(nodes, nodes + len(keys))
        levels.append(_Edges(keys >> 8, keys & 0xFF, children))
        end_nodes[longer] = children[key_of_piece]
        nodes += len(keys)
    if not levels:
        return _Edges(*(np.zeros(0, np.int64) for _ in range(3))), end_nodes
    return _Edges(*map(np.concatenate, zip(*levels, strict=True))), end_nodes


def _assign_bases(edges: _Edges, nodes: int, slots: int) -> Int64[np.ndarray, "nodes"] | None:
    """A base for each node such that no two children share a slot; None after too many attempts.

    In each attempt all unplaced nodes draw a base at random. A node whose children all get free slots keeps it.
    """
    bases, taken_by = np.zeros(nodes, np.int64), np.full(slots + END, -1, np.int64)
    children = np.bincount(edges.parents, minlength=nodes)
    first_edges = np.cumsum(children) - children
    upper = np.inf
    for least in _MIN_CHILDREN:
        unplaced = np.flatnonzero((children >= least) & (children < upper))
        upper = least
        for attempt in range(_MAX_ATTEMPTS):
            if not len(unplaced):
                break
            random = splitmix64(np.uint64(0), unplaced * _MAX_ATTEMPTS + attempt + 1)
            bases[unplaced] = (random % np.uint64(slots)).astype(np.int64)
            counts = children[unplaced]
            heads = np.cumsum(counts) - counts
            rows = np.arange(counts.sum()) + np.repeat(first_edges[unplaced] - heads, counts)
            parents = edges.parents[rows]
            wanted = bases[parents] + edges.bytes[rows]
            free = np.repeat(np.logical_and.reduceat(taken_by[wanted] < 0, heads), counts)
            taken_by[wanted[free]] = parents[free]  # where several nodes want a slot, one of them gets it
            placed = np.logical_and.reduceat(free & (taken_by[wanted] == parents), heads)
            edge_is_placed = np.repeat(placed, counts)
            taken_by[wanted[free & ~edge_is_placed]] = -1
            taken_by[wanted[edge_is_placed]] = parents[edge_is_placed]
            unplaced = unplaced[~placed]
        if len(unplaced):
            return None
    return bases
