"""Contexts of one side, at one position, or of several tokens, each with an id of its own.

The plain co-occurrence count knows no sides: two tokens near each other form an unordered pair, and each is a context
of the other. The contexts here are ordered: what precedes a token differs from what follows it. A bank of them says
which tokens can stand in the same places, which is what a language model predicts.

The ids of contexts are consecutive, kind after kind: for each kind one id per token of the vocabulary, or one per
bucket into which n-grams are hashed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from costbank.sources.cooccurrence.settings import Side
from costbank.splitmix import splitmix64

__all__ = ["Context", "ContextSet", "context_set"]


@dataclass(frozen=True)
class Context:
    """A kind of context: the `length` tokens whose farthest one is `distance` tokens before or after the counted token.

    Attributes:
        distance: 1 is the next token.
        is_left: whether the context precedes the token.
        length: the number of tokens; contexts of more than one token are hashed.
        weight: the weight of one occurrence.
        start: the id of the first context of this kind.
    """

    distance: int
    is_left: bool
    length: int
    weight: int
    start: int

    @property
    def first(self) -> int:
        """The position of the context's first token, from the first of the context and the counted token."""
        return 0 if self.is_left else self.distance - self.length + 1

    @property
    def counted(self) -> int:
        """The position of the counted token, from the first of the context and the counted token."""
        return self.distance if self.is_left else 0


@dataclass(frozen=True)
class ContextSet:
    """All kinds of contexts of a count.

    Attributes:
        kinds: the kinds.
        size: the number of context ids.
        buckets: the number of ids of a kind of hashed contexts, a power of two.
    """

    kinds: tuple[Context, ...]
    size: int
    buckets: int

    @property
    def span(self) -> int:
        """The largest distance."""
        return max(kind.distance for kind in self.kinds)

    def buckets_of(
        self, kind: Context, tokens: UInt64[np.ndarray, "tokens"], count: int
    ) -> UInt64[np.ndarray, "count"]:
        """The buckets of the n-grams of `count` counted tokens.

        Args:
            kind: a kind of more than one token.
            tokens: token ids; the span of a counted token and its context begins at each of the first `count`.
            count: the number of spans.
        """
        hashed = np.zeros(count, np.uint64)
        for offset in range(kind.first, kind.first + kind.length):
            hashed = splitmix64(hashed, tokens[offset : offset + count] + np.uint64(1))
        return hashed & np.uint64(self.buckets - 1)


def context_set(
    weights: Sequence[int], side: Side, positions: bool, ngram: int, buckets: int, vocab_size: int
) -> ContextSet | None:
    """The contexts of a window; None if unordered pairs have the same information.

    Args:
        weights: the weight of a token at distance 1, 2, …; their number is the window.
        side: the sides of a token that are its context.
        positions: whether contexts at different offsets differ. Otherwise the two sides differ only if one is left out.
        ngram: the longest n-gram. Those of 2 tokens and more are contexts of the weight of distance 1, on each side.
        buckets: the number of contexts into which the n-grams of one length and side are hashed.
        vocab_size: the number of token ids.
    """
    if side == "both" and not positions and ngram == 1:
        return None
    sides = {"both": (True, False), "left": (True,), "right": (False,)}[side]
    kinds: list[Context] = []
    start = 0
    for is_left in sides:
        for distance, weight in enumerate(weights, 1):
            kinds.append(Context(distance, is_left, 1, weight, start))
            start += vocab_size if positions else 0
    start += 0 if positions else vocab_size
    for is_left in sides:
        for length in range(2, ngram + 1):
            kinds.append(Context(length, is_left, length, weights[0], start))
            start += buckets
    return ContextSet(tuple(kinds), start, buckets)
