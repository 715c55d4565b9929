"""BPE-dropout (Provilkov et al. 2020) as SentencePiece does it: each merge, when its turn comes, may be left out.

Merges are done best score first and leftmost first. What a short unit becomes depends only on which of its merges were
left out, so each such case is worked out once; most units of a text are then only looked up.
"""

import re
from collections.abc import Callable, Container, Sequence
from heapq import heappop, heappush
from itertools import chain

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt64

from costbank.errors import UsageError
from costbank.tokenizers.base import without_repeats
from costbank.tokenizers.sampling.random_streams import streams, uniforms
from costbank.tokenizers.sentencepiece_file import PieceKind, SentencePieceFile

__all__ = ["BPEDropout"]

_LONG_CHARACTERS = 32  # units from here on are rarely left out of the same way twice
_MOST_CASES = 1 << 20
_MERGES_A_CHARACTER = 3  # at most: one for the pair with the next character, and two for each merge
_MOST_KEPT = 1 << 32


class BPEDropout:
    """Draws segmentations of normalised texts by a SentencePiece BPE model.

    Args:
        model: its file.
        split: cuts a text into units that no piece reaches beyond.
    """

    def __init__(self, model: SentencePieceFile, split: Callable[[str], list[str]]) -> None:
        usable = (PieceKind.NORMAL, PieceKind.USER, PieceKind.UNUSED)
        self._ids = {piece.text: n for n, piece in enumerate(model.pieces) if piece.kind in usable}
        self._ranks = {piece.text: -piece.score for piece in model.pieces if piece.kind in usable}
        self._unused = frozenset(piece.text for piece in model.pieces if piece.kind == PieceKind.UNUSED)
        user = sorted((piece.text for piece in model.pieces if piece.kind == PieceKind.USER), key=len, reverse=True)
        self._user_pattern = re.compile("|".join(map(re.escape, user))) if user else None
        self._bytes = model.byte_ids
        self._unknown = model.unknown
        self._split = split
        self._cases = _Cases()

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Int32[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """As `SamplingTokenizer.sample`.

        Raises:
            UsageError: alpha is not a probability above 0 and below 1.
        """
        if not 0 < alpha < 1:
            raise UsageError(
                f"alpha is {alpha:g}, and for a BPE model must be between 0 and 1",
                "it is the probability that a merge is left out; a usual value is 0.1",
            )
        if len(self._cases.ids) > _MOST_CASES:
            self._cases = _Cases()
        found = [self._split(text) for text in texts]
        units = list(chain.from_iterable(found))
        counts = np.fromiter(map(len, found), np.int64, len(found))
        bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, units), np.int64, len(units)))])
        unit_ends = np.cumsum(counts)
        starts = bounds[:-1] - np.repeat(bounds[unit_ends - counts], counts)
        drawn = self._drawn(units, streams(np.repeat(seeds, counts), starts), alpha)
        sizes = np.concatenate([[0], np.cumsum(np.fromiter(map(len, drawn), np.int64, len(drawn)))])
        ids, ends = np.fromiter(chain.from_iterable(drawn), np.int32, int(sizes[-1])), sizes[unit_ends]
        return (ids, ends) if self._bytes is not None else without_repeats(ids, ends, self._unknown)

    def _drawn(self, units: list[str], random: UInt64[np.ndarray, "units"], alpha: float) -> list[list[int]]:
        cases = self._cases
        drawn = np.fromiter(map(self._whole, units), np.int64, len(units))
        active, merge, drops = np.flatnonzero(drawn >= 0), np.full(len(units), -1), 0
        while len(active):
            merge[active] += 1 + _kept(random[active], np.full(1, drops), alpha)
            tried = np.fromiter(map(cases.tried.__getitem__, drawn[active].tolist()), np.int64, len(active))
            active, drops = active[merge[active] < tried], drops + 1
            steps = zip(drawn[active].tolist(), merge[active].tolist(), strict=True)
            drawn[active] = np.fromiter((self._without(case, at) for case, at in steps), np.int64, len(active))
        ids = cases.ids
        return [
            ids[case] if case >= 0 else self._alone(units[n], random[n : n + 1], alpha)
            for n, case in enumerate(drawn.tolist())
        ]

    def _whole(self, unit: str) -> int:
        """The case of a unit with all of its merges, or −1 for a long one."""
        if (case := self._cases.whole.get(unit)) is None:
            case = -1 if len(unit) > _LONG_CHARACTERS else self._cases.add(unit, (), *self._merged(unit, ()))
            self._cases.whole[unit] = case
        return case

    def _without(self, case: int, merge: int) -> int:
        """The case with one more merge left out."""
        cases = self._cases
        if (further := cases.further.get((case, merge))) is None:
            unit, left_out = cases.units[case], (*cases.left_out[case], merge)
            further = cases.further[case, merge] = cases.add(unit, left_out, *self._merged(unit, left_out))
        return further

    def _alone(self, unit: str, random: UInt64[np.ndarray, "1"], alpha: float) -> list[int]:
        """What a long unit becomes, for which no cases are kept."""
        left_out, at, drops, most = set[int](), -1, 0, _MERGES_A_CHARACTER * len(unit)
        while at < most:
            found = at + np.cumsum(1 + _kept(random, np.arange(drops, drops + len(unit)), alpha))
            left_out.update(found.tolist())
            at, drops = int(found[-1]), drops + len(unit)
        return self._merged(unit, left_out)[0]

    def _merged(self, unit: str, left_out: Container[int]) -> tuple[list[int], int]:
        """The ids of a unit without the merges of these numbers, and how many merges had their turn."""
        symbols, frozen = self._symbols(unit)
        ranks, unused = self._ranks, self._unused
        parts: dict[str, tuple[str, str]] = {}
        following, preceding = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        agenda: list[tuple[float, int, int, int]] = []

        def consider(left: int, right: int) -> None:
            if left < 0 or right >= len(symbols) or left in frozen or right in frozen:
                return
            piece = symbols[left] + symbols[right]
            if (rank := ranks.get(piece)) is not None:
                heappush(agenda, (rank, left, right, len(piece)))
                if piece in unused:
                    parts[piece] = symbols[left], symbols[right]

        for right in range(1, len(symbols)):
            consider(right - 1, right)
        tried = 0
        while agenda:
            _, left, right, length = heappop(agenda)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue
            tried += 1
            if tried - 1 in left_out:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            following[left] = after = following[right]
            if after < len(symbols):
                preceding[after] = left
            consider(preceding[left], left)
            consider(left, after)
        return [token_id for symbol in symbols if symbol for token_id in self._resolved(symbol, parts)], tried

    def _symbols(self, unit: str) -> tuple[list[str], Container[int]]:
        """Characters and pieces that the model's user defined, and which of them are such: no merge may change them."""
        if self._user_pattern is None:
            return list(unit), ()
        symbols, frozen, end = list[str](), set[int](), 0
        for found in self._user_pattern.finditer(unit):
            symbols += unit[end : found.start()]
            frozen.add(len(symbols))
            symbols.append(found[0])
            end = found.end()
        return symbols + list(unit[end:]), frozen

    def _resolved(self, symbol: str, parts: dict[str, tuple[str, str]]) -> list[int]:
        """The ids of a symbol: its own, those of the two that an unused piece was merged from, or of its bytes."""
        if symbol in parts:
            return [token_id for part in parts[symbol] for token_id in self._resolved(part, parts)]
        if (token_id := self._ids.get(symbol)) is not None:
            return [token_id]
        return [self._unknown] if self._bytes is None else self._bytes[list(symbol.encode())].tolist()


class _Cases:
    """Which merges of which units were left out, and what became of the units."""

    def __init__(self) -> None:
        self.whole: dict[str, int] = {}
        self.further: dict[tuple[int, int], int] = {}
        self.units: list[str] = []
        self.left_out: list[tuple[int, ...]] = []
        self.ids: list[list[int]] = []
        self.tried: list[int] = []

    def add(self, unit: str, left_out: tuple[int, ...], ids: list[int], tried: int) -> int:
        self.units.append(unit)
        self.left_out.append(left_out)
        self.ids.append(ids)
        self.tried.append(tried)
        return len(self.units) - 1


def _kept(
    random: UInt64[np.ndarray, "#draws"], drops: Int64[np.ndarray, "#draws"], alpha: float
) -> Int64[np.ndarray, "draws"]:
    """How many merges are kept until the next is left out: geometric, so that a kept one needs no draw of its own."""
    kept = np.log1p(-uniforms(random, drops)) / np.log1p(-alpha)
    return np.minimum(kept, _MOST_KEPT).astype(np.int64)
