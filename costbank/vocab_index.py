"""A vocabulary for processes that look up many tokens: exact lookups and searches that take no pass over all ids."""

from bisect import bisect_left
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from costbank.vocab import Vocab

__all__ = ["IndexedVocab", "Texts"]

_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_MOST_TEXTS = 1 << 16


class IndexedVocab(Vocab):
    """A `Vocab` whose ids are also in the order of a 64-bit hash of their bytes.

    The hash of bytes b is Σ (b[i] + 1) · mⁱ modulo 2⁶⁴. Equal hashes only propose ids; their bytes decide.
    """

    def prepare(self) -> None:
        """Build the index now, so that the first lookup is as fast as the others."""
        _ = self._views, self._words_end_in_space

    @cached_property
    def texts(self) -> "Texts":
        """`display` by id, with the most recently made texts kept in memory."""
        return Texts(self)

    def starting_with(self, start: bytes) -> Int64[np.ndarray, "matches"]:
        """The ids of all tokens that start with these bytes, ascending."""
        ids = np.flatnonzero(self._lengths >= len(start))
        for position, byte in enumerate(start):
            ids = ids[self.data[self.offsets[ids] + position] == byte]
        return ids

    def containing(self, part: bytes) -> Int64[np.ndarray, "matches"]:
        """The ids of all tokens that contain these bytes, ascending.

        The rarest byte proposes positions in the concatenated bytes of all tokens; a match that crosses from one token
        to the next does not count.
        """
        if not part:
            return np.arange(self.size)
        rarest = min(range(len(part)), key=lambda index: self._byte_counts[part[index]])
        starts = np.flatnonzero(self.data == part[rarest]) - rarest
        starts = starts[(starts >= 0) & (starts <= len(self.data) - len(part))]
        for index, byte in enumerate(part):
            if index != rarest:
                starts = starts[self.data[starts + index] == byte]
        tokens = self._token_of_byte[starts]
        tokens = tokens[tokens == self._token_of_byte[starts + (len(part) - 1)]].astype(np.int64)
        return tokens[np.concatenate([np.ones(1, bool), tokens[1:] != tokens[:-1]])] if len(tokens) else tokens

    def ids_of(self, token: bytes) -> list[int]:
        ids = self._equal(token)
        return ids if len(ids) < 2 else super().ids_of(token)

    def _ids_with(self, token: bytes) -> Int64[np.ndarray, "matches"]:
        return np.array(sorted(self._equal(token)), np.int64)

    def _equal(self, token: bytes) -> list[int]:
        """The ids with exactly these bytes; none for no bytes, as in `ids_of`."""
        hashes, order = self._views
        wanted, ids = _hash(token), []
        position = bisect_left(hashes, wanted)
        while token and position < len(hashes) and hashes[position] == wanted:
            if self.token(order[position]) == token:
                ids.append(order[position])
            position += 1
        return ids

    @cached_property
    def _views(self) -> tuple[memoryview, memoryview]:
        """`_by_hash` for code that reads single elements, which is slow in NumPy."""
        hashes, order = self._by_hash
        return hashes.data, order.data

    @cached_property
    def longest(self) -> int:
        """The number of bytes of the longest token."""
        return int(self._lengths.max(initial=0))

    @cached_property
    def _byte_counts(self) -> list[int]:
        return np.bincount(self.data, minlength=256).tolist()

    @cached_property
    def _token_of_byte(self) -> Int32[np.ndarray, "total"]:
        return np.repeat(np.arange(self.size, dtype=np.int32), self._lengths)

    @cached_property
    def _by_hash(self) -> tuple[UInt64[np.ndarray, "vocab"], Int32[np.ndarray, "vocab"]]:
        """The hashes of all ids, ascending, and their ids."""
        powers = np.array(_powers(self.longest), np.uint64)
        position = np.arange(len(self.data)) - np.repeat(self.offsets[:-1], self._lengths)
        sums = np.zeros(len(self.data) + 1, np.uint64)
        np.cumsum((self.data.astype(np.uint64) + np.uint64(1)) * powers[position], out=sums[1:])
        hashes = sums[self.offsets[1:]] - sums[self.offsets[:-1]]
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return hashes[order], order


class Texts(dict[int, str]):
    """The displayed texts of ids, made when they are first used."""

    def __init__(self, vocab: Vocab) -> None:
        super().__init__()
        self._vocab = vocab

    def __missing__(self, token_id: int) -> str:
        if len(self) >= _MOST_TEXTS:
            self.clear()
        text = self[token_id] = self._vocab.display(token_id)
        return text


def _powers(count: int) -> list[int]:
    powers, power = [], 1
    for _ in range(count):
        powers.append(power)
        power = power * _MULTIPLIER & _MASK
    return powers


def _hash(token: bytes) -> int:
    total, power = 0, 1
    for byte in token:
        total += (byte + 1) * power
        power = power * _MULTIPLIER & _MASK
    return total & _MASK
