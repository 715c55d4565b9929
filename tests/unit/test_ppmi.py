"""Positive pointwise mutual information from counts of pairs, compared with the formula."""

from itertools import pairwise
from math import log

import numpy as np
import pytest

from costbank.sources.cooccurrence.ppmi import PpmiOptions, most_frequent, pair_marginals, plan_ppmi

VOCAB = 23
Blocks = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _blocks(cuts: tuple[int, ...] = (), vocab: int = VOCAB, ids: type = np.int32, seed: int = 0) -> Blocks:
    """Sorted pairs with random counts, cut into blocks; the last id and id 5 are in no pair."""
    random = np.random.default_rng(seed)
    first, second = np.triu_indices(vocab)
    kept = (random.random(len(first)) < 0.6) & ~np.isin(first, (5, vocab - 1)) & ~np.isin(second, (5, vocab - 1))
    first, second = first[kept].astype(ids), second[kept].astype(ids)
    count = random.integers(1, 40, len(first)) * random.integers(1, 12, len(first))
    edges = [0, *cuts, len(first)]
    return [(first[a:b], second[a:b], count[a:b]) for a, b in pairwise(edges)]


def _expected(blocks: Blocks, rows: np.ndarray, columns: np.ndarray, options: PpmiOptions) -> np.ndarray:
    vocab = len(rows)
    counts = [[0] * vocab for _ in range(vocab)]
    for first, second, count in blocks:
        for a, b, n in zip(first.tolist(), second.tolist(), count.tolist(), strict=True):
            counts[a][b] += n
            counts[b][a] += n  # so a pair of one id counts twice
    marginal = [sum(row) for row in counts]
    alpha = options.context_smoothing
    total = sum(n**alpha for n in marginal if n)
    dense = np.zeros((vocab, vocab))
    for w in range(vocab):
        for c in range(vocab):
            pair = counts[w][c] // 2 if w == c else counts[w][c]
            if pair and pair >= options.min_weight:
                value = log(counts[w][c] * total / (marginal[w] * marginal[c] ** alpha)) - log(options.shift)
                dense[w, c] = max(0.0, value if options.cap is None else min(value, options.cap))
    return dense[rows][:, columns]


OPTIONS = [
    PpmiOptions(),
    PpmiOptions(context_smoothing=1.0),
    PpmiOptions(context_smoothing=0.0),
    PpmiOptions(shift=2.0),
    PpmiOptions(shift=0.5, cap=0.8),
    PpmiOptions(cap=0.3),
    PpmiOptions(min_weight=30),
    PpmiOptions(context_smoothing=0.5, shift=1.5, cap=1.0, min_weight=12),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cuts", [(), (1, 2, 50, 50, 90)])
@pytest.mark.parametrize("slice_pairs", [1 << 20, 7])
def test_values_are_those_of_the_formula(options: PpmiOptions, cuts: tuple[int, ...], slice_pairs: int):
    blocks = _blocks(cuts)
    marginals = pair_marginals(blocks, VOCAB, slice_pairs=slice_pairs)
    sums = marginals.rows
    assert marginals.is_symmetric
    for rows, columns in (
        (np.ones(VOCAB, np.bool_), np.ones(VOCAB, np.bool_)),
        (sums > 1500, sums > 0),
        (sums > 0, most_frequent(sums, 9)),
    ):
        plan = plan_ppmi(blocks, marginals, rows, columns, options, slice_pairs=slice_pairs)
        matrix = plan.make()
        expected = _expected(blocks, rows, columns, options)
        assert matrix.shape == plan.shape == expected.shape
        assert matrix.dtype == np.float32
        assert np.allclose(matrix.toarray(), expected, rtol=1e-6, atol=1e-7)
        assert matrix.nnz == plan.stored == np.count_nonzero(expected > 1e-9)


def test_the_matrix_is_sorted_and_as_large_as_planned():
    blocks = _blocks((40, 41), ids=np.uint32)
    everything = np.ones(VOCAB, np.bool_)
    plan = plan_ppmi(blocks, pair_marginals(blocks, VOCAB), everything, everything, PpmiOptions())
    matrix = plan.make()
    assert plan.matrix_bytes == matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    assert matrix.indices.dtype == np.int32
    for start, end in pairwise(matrix.indptr.tolist()):
        assert (np.diff(matrix.indices[start:end]) > 0).all()


def test_marginals_count_a_pair_of_one_id_twice_and_ids_left_out_as_well():
    blocks = [(np.array([0, 0]), np.array([0, 2]), np.array([3, 10])), (np.array([2]), np.array([2]), np.array([1]))]
    assert pair_marginals(blocks, 4).rows.tolist() == [16, 0, 12, 0]
    marginals = pair_marginals(blocks, 4)
    only = np.array([True, False, False, False])
    result = plan_ppmi(blocks, marginals, only, only, PpmiOptions(context_smoothing=0.0)).make()
    assert result.toarray() == pytest.approx(max(0.0, log(6 * 2 / 16)))
    result = plan_ppmi(blocks, marginals, only, ~only, PpmiOptions(context_smoothing=0.0)).make()
    assert result.toarray()[0] == pytest.approx([0, log(10 * 2 / 16), 0])


def test_pairs_that_are_as_frequent_as_by_chance_are_not_stored():
    weights = np.arange(1, 9) ** 2
    first, second = np.triu_indices(8)
    count = weights[first] * weights[second] * np.where(first == second, 1, 2)
    blocks = [(first, second, count)]
    everything = np.ones(8, np.bool_)
    plan = plan_ppmi(blocks, pair_marginals(blocks, 8), everything, everything, PpmiOptions(context_smoothing=1.0))
    assert plan.stored == 0
    assert plan.make().nnz == 0


def test_no_pairs_make_an_empty_matrix():
    everything = np.ones(6, np.bool_)
    plan = plan_ppmi([], pair_marginals([], 6), everything, everything, PpmiOptions())
    assert plan.make().toarray().tolist() == np.zeros((6, 6)).tolist()


def test_equally_frequent_ids_are_sorted_by_id():
    counts = np.array([4, 9, 4, 0, 9, 4])
    assert np.flatnonzero(most_frequent(counts, 3)).tolist() == [0, 1, 4]
    assert np.flatnonzero(most_frequent(counts, 4)).tolist() == [0, 1, 2, 4]
    assert np.flatnonzero(most_frequent(counts, 99)).tolist() == [0, 1, 2, 4, 5]


def test_progress_counts_pairs():
    blocks, advances = _blocks((13,)), []
    pairs = sum(len(first) for first, _, _ in blocks)
    everything = np.ones(VOCAB, np.bool_)
    marginals = pair_marginals(blocks, VOCAB, advance=advances.append)
    plan_ppmi(blocks, marginals, everything, everything, PpmiOptions(), advances.append).make(advances.append)
    assert sum(advances) == 3 * pairs


def test_memory_besides_the_matrix_does_not_grow_with_it():
    import tracemalloc

    vocab = 3000
    first, second = (ids.astype(np.int32) for ids in np.triu_indices(vocab))
    count = np.random.default_rng(0).integers(1, 1000, len(first))
    blocks = [(first, second, count)]
    everything = np.ones(vocab, np.bool_)
    marginals = pair_marginals(blocks, vocab)
    plan = plan_ppmi(blocks, marginals, everything, everything, PpmiOptions(shift=0.001))
    tracemalloc.start()
    matrix = plan.make()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert matrix.nnz > 8_000_000
    assert peak < plan.matrix_bytes + 120_000_000
