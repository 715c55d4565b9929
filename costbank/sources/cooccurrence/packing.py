"""Pairs of token ids with weights, 64 bits each: the smaller id, the larger id, the weight.

Sorted as plain integers they are sorted by pair, and NumPy sorts 64-bit integers by vector instructions. Entries of
one pair add up; a sum that has no room in the bits of a weight goes into several entries.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from costbank.errors import CorpusError

__all__ = ["PairPacking", "fold_pairs"]

_FOLD_BLOCK = 1 << 18
_LEAST_WEIGHT_BITS = 16


@dataclass(frozen=True)
class PairPacking:
    """Where the parts of an entry lie, by the size of the vocabulary.

    Raises:
        CorpusError: ids of so large a vocabulary leave no room for weights.
    """

    vocab_size: int

    def __post_init__(self) -> None:
        if self.weight_bits < _LEAST_WEIGHT_BITS:
            raise CorpusError(
                f"pairs of {self.vocab_size:,} ids cannot be counted in 64 bits each",
                f"vocabularies may have up to {1 << (64 - _LEAST_WEIGHT_BITS) // 2:,} ids",
            )

    @property
    def id_bits(self) -> int:
        return max(1, (self.vocab_size - 1).bit_length())

    @property
    def weight_bits(self) -> int:
        return 64 - 2 * self.id_bits

    @property
    def most_weight(self) -> int:
        """What one entry holds at most. One less than its bits could hold: all ones is not an entry."""
        return (1 << self.weight_bits) - 2

    def unpack(
        self, packed: UInt64[np.ndarray, "entries"]
    ) -> tuple[Int64[np.ndarray, "entries"], Int64[np.ndarray, "entries"], Int64[np.ndarray, "entries"]]:
        """First ids, second ids, weights."""
        id_mask = np.uint64((1 << self.id_bits) - 1)
        pairs = packed >> np.uint64(self.weight_bits)
        weights = packed & np.uint64((1 << self.weight_bits) - 1)
        return (
            (pairs >> np.uint64(self.id_bits)).view(np.int64),
            (pairs & id_mask).view(np.int64),
            weights.view(np.int64),
        )

    def pack(
        self,
        first: Integer[np.ndarray, "entries"],
        second: Integer[np.ndarray, "entries"],
        weights: Integer[np.ndarray, "entries"],
    ) -> UInt64[np.ndarray, "entries"]:
        """Entries of pairs whose first id is not the larger, with weights of at most `most_weight`."""
        pairs = (first.astype(np.uint64) << np.uint64(self.id_bits)) | second.astype(np.uint64)
        return (pairs << np.uint64(self.weight_bits)) | weights.astype(np.uint64)


def fold_pairs(entries: UInt64[np.ndarray, "entries"], packing: PairPacking) -> UInt64[np.ndarray, "folded"]:
    """Sort entries and add up those of each pair, in place; the view of the front that holds the result."""
    entries.sort()
    bits, most = np.uint64(packing.weight_bits), np.uint64(packing.most_weight)
    mask = np.uint64((1 << packing.weight_bits) - 1)
    start = written = 0
    while start < len(entries):
        stop = min(start + _FOLD_BLOCK, len(entries))
        if stop < len(entries):
            next_pair = ((int(entries[stop - 1]) >> packing.weight_bits) + 1) << packing.weight_bits
            stop += int(np.searchsorted(entries[stop:], np.uint64(min(next_pair, (1 << 64) - 1))))
        block = entries[start:stop]
        pairs = block >> bits
        firsts = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
        sums = np.add.reduceat(block & mask, firsts)
        pairs = pairs[firsts] << bits
        folded = _spread(pairs, sums, most) if (sums > most).any() else pairs | sums
        entries[written : written + len(folded)] = folded
        written += len(folded)
        start = stop
    return entries[:written]


def _spread(
    pairs: UInt64[np.ndarray, "pairs"], sums: UInt64[np.ndarray, "pairs"], most: np.uint64
) -> UInt64[np.ndarray, "entries"]:
    """Entries for sums of which some have no room in one; as many as came at most, so that folding stays in place."""
    full = (sums // most).astype(np.int64)
    rest = sums % most
    entries = np.concatenate([(pairs | rest)[rest > 0], np.repeat(pairs | most, full)])
    entries.sort()
    return entries
