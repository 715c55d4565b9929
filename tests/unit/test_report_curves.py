"""The numbers of a report's charts, against plain computations over whole arrays."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.report import curves
from costbank.bank import Bank
from costbank.progress import QuietProgress
from tests.unit.varied_bank import varied_bank

TOKENS = [b" t%d" % i for i in range(60)]
MISSING = [3, 17, 41]


@pytest.fixture
def counts(random: np.random.Generator) -> list[int]:
    return np.floor(np.exp(random.uniform(0, 9, 60))).astype(int).tolist()


@pytest.fixture
def bank(tmp_path: Path, counts: list[int]) -> Bank:
    return varied_bank(tmp_path, TOKENS, k=7, counts=counts, without_vector=MISSING, mapped=True)


@pytest.fixture
def step():
    with QuietProgress().step("") as silent:
        yield silent


def _all_costs(bank: Bank) -> np.ndarray:
    """Every cost between tokens with a vector in float64, with infinity elsewhere and on the diagonal."""
    rows = bank.vectors().astype(np.float64)
    costs = np.maximum(1 - rows @ rows.T, 0)
    usable = np.setdiff1d(np.arange(60), MISSING)
    masked = np.full((60, 60), np.inf)
    masked[np.ix_(usable, usable)] = costs[np.ix_(usable, usable)]
    np.fill_diagonal(masked, np.inf)
    return masked


def test_costs_of_neighbors_are_the_smallest_of_all_costs(bank: Bank, step):
    result = curves.neighbor_costs(bank, bank.usable, step)
    assert not result.sampled
    np.testing.assert_allclose(result.costs, np.sort(_all_costs(bank), axis=1)[:, :7], atol=1e-6)


def test_a_bank_without_a_table_has_the_costs_of_a_sample(tmp_path: Path, step):
    bare = varied_bank(tmp_path, TOKENS, k=0, without_vector=MISSING)
    result = curves.neighbor_costs(bare, bare.usable, step)
    assert result.sampled
    assert result.costs.shape == (57, 32)
    expected = np.sort(_all_costs(bare), axis=1)[bare.usable, :32]
    np.testing.assert_allclose(result.costs, expected, atol=1e-6)


@pytest.mark.parametrize("k", [0, 3, 7])
def test_nearest_neighbors_are_the_same_from_the_table_and_from_a_search(tmp_path: Path, k: int):
    bank = varied_bank(tmp_path, TOKENS, k=k, without_vector=MISSING)
    costs = _all_costs(bank)
    for token, (ids, near) in zip([0, 59, 3], curves.nearest_neighbors(bank, bank.usable, np.array([0, 59, 3]), 5),
                                  strict=True):  # fmt: skip
        if token == 3 and k >= 5:
            assert len(ids) == 0
        elif token != 3:
            assert ids.tolist() == np.argsort(costs[token])[:5].tolist()
            np.testing.assert_allclose(near, np.sort(costs[token])[:5], atol=1e-6)


def test_costs_of_all_pairs_of_a_small_bank_are_used_and_of_a_large_one_a_sample(bank: Bank, step):
    every = _all_costs(bank)[np.triu_indices(60, 1)]
    every = every[np.isfinite(every)]
    np.testing.assert_allclose(np.sort(curves.random_costs(bank, bank.usable, 10_000, step)), np.sort(every), atol=1e-6)
    some = curves.random_costs(bank, bank.usable, 500, step)
    assert len(some) == 500
    nearest = np.abs(some[:, None] - every[None]).min(axis=1)
    assert nearest.max() < 1e-6
    assert (some == curves.random_costs(bank, bank.usable, 500, step)).all()


def test_a_histogram_has_the_share_of_finite_values_in_each_bin(random: np.random.Generator):
    values = random.uniform(0, 1.7, (40_000, 3)).astype(np.float32)
    values[::3, 2] = np.inf
    finite = values[np.isfinite(values)]
    edges = curves.cost_edges(values, np.array([0.2], np.float32))
    result = curves.histogram(values, edges)
    assert edges[-1] == pytest.approx(1.7)
    assert len(edges) == 61
    assert result.count == len(finite)
    np.testing.assert_allclose(result.shares, np.histogram(finite.astype(np.float64), edges)[0] / len(finite))


def test_edges_include_the_largest_cost_and_are_no_wider_than_needed():
    assert curves.cost_edges(np.array([0.101, np.inf], np.float32))[-1] == pytest.approx(0.15)
    assert curves.cost_edges(np.array([0.1], np.float32))[-1] == pytest.approx(0.1)
    assert curves.cost_edges(np.zeros((0, 4), np.float32))[-1] == pytest.approx(0.05)
    assert curves.cost_edges(np.zeros((2, 0), np.float32), np.zeros(0, np.float32))[-1] == pytest.approx(0.05)


def test_a_rank_curve_has_percentiles_of_each_column_without_padding(random: np.random.Generator):
    costs = np.sort(random.random((500, 6)).astype(np.float32), axis=1)
    costs[:200, 4:] = np.inf
    costs[:, 5] = np.inf
    curve = curves.rank_curve(costs)
    assert curve.ranks.tolist() == [1, 2, 3, 4, 5]
    columns = [costs[:, 0], costs[:, 1], costs[:, 2], costs[:, 3], costs[200:, 4]]
    for name, share in (("percentile_10", 10), ("percentile_25", 25), ("median", 50), ("percentile_75", 75),
                        ("percentile_90", 90)):  # fmt: skip
        expected = [np.percentile(column.astype(np.float64), share) for column in columns]
        np.testing.assert_allclose(getattr(curve, name), expected)


def test_a_wide_table_is_drawn_at_no_more_than_100_ranks(random: np.random.Generator):
    curve = curves.rank_curve(np.sort(random.random((4, 700)).astype(np.float32), axis=1))
    assert len(curve.ranks) <= 100
    assert (curve.ranks[0], curve.ranks[-1]) == (1, 700)
    assert (np.diff(curve.ranks) > 0).all()


def test_centrality_is_the_cosine_to_the_mean_row(bank: Bank, step):
    rows = bank.vectors().astype(np.float64)
    mean = rows[bank.usable].mean(axis=0)
    result = curves.centrality(bank, bank.usable, step)
    assert np.isnan(result[MISSING]).all()
    np.testing.assert_allclose(result[bank.usable], rows[bank.usable] @ mean / np.linalg.norm(mean), atol=1e-6)


def test_a_frequency_curve_has_percentiles_for_each_power_of_two(random: np.random.Generator):
    counts = np.floor(np.exp(random.uniform(-1, 12, 3_000))).astype(np.int64)
    counts[:7] = [0, 1, 2, 3, 4, 2**40 - 1, 2**40]
    values = random.standard_normal(3_000).astype(np.float32)
    values[10:30] = np.nan
    curve = curves.frequency_curve(counts, values)
    bands: dict[int, list[float]] = {}
    for count, value in zip(counts.tolist(), values.tolist(), strict=True):
        if count and value == value:
            bands.setdefault(count.bit_length() - 1, []).append(value)
    assert curve.tokens.tolist() == [len(bands[band]) for band in sorted(bands)]
    np.testing.assert_allclose(curve.median, [np.median(bands[band]) for band in sorted(bands)])
    np.testing.assert_allclose(curve.percentile_25, [np.percentile(bands[band], 25) for band in sorted(bands)])
    np.testing.assert_allclose(curve.percentile_75, [np.percentile(bands[band], 75) for band in sorted(bands)])
    for low, high, middle, band in zip(curve.least, curve.largest, curve.middle, sorted(bands), strict=True):
        assert 1 << band <= low <= middle * 1.000001
        assert middle * 0.999999 <= high < 2 << band


def test_occurrences_are_counted_in_bands_of_powers_of_two(random: np.random.Generator):
    occurrences = np.floor(np.exp(random.uniform(-2, 7, 5_000))).astype(np.int64)
    expected = Counter(int(n).bit_length() for n in occurrences)
    bands = curves.occurrence_bands(occurrences)
    assert [total for _, total in bands] == [expected[band] for band in range(max(expected) + 1)]
    assert [name for name, _ in bands][:5] == ["0", "1", "2–3", "4–7", "8–15"]
    assert bands[-1][0] == "512–1,023" or bands[-1][0] == "1,024–2,047"
    assert curves.occurrence_bands(np.zeros(3, np.int64)) == [("0", 3)]


def test_neighborhoods_are_drawn_from_every_band_of_frequency(tmp_path: Path, random: np.random.Generator):
    tokens = [b" t%d" % i for i in range(1_000)]
    counts = random.permutation(np.arange(1, 1_001)).tolist()
    bank = varied_bank(tmp_path, tokens, k=1, counts=counts, without_vector=[7])
    bands = curves.frequency_bands(bank, bank.usable, 5)
    ranks = {i: rank for rank, i in enumerate(sorted(np.flatnonzero(bank.usable).tolist(), key=lambda i: -counts[i]))}
    for band, (first, end) in zip(bands, [(0, 10), (10, 100), (100, 500), (500, 999)], strict=True):
        assert len(set(band.token_ids)) == 5
        assert all(first <= ranks[i] < end for i in band.token_ids), band.name
    assert bands == curves.frequency_bands(bank, bank.usable, 5)


def test_without_counts_neighborhoods_are_drawn_from_every_quarter_of_the_ids(tmp_path: Path):
    bank = varied_bank(tmp_path, TOKENS, k=1, without_vector=MISSING)
    bands = curves.frequency_bands(bank, bank.usable, 4)
    usable = np.flatnonzero(bank.usable).tolist()
    quarters = [usable[:15], usable[15:29], usable[29:43], usable[43:]]
    assert [len(band.token_ids) for band in bands] == [4, 4, 4, 4]
    for band, quarter in zip(bands, quarters, strict=True):
        assert set(band.token_ids) <= set(quarter)


def test_a_map_shows_all_places_or_a_fixed_sample_of_them(bank: Bank):
    xy = bank.map()
    placed = np.setdiff1d(np.arange(60), MISSING)
    assert curves.map_sample(xy, 57).tolist() == placed.tolist()
    some = curves.map_sample(xy, 20)
    assert len(some) == len(set(some.tolist())) == 20
    assert set(some.tolist()) < set(placed.tolist())
    assert (np.diff(some) > 0).all()
    assert (some == curves.map_sample(xy, 20)).all()
