"""Entries of 64 bits for weighted pairs of ids: first id, second id, weight.

The ids are those of two tokens, the smaller one first, or of a token and a context.

Entries sorted as integers are sorted by pair, and NumPy sorts 64-bit integers with vector instructions. The weights of
the entries of one pair are summed; a sum that exceeds the bits of a weight is stored in several entries.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from costbank.errors import CorpusError

__all__ = ["PairPacking", "fold_pairs"]

_FOLD_BLOCK_ENTRIES = 1 << 18
_MIN_WEIGHT_BITS = 16


@dataclass(frozen=True)
class PairPacking:
    """The bit layout of an entry, which depends on the size of the vocabulary and the number of contexts.

    Attributes:
        vocab_size: the number of token ids.
        contexts: the number of context ids; None if the second id is that of a token too.

    Raises:
        CorpusError: there are so many ids that two of them leave too few bits for the weight.
    """

    vocab_size: int
    contexts: int | None = None

    def __post_init__(self) -> None:
        if self.weight_bits < _MIN_WEIGHT_BITS and self.contexts is not None:
            raise CorpusError(
                f"{self.vocab_size:,} token ids and {self.contexts:,} contexts are too many to count pairs in 64-bit "
                "entries",
                "reduce cooccurrence.window or cooccurrence.ngram_buckets, or set cooccurrence.positions=false",
            )
        if self.weight_bits < _MIN_WEIGHT_BITS:
            raise CorpusError(
                f"a vocabulary of {self.vocab_size:,} ids is too large to count pairs of ids in 64-bit entries",
                f"use a tokenizer with at most {1 << (64 - _MIN_WEIGHT_BITS) // 2:,} ids",
            )

    @property
    def id_bits(self) -> int:
        """The bits of a first id."""
        return max(1, (self.vocab_size - 1).bit_length())

    @property
    def second_bits(self) -> int:
        """The bits of a second id."""
        return self.id_bits if self.contexts is None else max(1, (self.contexts - 1).bit_length())

    @property
    def weight_bits(self) -> int:
        return 64 - self.id_bits - self.second_bits

    @property
    def max_weight(self) -> int:
        """The maximum weight of an entry; one less than its bits can hold, because no entry may have all bits set."""
        return (1 << self.weight_bits) - 2

    def unpack(
        self, packed: UInt64[np.ndarray, "entries"]
    ) -> tuple[Int64[np.ndarray, "entries"], Int64[np.ndarray, "entries"], Int64[np.ndarray, "entries"]]:
        """Split entries into first ids, second ids and weights."""
        second_mask = np.uint64((1 << self.second_bits) - 1)
        pairs = packed >> np.uint64(self.weight_bits)
        weights = packed & np.uint64((1 << self.weight_bits) - 1)
        return (
            (pairs >> np.uint64(self.second_bits)).view(np.int64),
            (pairs & second_mask).view(np.int64),
            weights.view(np.int64),
        )

    def pack(
        self,
        first: Integer[np.ndarray, "entries"],
        second: Integer[np.ndarray, "entries"],
        weights: Integer[np.ndarray, "entries"],
    ) -> UInt64[np.ndarray, "entries"]:
        """Make entries; the weights are at most `max_weight`, and of two tokens, the first id ≤ the second."""
        pairs = (first.astype(np.uint64) << np.uint64(self.second_bits)) | second.astype(np.uint64)
        return (pairs << np.uint64(self.weight_bits)) | weights.astype(np.uint64)


def fold_pairs(
    entries: UInt64[np.ndarray, "entries"], packing: PairPacking, block_entries: int = _FOLD_BLOCK_ENTRIES
) -> UInt64[np.ndarray, "folded"]:
    """Sort entries and sum the weights of each pair, in place.

    Args:
        entries: any entries; overwritten.
        packing: their layout.
        block_entries: the number of entries that are summed at a time.

    Returns:
        A view of the start of `entries` that holds the result.
    """
    entries.sort()
    bits, max_weight = np.uint64(packing.weight_bits), np.uint64(packing.max_weight)
    mask = np.uint64((1 << packing.weight_bits) - 1)
    start = written = 0
    while start < len(entries):
        stop = min(start + block_entries, len(entries))
        if stop < len(entries):
            next_pair = ((int(entries[stop - 1]) >> packing.weight_bits) + 1) << packing.weight_bits
            stop += int(np.searchsorted(entries[stop:], np.uint64(min(next_pair, (1 << 64) - 1))))
        block = entries[start:stop]
        pairs = block >> bits
        firsts = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
        sums = np.add.reduceat(block & mask, firsts)
        pairs = pairs[firsts] << bits
        folded = _split(pairs, sums, max_weight) if (sums > max_weight).any() else pairs | sums
        entries[written : written + len(folded)] = folded
        written += len(folded)
        start = stop
    return entries[:written]


def _split(
    pairs: UInt64[np.ndarray, "pairs"], sums: UInt64[np.ndarray, "pairs"], max_weight: np.uint64
) -> UInt64[np.ndarray, "entries"]:
    """Pack sums into entries, with several entries for a sum that exceeds the maximum weight of one.

    There are never more entries than were summed, so the result fits in their place.
    """
    full = (sums // max_weight).astype(np.int64)
    remainder = sums % max_weight
    entries = np.concatenate([(pairs | remainder)[remainder > 0], np.repeat(pairs | max_weight, full)])
    entries.sort()
    return entries
