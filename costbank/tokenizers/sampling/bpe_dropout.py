"""BPE-dropout (Provilkov et al. 2020) as in SentencePiece: each merge is skipped with the probability alpha.

Merges are applied by best score, then from left to right. The segmentation of a unit depends only on which of its
merges were dropped, so the segmentations of short units are cached by their dropped merges. Most units of a text then
need only a look-up.
"""

import re
from collections.abc import Callable, Container, Sequence
from heapq import heappop, heappush
from itertools import chain

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from costbank.errors import UsageError
from costbank.tokenizers.base import flatten_parts, merge_repeated_unknown
from costbank.tokenizers.sampling.random_streams import streams, uniforms
from costbank.tokenizers.sentencepiece_file import PieceKind, SentencePieceFile

__all__ = ["BPEDropout"]

_LONG_CHARACTERS = 32  # longer units rarely have the same dropped merges twice
_MAX_CACHED = 1 << 20
_MERGES_PER_CHARACTER = 3  # at most: one for the pair with the next character, and two for each merge
_MAX_KEPT = 1 << 32


class BPEDropout:
    """Samples segmentations of normalized texts by a SentencePiece BPE model.

    Args:
        model: the content of the model's file.
        split: splits a text into units that no piece crosses.
    """

    def __init__(self, model: SentencePieceFile, split: Callable[[str], list[str]]) -> None:
        usable = (PieceKind.NORMAL, PieceKind.USER, PieceKind.UNUSED)
        self._ids = {piece.text: n for n, piece in enumerate(model.pieces) if piece.kind in usable}
        self._ranks = {piece.text: -piece.score for piece in model.pieces if piece.kind in usable}
        self._unused = frozenset(piece.text for piece in model.pieces if piece.kind == PieceKind.UNUSED)
        user = sorted((piece.text for piece in model.pieces if piece.kind == PieceKind.USER), key=len, reverse=True)
        self._user_pattern = re.compile("|".join(map(re.escape, user))) if user else None
        self._byte_ids = model.byte_ids
        self._unknown = model.unknown
        self._split = split
        self._cache = _SegmentationCache()

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """See `SamplingTokenizer.sample`.

        Raises:
            UsageError: alpha is not above 0 and below 1.
        """
        if not 0 < alpha < 1:
            raise UsageError(
                f"alpha is {alpha:g}, but must be between 0 and 1 for a BPE model",
                "alpha is the probability that a merge is skipped; a usual value is 0.1",
            )
        if len(self._cache.ids) > _MAX_CACHED:
            self._cache = _SegmentationCache()
        split = [self._split(text) for text in texts]
        units = list(chain.from_iterable(split))
        units_of_text = np.fromiter(map(len, split), np.int64, len(split))
        bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, units), np.int64, len(units)))])
        text_starts = bounds[np.cumsum(units_of_text) - units_of_text]
        random = streams(np.repeat(seeds, units_of_text), bounds[:-1] - np.repeat(text_starts, units_of_text))
        ids, ends = flatten_parts(self._sample_units(units, random, alpha), units_of_text)
        return (ids, ends) if self._byte_ids is not None else merge_repeated_unknown(ids, ends, self._unknown)

    def _sample_units(self, units: list[str], random: UInt64[np.ndarray, "units"], alpha: float) -> list[list[int]]:
        """The ids of each unit. In each round, every unit that still has merges to try drops one more of them."""
        cache = self._cache
        entries = np.fromiter(map(self._without_drops, units), np.int64, len(units))
        active, merge, drops = np.flatnonzero(entries >= 0), np.full(len(units), -1), 0
        while len(active):
            merge[active] += 1 + _merges_kept(random[active], np.full(1, drops), alpha)
            tried = np.fromiter(map(cache.tried.__getitem__, entries[active].tolist()), np.int64, len(active))
            active, drops = active[merge[active] < tried], drops + 1
            dropped = zip(entries[active].tolist(), merge[active].tolist(), strict=True)
            entries[active] = np.fromiter((self._with_drop(entry, at) for entry, at in dropped), np.int64, len(active))
        return [
            cache.ids[entry] if entry >= 0 else self._sample_long(units[n], random[n : n + 1], alpha)
            for n, entry in enumerate(entries.tolist())
        ]

    def _without_drops(self, unit: str) -> int:
        """The cache entry of a unit with all of its merges, or −1 for a long unit, which is not cached."""
        cache = self._cache
        if (entry := cache.without_drops.get(unit)) is None:
            entry = -1 if len(unit) > _LONG_CHARACTERS else cache.add(unit, (), *self._merge(unit, ()))
            cache.without_drops[unit] = entry
        return entry

    def _with_drop(self, entry: int, merge: int) -> int:
        """The cache entry with one more dropped merge."""
        cache = self._cache
        if (successor := cache.with_drop.get((entry, merge))) is None:
            unit, dropped = cache.units[entry], (*cache.dropped[entry], merge)
            successor = cache.with_drop[entry, merge] = cache.add(unit, dropped, *self._merge(unit, dropped))
        return successor

    def _sample_long(self, unit: str, random: UInt64[np.ndarray, "1"], alpha: float) -> list[int]:
        """The ids of a long unit: all of its dropped merges are drawn in advance."""
        dropped, last, drops, most = set[int](), -1, 0, _MERGES_PER_CHARACTER * len(unit)
        while last < most:
            merges = last + np.cumsum(1 + _merges_kept(random, np.arange(drops, drops + len(unit)), alpha))
            dropped.update(merges.tolist())
            last, drops = int(merges[-1]), drops + len(unit)
        return self._merge(unit, dropped)[0]

    def _merge(self, unit: str, dropped: Container[int]) -> tuple[list[int], int]:
        """Apply BPE to a unit without the dropped merges. Merges are numbered in the order in which they are tried.

        Returns:
            The ids, and how many merges were tried.
        """
        symbols, fixed = self._initial_symbols(unit)
        ranks, unused = self._ranks, self._unused
        merged_from: dict[str, tuple[str, str]] = {}
        following, preceding = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        agenda: list[tuple[float, int, int, int]] = []

        def consider(left: int, right: int) -> None:
            if left < 0 or right >= len(symbols) or left in fixed or right in fixed:
                return
            piece = symbols[left] + symbols[right]
            if (rank := ranks.get(piece)) is not None:
                heappush(agenda, (rank, left, right, len(piece)))
                if piece in unused:
                    merged_from[piece] = symbols[left], symbols[right]

        for right in range(1, len(symbols)):
            consider(right - 1, right)
        tried = 0
        while agenda:
            _, left, right, length = heappop(agenda)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue  # one of the two has been merged since
            tried += 1
            if tried - 1 in dropped:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            following[left] = after = following[right]
            if after < len(symbols):
                preceding[after] = left
            consider(preceding[left], left)
            consider(left, after)
        return [token_id for symbol in symbols if symbol for token_id in self._ids_of(symbol, merged_from)], tried

    def _initial_symbols(self, unit: str) -> tuple[list[str], Container[int]]:
        """Characters and user-defined pieces, and the positions of the latter, which no merge may change."""
        if self._user_pattern is None:
            return list(unit), ()
        symbols, fixed, end = list[str](), set[int](), 0
        for match in self._user_pattern.finditer(unit):
            symbols += unit[end : match.start()]
            fixed.add(len(symbols))
            symbols.append(match[0])
            end = match.end()
        return symbols + list(unit[end:]), fixed

    def _ids_of(self, symbol: str, merged_from: dict[str, tuple[str, str]]) -> list[int]:
        """The id of a symbol; for an unused piece, the ids of its two parts; for unknown text, the ids of its bytes."""
        if symbol in merged_from:
            return [token_id for part in merged_from[symbol] for token_id in self._ids_of(part, merged_from)]
        if (token_id := self._ids.get(symbol)) is not None:
            return [token_id]
        return [self._unknown] if self._byte_ids is None else self._byte_ids[list(symbol.encode())].tolist()


class _SegmentationCache:
    """Segmentations of units by their dropped merges. An entry is an index into the lists.

    Attributes:
        without_drops: the entry of each unit with all of its merges.
        with_drop: the entry that follows from another by dropping one more merge.
        units, dropped, ids: of each entry.
        tried: how many merges were tried for each entry, dropped ones included.
    """

    def __init__(self) -> None:
        self.without_drops: dict[str, int] = {}
        self.with_drop: dict[tuple[int, int], int] = {}
        self.units: list[str] = []
        self.dropped: list[tuple[int, ...]] = []
        self.ids: list[list[int]] = []
        self.tried: list[int] = []

    def add(self, unit: str, dropped: tuple[int, ...], ids: list[int], tried: int) -> int:
        self.units.append(unit)
        self.dropped.append(dropped)
        self.ids.append(ids)
        self.tried.append(tried)
        return len(self.units) - 1


def _merges_kept(
    random: UInt64[np.ndarray, "#draws"], drops: Int64[np.ndarray, "#draws"], alpha: float
) -> Int64[np.ndarray, "draws"]:
    """How many merges are kept before the next drop. This is geometric, so only drops need random numbers."""
    kept = np.log1p(-uniforms(random, drops)) / np.log1p(-alpha)
    return np.minimum(kept, _MAX_KEPT).astype(np.int64)
