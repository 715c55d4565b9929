"""The agreement of neighbors between several banks, against definitions over whole matrices."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.comparison import compare_banks
from costbank.analysis.counts import bands_by_count
from costbank.analysis.stability import neighbor_stability
from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank

COUNT, DIM, K = 120, 6, 5


@pytest.fixture
def rows(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal((COUNT, DIM))


def _bank(place: Path, rows: np.ndarray, unseen: tuple[str, ...] = ()) -> Bank:
    return small_bank(place, {f" t{i}": row for i, row in enumerate(rows)}, unseen=unseen)


def _nearest(bank: Bank, ids: list[int]) -> dict[int, list[int]]:
    rows = bank.vectors().astype(np.float64)
    return {i: sorted((j for j in ids if j != i), key=lambda j: -float(rows[i] @ rows[j]))[:K] for i in ids}


def _rbo(first: list[int], second: list[int], p: float = 0.9) -> float:
    """Webber et al. 2010, equation 30, for two lists of one length."""
    shares = [len({*first[:d]} & {*second[:d]}) / d for d in range(1, K + 1)]
    return shares[-1] * p**K + (1 - p) / p * sum(share * p**d for d, share in enumerate(shares, 1))


def test_the_mean_and_the_range_are_those_of_all_pairs(tmp_path: Path, rows: np.ndarray, random: np.random.Generator):
    noisy = [rows + scale * random.standard_normal(rows.shape) for scale in (0.2, 0.5, 2.0)]
    banks = [_bank(tmp_path / str(i), own, unseen=(" t7",) if i == 1 else ()) for i, own in enumerate(noisy)]
    result = neighbor_stability(banks, K, named=COUNT)
    ids = [i for i in range(COUNT) if i != 7]
    nearest = [_nearest(bank, ids) for bank in banks]
    overlaps = {
        i: [len({*a[i]} & {*b[i]}) / K for a, b in combinations(nearest, 2)] for i in ids
    }  # fmt: skip
    ranked = {i: [_rbo(a[i], b[i]) for a, b in combinations(nearest, 2)] for i in ids}
    for spread, of_tokens, name in (
        (result.overlap, overlaps, "overlap"), (result.rank_biased_overlap, ranked, "rank_biased_overlap")
    ):  # fmt: skip
        of_pairs = np.mean(list(of_tokens.values()), axis=0)
        assert (spread.mean, spread.least, spread.most) == pytest.approx(
            (of_pairs.mean(), of_pairs.min(), of_pairs.max())
        )
        assert [getattr(pair, name) for pair in result.pairs] == pytest.approx(of_pairs)
        assert spread.least < spread.mean < spread.most
    assert (result.common, result.sampled, len(result.pairs)) == (COUNT - 1, COUNT - 1, 3)
    assert result.banks == tuple(f"bank@{bank.id}" for bank in banks)
    assert {(pair.first, pair.second) for pair in result.pairs} == set(combinations(result.banks, 2))
    assert [token.id for token in result.least_stable] == sorted(
        ids, key=lambda i: (round(np.mean(overlaps[i]), 9), round(np.mean(ranked[i]), 9), i)
    )
    for token in result.least_stable:
        assert token.neighbors == tuple(tuple(f"▁t{j}" for j in near[token.id]) for near in nearest)
        assert (token.text, token.count) == (f"▁t{token.id}", None)
    assert result.by_count == ()


def test_two_banks_agree_as_in_their_comparison(news_bank: Bank, tmp_path: Path, random: np.random.Generator):
    other = _bank(tmp_path, random.standard_normal((50, 3)))
    same = neighbor_stability([news_bank, news_bank], K)
    assert (same.overlap.mean, same.rank_biased_overlap.least) == pytest.approx((1, 1))
    with pytest.raises(UsageError, match="news and bank have different tokenizers"):
        neighbor_stability([news_bank, news_bank, other])
    noisy = [_bank(tmp_path / name, random.standard_normal((50, 3))) for name in "ab"]
    comparison, stability = compare_banks(*noisy, K, named=3), neighbor_stability(noisy, K, named=3)
    assert (comparison.overlap, comparison.rank_biased_overlap) == pytest.approx(
        (stability.overlap.mean, stability.rank_biased_overlap.mean)
    )
    assert [t.text for t in comparison.most_different] == [t.text for t in stability.least_stable]


def test_agreement_is_averaged_in_bands_of_counts(news_bank: Bank):
    counts = np.array([0, -1, 1, 9, 10, 2_000])
    overlaps, ranked = np.array([9, 9, 0.2, 0.4, 0.5, 1]), np.array([9, 9, 0.1, 0.2, 0.3, 0.4])
    bands = bands_by_count(counts, overlaps, ranked)
    assert [(b.least, b.most, b.tokens) for b in bands] == [(1, 9, 2), (10, 99, 1), (1_000, 9_999, 1)]
    assert [b.overlap for b in bands] == pytest.approx([0.3, 0.5, 1])
    assert [b.rank_biased_overlap for b in bands] == pytest.approx([0.15, 0.3, 0.4])
    in_bank = neighbor_stability([news_bank, news_bank, news_bank]).by_count
    used = news_bank.vocab.counts[news_bank.usable]
    expected = [int(((used >= 10**e) & (used < 10 ** (e + 1))).sum()) for e in range(6)]
    assert [b.tokens for b in in_bank] == [tokens for tokens in expected if tokens]
    assert [b.overlap for b in in_bank] == [1.0] * len(in_bank)
    assert compare_banks(news_bank, news_bank).by_count == in_bank


def test_large_banks_are_sampled_with_a_fixed_seed(tmp_path: Path, rows: np.ndarray, random: np.random.Generator):
    banks = [_bank(tmp_path / n, rows + random.standard_normal(rows.shape)) for n in "abc"]
    progress = RecordedProgress()
    sampled = neighbor_stability(banks, K, COUNT, progress, most_tokens=40)
    assert (sampled.sampled, sampled.common) == (40, COUNT)
    assert sampled == neighbor_stability(banks, K, COUNT, most_tokens=40)
    assert {*sampled.least_stable} < {*neighbor_stability(banks, K, COUNT).least_stable}
    assert [title.split("@")[0] for title in progress.steps] == ["nearest tokens in bank"] * 3 + ["compare neighbors"]


def test_banks_without_common_tokens_are_refused_before_any_work(tmp_path: Path, rows: np.ndarray):
    progress = RecordedProgress()
    halves = [tuple(f" t{i}" for i in range(COUNT) if i % 2 == half) for half in (0, 1)]
    banks = [_bank(tmp_path / str(i), rows, unseen) for i, unseen in enumerate(halves)]
    with pytest.raises(InputError, match="0 tokens of these banks have a vector in all of them"):
        neighbor_stability(banks, K, progress=progress)
    for k in (0, COUNT):
        with pytest.raises(UsageError, match="has 119 other tokens"):
            neighbor_stability([_bank(tmp_path / "c", rows)] * 2, k, progress=progress)
    with pytest.raises(UsageError, match="1 bank to compare"):
        neighbor_stability(banks[:1])
    assert progress.steps == []
