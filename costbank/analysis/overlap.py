"""How far two ranked lists agree."""

from collections.abc import Hashable, Sequence

__all__ = ["overlap", "rank_biased_overlap"]

_PERSISTENCE = 0.9


def overlap(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The share of items in both lists, of the longer list; 1 for two empty lists."""
    longest = max(len(first), len(second))
    return len(set(first) & set(second)) / longest if longest else 1.0


def rank_biased_overlap(first: Sequence[Hashable], second: Sequence[Hashable], p: float = _PERSISTENCE) -> float:
    """Rank-biased overlap of two lists without repeated items, extrapolated beyond their ends; 1 for equal lists.

    With A(d) the share of common items among the first d, of two lists of length k:
    RBO = A(k) · pᵏ + (1 − p) · Σ A(d) · p^(d − 1) for d = 1 … k  (Webber, Moffat and Zobel 2010, equation 30).
    Of lists with different lengths, the shorter one ends early: it has no items at the ranks beyond.

    Args:
        first, second: items in the order of their ranks.
        p: how much the next rank counts relative to the one before.
    """
    depth = max(len(first), len(second))
    if not depth:
        return 1.0
    seen: tuple[set[Hashable], set[Hashable]] = (set(), set())
    common, total, agreement = 0, 0.0, 0.0
    for rank in range(1, depth + 1):
        for items, own, other in ((first, *seen), (second, *reversed(seen))):
            for item in items[rank - 1 : rank]:
                own.add(item)
                common += item in other
        agreement = common / rank
        total += agreement * p ** (rank - 1)
    return agreement * p**depth + (1 - p) * total
