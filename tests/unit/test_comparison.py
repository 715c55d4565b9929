"""The comparison of two banks, against the same measures computed from whole matrices."""

from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.agreement import random_pairs
from costbank.analysis.comparison import BankComparison, SampleSizes, compare_banks
from costbank.analysis.overlap import rank_biased_overlap
from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank

COUNT, DIM = 300, 8


@pytest.fixture
def rows(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal((COUNT, DIM)) + 0.5


def _bank(place: Path, rows: np.ndarray, unseen: tuple[str, ...] = ()) -> Bank:
    return small_bank(place, {f" t{i}": row for i, row in enumerate(rows)}, unseen=unseen)


def _measures(comparison: BankComparison) -> tuple[float | None, ...]:
    c = comparison
    return c.overlap, c.rank_biased_overlap, c.pearson, c.spearman, c.linear_cka


def _oracle(first: np.ndarray, second: np.ndarray, k: int) -> tuple[float, ...]:
    """The measures from all costs, with CKA from centered Gram matrices."""
    grams = [rows.astype(np.float64) @ rows.astype(np.float64).T for rows in (first, second)]
    nearest = [
        [[j for j in np.argsort(-row, kind="stable") if j != i][:k] for i, row in enumerate(gram)] for gram in grams
    ]
    overlaps = [len({*a} & {*b}) / k for a, b in zip(*nearest, strict=True)]
    ranked = [rank_biased_overlap(a, b) for a, b in zip(*nearest, strict=True)]
    upper = np.triu_indices(len(first), 1)
    costs = [1 - gram[upper] for gram in grams]
    ranks = [np.argsort(np.argsort(own)) for own in costs]
    center = np.eye(len(first)) - 1 / len(first)
    gram_a, gram_b = (center @ gram @ center for gram in grams)
    cka = np.sum(gram_a * gram_b) / np.sqrt(np.sum(gram_a**2) * np.sum(gram_b**2))
    return (float(np.mean(overlaps)), float(np.mean(ranked)), float(np.corrcoef(*costs)[0, 1]),
            float(np.corrcoef(*ranks)[0, 1]), float(cka))  # fmt: skip


def test_a_bank_agrees_fully_with_itself_and_with_a_rotated_copy(tmp_path: Path, rows: np.ndarray, random):
    bank = _bank(tmp_path / "a", rows)
    rotation, _ = np.linalg.qr(random.standard_normal((DIM, DIM)))
    for other in (bank, _bank(tmp_path / "b", rows @ rotation)):
        comparison = compare_banks(bank, other)
        assert _measures(comparison) == pytest.approx((1.0,) * 5, abs=2e-6)
        assert (comparison.matched, comparison.common, comparison.sampled) == (COUNT,) * 3
        assert comparison.same_tokenizer
        assert comparison.most_different == ()


def test_a_shuffled_copy_agrees_by_chance_only(tmp_path: Path, rows: np.ndarray, random):
    comparison = compare_banks(_bank(tmp_path / "a", rows), _bank(tmp_path / "b", random.permutation(rows)))
    assert comparison.overlap == pytest.approx(10 / (COUNT - 1), abs=0.02)
    assert np.abs([comparison.pearson, comparison.spearman]).max() < 0.1
    assert comparison.linear_cka is not None
    assert comparison.linear_cka < 0.1


@pytest.mark.parametrize("k", [1, 7])
def test_the_measures_are_those_of_whole_matrices(tmp_path: Path, rows: np.ndarray, random, k: int):
    first = _bank(tmp_path / "a", rows)
    second = _bank(tmp_path / "b", np.hstack([rows + random.standard_normal(rows.shape), rows[:, :3]]))
    comparison = compare_banks(first, second, k)
    expected = _oracle(first.vectors(), second.vectors(), k)
    assert _measures(comparison) == pytest.approx(expected, abs=1e-6)
    assert 0.05 < comparison.overlap < 0.95
    assert _measures(compare_banks(second, first, k)) == pytest.approx(expected, abs=1e-6)


def test_tokens_of_different_tokenizers_are_matched_by_their_bytes(tmp_path: Path, rows: np.ndarray, random):
    tokens = [f" t{i}" for i in range(COUNT - 2)] + [" 日本", "\x1b[2J"]
    order = random.permutation(COUNT)[:120]
    changed = rows + random.standard_normal(rows.shape)
    first = small_bank(tmp_path / "a", dict(zip(tokens, rows, strict=True)), unseen=(" t5",))
    others = {f"x{i}": random.standard_normal(DIM) for i in range(20)}
    second = small_bank(tmp_path / "b", others | {tokens[i]: changed[i] for i in order})
    comparison = compare_banks(first, second, 5, named=200)
    common = sorted({*order.tolist()} - {5})
    assert not comparison.same_tokenizer
    assert (comparison.matched, comparison.common) == (120, len(common))
    places = [20 + order.tolist().index(i) for i in common]
    expected = _oracle(first.vectors(np.array(common)), second.vectors(np.array(places)), 5)
    assert _measures(comparison) == pytest.approx(expected, abs=1e-6)
    for token in comparison.most_different:
        assert token.text == first.vocab.display(token.first_id) == second.vocab.display(token.second_id)
        assert token.text.isprintable()
        texts = [[n.text for n in near] for near in (token.first_neighbors, token.second_neighbors)]
        assert token.overlap == len({*texts[0]} & {*texts[1]}) / 5
        assert token.second_neighbors[0].cost == second.cost(token.second_neighbors[0].id, token.second_id)
    overlaps = [token.overlap for token in comparison.most_different]
    assert overlaps == sorted(overlaps)


def test_tokens_without_a_vector_in_one_bank_do_not_count(tmp_path: Path, rows: np.ndarray):
    rows = rows[:20]
    first, second = _bank(tmp_path / "a", rows), _bank(tmp_path / "b", rows, unseen=(" t3", " t9"))
    comparison = compare_banks(first, second, 5)
    assert (comparison.matched, comparison.common, comparison.pairs) == (20, 18, 18 * 17 // 2)
    assert _measures(comparison) == pytest.approx((1.0,) * 5, abs=2e-6)


def test_large_banks_are_sampled_with_a_fixed_seed(tmp_path: Path, rows: np.ndarray, random):
    first = _bank(tmp_path / "a", rows)
    second = _bank(tmp_path / "b", rows + random.standard_normal(rows.shape))
    progress = RecordedProgress()
    sampled = compare_banks(first, second, named=1000, progress=progress, sizes=SampleSizes(100, 20_000, 200))
    assert (sampled.sampled, sampled.pairs, sampled.cka_tokens, sampled.common) == (100, 20_000, 200, COUNT)
    assert sampled == compare_banks(first, second, named=1000, sizes=SampleSizes(100, 20_000, 200))
    whole = compare_banks(first, second, named=1000)
    assert _measures(sampled) == pytest.approx(_measures(whole), abs=0.08)
    assert _measures(sampled) != _measures(whole)
    assert {token.text: token for token in whole.most_different}.items() >= {
        token.text: token for token in sampled.most_different
    }.items(), "the neighbors of a sampled token are among all tokens"
    assert progress.steps[2:] == ["compare costs", "linear CKA"]


def test_random_pairs_are_of_different_tokens(random):
    first, second = random_pairs(50, 1_000, random)
    assert len(first) == 1_000
    assert (first != second).all()
    assert {*first.tolist()} == {*second.tolist()} == set(range(50))
    assert random_pairs(4, 6, random).T.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_equal_costs_have_no_correlation_and_equal_rows_no_cka(tmp_path: Path):
    first, second = _bank(tmp_path / "a", np.eye(5)), _bank(tmp_path / "b", np.ones((5, 3)))
    comparison = compare_banks(first, second, 2)
    assert (comparison.pearson, comparison.spearman, comparison.linear_cka) == (None, None, None)
    assert comparison.overlap > 0


def test_banks_that_cannot_be_compared_are_refused(tmp_path: Path, rows: np.ndarray):
    bank = _bank(tmp_path / "a", rows[:20])
    other = small_bank(tmp_path / "b", {"x": (1, 0), "y": (0, 1), "z": (1, 1)})
    with pytest.raises(InputError, match="have 0 tokens with a vector in common"):
        compare_banks(bank, other)
    for k in (0, 20):
        with pytest.raises(UsageError, match="has 19 other tokens"):
            compare_banks(bank, bank, k)
