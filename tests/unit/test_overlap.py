"""Overlap of ranked lists, against the definition as a sum over all prefixes."""

import random

import pytest

from costbank.analysis.overlap import overlap, rank_biased_overlap


def _by_definition(first: list[int], second: list[int], p: float) -> float:
    """A sum over many ranks, where the agreement beyond the lists stays as at their end."""
    depth, total = len(first), 0.0
    for rank in range(1, 3_000):
        cut = min(rank, depth)
        total += (1 - p) * p ** (rank - 1) * len(set(first[:cut]) & set(second[:cut])) / cut
    return total


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_rank_biased_overlap_is_its_definition(p: float):
    draw = random.Random(0)
    for size in (1, 2, 7, 20):
        first, second = draw.sample(range(25), size), draw.sample(range(25), size)
        assert rank_biased_overlap(first, second, p) == pytest.approx(_by_definition(first, second, p))


def test_equal_lists_agree_and_disjoint_ones_do_not():
    assert rank_biased_overlap([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    assert rank_biased_overlap([1, 2], [3, 4]) == 0.0
    assert rank_biased_overlap([1, 2, 3], [1, 3, 2]) > rank_biased_overlap([1, 2, 3], [2, 1, 3])
    assert (overlap([1, 2], [2, 1]), overlap([1, 2], [2, 3]), overlap([], []), overlap([1], [])) == (1.0, 0.5, 1.0, 0.0)
    assert (rank_biased_overlap([], []), rank_biased_overlap([1], [])) == (1.0, 0.0)
