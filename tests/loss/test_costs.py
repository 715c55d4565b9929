import numpy as np
import pytest
import torch
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError, UsageError
from costbank.loss import DenseCosts, LowRankCosts, NeighborCosts, open_costs
from costbank.vocab import TokenStatus, Vocab


@pytest.fixture
def exact(costs: DenseCosts) -> torch.Tensor:
    """Costs [label, token]."""
    return costs.rows(torch.arange(costs.vocab_size))


def test_a_bank_opens_in_each_form(news_bank: Bank):
    assert isinstance(open_costs(news_bank), DenseCosts)
    assert isinstance(open_costs(news_bank, "low-rank", rank=8), LowRankCosts)
    assert isinstance(open_costs(news_bank, "neighbors", k=5), NeighborCosts)
    for form in ("dense", "low-rank", "neighbors"):
        costs = open_costs(news_bank, form)
        assert costs.vocab_size == news_bank.size
        assert costs.bank == f"{news_bank.name}@{news_bank.id}"
        assert costs.pin.startswith(f"{costs.bank} {form}")
        assert form.split("-")[0] in repr(costs).lower()


def test_pins_tell_forms_apart(news_bank: Bank):
    opened = [("dense", {}), ("low-rank", {"rank": 8}), ("low-rank", {"rank": 9}), ("neighbors", {"k": 5})]
    assert len({open_costs(news_bank, form, **settings).pin for form, settings in opened}) == 4


def test_dense_costs_are_the_banks(news_bank: Bank):
    labels = np.array([3, 300, 1_500])
    expected = news_bank.cost_matrix(labels, np.arange(news_bank.size))
    assert np.allclose(open_costs(news_bank).rows(torch.from_numpy(labels)).numpy(), expected, atol=2e-7)


def test_low_rank_errors_are_within_the_reported_bounds(costs: DenseCosts, exact):
    for rank in range(1, 7):
        low = LowRankCosts.project(costs, rank)
        off = (low.rows(torch.arange(37)) - exact).abs()
        assert off.max() <= low.largest_error + 1e-6
        assert off.sum() / (37 * 36) == pytest.approx(low.mean_error, abs=1e-6)
    assert low.largest_error < 1e-6


def test_low_rank_keeps_what_matters_most(generator):
    """Rows that span three of twenty dimensions lose nothing at rank three."""
    rows = torch.randn(50, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    costs = DenseCosts(functional.normalize(rows, dim=1))
    low = LowRankCosts.project(costs, 3)
    assert low.vectors.shape == (50, 3)
    assert low.largest_error < 1e-6
    assert torch.allclose(low.rows(torch.arange(50)), costs.rows(torch.arange(50)), atol=1e-6)


def _nearest(exact: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    far = exact.clone().fill_diagonal_(torch.inf)
    costs, ids = far.topk(k, largest=False)
    return ids, costs


@pytest.mark.parametrize("k", [1, 5, 36])
def test_far_costs_are_means_and_deviations_are_largest(costs: DenseCosts, exact, k: int):
    ids, near = _nearest(exact, k)
    neighbors = NeighborCosts.from_table(costs, ids, near, measure=True, block_rows=10)
    bounded = NeighborCosts.from_table(costs, ids, near, measure=False)
    for t in range(37):
        others = [i for i in range(37) if i != t and i not in ids[t].tolist()]
        if others:
            assert neighbors.far[t] == pytest.approx(exact[t, others].mean().item(), abs=1e-6)
            assert neighbors.deviation[t] == pytest.approx(
                (exact[t, others] - neighbors.far[t]).abs().max().item(), abs=1e-6
            )
        else:
            assert neighbors.deviation[t] == 0
        assert bounded.deviation[t] >= neighbors.deviation[t] - 1e-6


def test_neighbors_that_narrow_logits_do_not_have_are_left_out(news_bank: Bank):
    costs = open_costs(news_bank, "neighbors", vocab_size=1_000)
    assert costs.ids.shape[0] == 1_000
    assert costs.ids.max() < 1_000
    assert (costs.ids < 0).any()
    assert ((costs.ids[:, :-1] >= 0) | (costs.ids[:, 1:] < 0)).all(), "a neighbor's place is its rank"
    assert (costs.costs[:, :-1] <= costs.costs[:, 1:]).masked_select(costs.ids[:, 1:] >= 0).all()
    assert torch.isfinite(costs.costs).all()


def test_wide_logits_have_padding_that_costs_one(news_bank: Bank):
    wide = open_costs(news_bank, vocab_size=2_048)
    assert (wide.rows(torch.tensor([5]))[0, 2_000:] == 1).all()
    near = open_costs(news_bank, "neighbors", vocab_size=2_048)
    assert near.far[2_000:] == pytest.approx(1.0)


def test_half_precision_vectors_leave_a_label_at_no_cost(costs: DenseCosts):
    half = costs.to(dtype=torch.bfloat16)
    rows = half.rows(torch.arange(37))
    assert (rows.diagonal() == 0).all()
    assert (rows - costs.rows(torch.arange(37))).abs().max() < 8e-3
    for form in (costs, LowRankCosts.project(costs, 3)):
        assert "bfloat16" in form.to(dtype=torch.bfloat16).error
        assert "bfloat16" not in form.error
    assert half.bank == costs.bank


def test_stated_errors_stay_bounds(costs: DenseCosts, neighbors: NeighborCosts):
    assert LowRankCosts.project(costs, costs.vectors.shape[1]).largest_error >= 2**-23
    assert torch.equal(neighbors.to(dtype=torch.bfloat16).deviation, neighbors.deviation)
    assert neighbors.to("meta").deviation.device.type == "meta"


def test_costs_open_in_a_type_a_block_at_a_time(news_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    read_ids, rows = [], Bank.vectors
    monkeypatch.setattr(Bank, "vectors", lambda bank, ids: read_ids.append(ids) or rows(bank, ids))
    for vocab_size in (1_000, 2_000, 2_048):
        half = open_costs(news_bank, dtype=torch.bfloat16, vocab_size=vocab_size, block_rows=300)
        expected = functional.pad(torch.tensor(rows(news_bank)), (0, 0, 0, 48))[:vocab_size]
        assert torch.equal(half.vectors, expected.bfloat16())
    assert max(ids.stop - ids.start for ids in read_ids) == 300
    for form in ("low-rank", "neighbors"):
        opened = open_costs(news_bank, form, dtype=torch.bfloat16)
        assert "rounded to bfloat16" in opened.error
        assert opened.pin == open_costs(news_bank, form).pin


def test_rows_by_hand_have_unit_length_or_none(costs: DenseCosts):
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert DenseCosts(costs.vectors.to(dtype)).vocab_size == costs.to(dtype=dtype).vocab_size == 37
    barely = DenseCosts(1.0098 * functional.normalize(torch.randn(5, 3), dim=1))
    assert barely.to(dtype=torch.bfloat16).vectors.dtype == torch.bfloat16
    for rows, error in ((2 * costs.vectors, "token 0 has length 2"), (costs.vectors / torch.zeros(()), "length inf")):
        with pytest.raises(UsageError, match=error) as caught:
            DenseCosts(rows)
        assert "normalize" in caught.value.hint


@pytest.mark.parametrize("rows", [torch.ones(3), torch.ones(4, 4, 4) / 2, torch.eye(3, dtype=torch.int64)])
def test_rows_by_hand_are_a_matrix(rows: torch.Tensor):
    with pytest.raises(ShapeError, match="vectors are torch"):
        DenseCosts(rows)


def test_costs_are_of_a_floating_point_type(news_bank: Bank, costs: DenseCosts):
    for refused in (lambda: open_costs(news_bank, dtype=torch.int64), lambda: costs.to(dtype=torch.int64)):
        with pytest.raises(UsageError, match=r"costs cannot be torch.int64"):
            refused()


def test_invalid_arguments_of_open_costs_are_refused(news_bank: Bank):
    with pytest.raises(UsageError, match="form is 'exact'"):
        open_costs(news_bank, "exact")
    with pytest.raises(ShapeError, match="rank is 25"):
        open_costs(news_bank, "low-rank", rank=25)
    with pytest.raises(UsageError, match="k is 65"):
        open_costs(news_bank, "neighbors", k=65)
    with pytest.raises(ShapeError, match="vocab_size is 0"):
        open_costs(news_bank, vocab_size=0)


def test_a_bank_of_another_tokenizer_is_refused(news_bank: Bank):
    vocab = news_bank.vocab
    assert open_costs(news_bank, vocab=vocab).vocab_size == 2_000
    assert open_costs(news_bank, vocab=vocab.padded(2_048), vocab_size=2_048).vocab_size == 2_048
    tokens = [vocab.token(i) for i in range(vocab.size)]
    swapped = Vocab.from_tokens([*tokens[:9], tokens[10], tokens[9], *tokens[11:]], [TokenStatus.OK] * vocab.size)
    with pytest.raises(TokenizerError, match=r"2 ids differ, the first: 9 \(") as caught:
        open_costs(news_bank, vocab=swapped)
    assert "transfer" in caught.value.hint
    with pytest.raises(TokenizerError, match="1,999 tokens"):
        open_costs(news_bank, vocab=Vocab.from_tokens(tokens[:-1], [TokenStatus.OK] * 1_999))
