"""Distributions for `neighbor_smoothing`: their perplexity, what is exempt, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import (
    DenseCosts,
    DenseSmoothing,
    EMOLoss,
    EMOOptions,
    LinearEMOLoss,
    NeighborSmoothing,
    SmoothingOptions,
    emo_loss,
    open_costs,
    open_smoothing,
    smooth_dense,
    smooth_neighbors,
)
from costbank.vocab import TokenStatus


def _rows(vocab: int, dim: int, spread: float, offset: float, seed: int = 0) -> Tensor:
    """Unit rows around clusters, with a common direction of a chosen length."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(vocab // 20, dim, generator=generator)
    rows = centers.repeat_interleave(20, dim=0) + spread * torch.randn(vocab, dim, generator=generator)
    rows[:, 0] += offset * rows.norm(dim=1).mean()
    return functional.normalize(rows, dim=1)


def _shares(smoothing: DenseSmoothing | NeighborSmoothing, label: int) -> Tensor:
    """q of a label over all tokens, as the gradient of the loss shows it."""
    logits = torch.zeros(1, smoothing.vocab_size, dtype=torch.float64, requires_grad=True)
    options = EMOOptions.preset("recommended", weight=1.0, accumulate="float64")
    emo_loss(logits, torch.tensor([label]), smoothing, options).backward()
    assert logits.grad is not None
    return (1 / smoothing.vocab_size - logits.grad[0]).clamp_min(0)


def _perplexity(q: Tensor) -> float:
    return math.exp(float(torch.special.entr(q).sum()))


@pytest.mark.parametrize("offset", [0.0, 2.0], ids=["centered", "with a common direction"])
@pytest.mark.parametrize("dim", [64, 160, 640])
def test_a_perplexity_gives_the_same_strength_with_any_bank(dim: int, offset: float):
    costs = DenseCosts(_rows(1_000, dim, 0.8, offset))
    smoothing = smooth_dense(costs, SmoothingOptions(perplexity=50.0))
    sample = range(0, 1_000, 25)
    mean = math.exp(np.mean([math.log(_perplexity(_shares(smoothing, label))) for label in sample]))
    assert mean == pytest.approx(50.0, rel=0.15)
    near, ids = costs.rows(torch.arange(1_000)).fill_diagonal_(torch.inf).topk(64, largest=False)
    for per, tolerance in (("token", 1e-3), ("bank", 0.1)):
        options = SmoothingOptions(k=64, perplexity=16.0, temperature_per=per)
        table = smooth_neighbors(ids, near, options)
        each = torch.special.entr(table.weights.double()).sum(1).exp()
        if per == "token":
            assert torch.allclose(each, torch.full_like(each, 16.0), rtol=tolerance)
        assert math.exp(float(each.log().mean())) == pytest.approx(16.0, rel=tolerance)


def test_more_perplexity_is_a_higher_temperature():
    costs = DenseCosts(_rows(400, 32, 0.8, 0.0))
    temperatures = [smooth_dense(costs, SmoothingOptions(perplexity=p)).temperature for p in (2.0, 20.0, 200.0)]
    assert temperatures == sorted(temperatures)
    assert smooth_dense(costs, SmoothingOptions(temperature=0.25)).temperature == 0.25


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("k", [None, 64])
def test_the_label_is_in_its_distribution_only_by_request(news_bank: Bank, k: int | None, label: bool):
    smoothing = open_smoothing(
        news_bank, k=min(k, news_bank.neighbors.k) if k else None, perplexity=6.0, label=label, unigram_power=0.0
    )
    token = int(np.flatnonzero(news_bank.vocab.status == TokenStatus.OK)[500])
    q = _shares(smoothing, token)
    assert float(q.sum()) == pytest.approx(1.0, abs=1e-6)
    assert (float(q[token]) > 0.05) == label
    nearest = news_bank.nearest(token, 3)
    others = torch.tensor([neighbor.id for neighbor in nearest])
    assert (q[others].diff() <= 0).all()
    if label:
        assert q[token] > q[others].max()


@pytest.mark.parametrize("k", [None, 8])
def test_exempt_tokens_keep_their_label_and_get_nothing(news_bank: Bank, k: int | None):
    smoothing = open_smoothing(news_bank, k=k, perplexity=6.0, exempt_most_frequent=20)
    frequent = np.argsort(-news_bank.vocab.counts, kind="stable")[:20]
    special = np.flatnonzero(news_bank.vocab.status == TokenStatus.SPECIAL)
    for token in (*frequent[:3].tolist(), *special[:1].tolist()):
        assert _shares(smoothing, token)[token] == pytest.approx(1.0)
    usual = np.flatnonzero(news_bank.vocab.status == TokenStatus.OK)
    softened = [token for token in usual[100:130].tolist() if bool(smoothing.softened[token])]
    assert softened
    for token in softened:
        q = _shares(smoothing, token)
        assert float(q[torch.from_numpy(frequent.copy())].sum()) == pytest.approx(0.0, abs=1e-9)
        assert q[token] < 0.999


def test_digits_are_exempt_by_request(news_bank: Bank):
    digits = [i for i in range(news_bank.size) if news_bank.vocab.token(i).strip().isdigit()]
    assert digits
    assert open_smoothing(news_bank, perplexity=9.0, exempt=("digit",)).softened[digits].any().item() is False


@pytest.mark.parametrize("settings", [{"perplexity": 50.0}, {"k": 8, "perplexity": 4.0}], ids=["all", "neighbors"])
def test_a_unigram_power_multiplies_by_counts(news_bank: Bank, settings: dict):
    token = int(np.flatnonzero(news_bank.vocab.status == TokenStatus.OK)[300])
    counts = torch.tensor(news_bank.vocab.counts).double().clamp_min(0) + 1
    plain, weighted = (
        _shares(open_smoothing(news_bank, unigram_power=power, **settings), token) for power in (0.0, 0.5)
    )
    expected = plain * counts.sqrt()
    assert torch.allclose(weighted, expected / expected.sum(), atol=1e-6)


def test_draws_have_the_shares_of_the_distribution(news_bank: Bank):
    for changes in ({}, {"label": True, "temperature": 0.3}):
        whole = open_smoothing(news_bank, perplexity=50.0, **changes)
        drawn = open_smoothing(news_bank, perplexity=50.0, draws=2_000, **changes)
        assert isinstance(drawn, NeighborSmoothing)
        assert torch.equal(drawn.softened, whole.softened)
        for label in torch.nonzero(whole.softened)[300:800:100, 0].tolist():
            expected, q = _shares(whole, label), _shares(drawn, label)
            # A share s of 2,000 draws has a deviation of √(s (1 − s) / 2000). Of thousands of improbable tokens, some
            # are drawn two or three times.
            assert ((q - expected).abs() <= 5 * (expected * (1 - expected) / 2_000).sqrt() + 1.5e-3).all()
            ids = drawn.ids[label][drawn.ids[label] >= 0]
            assert len(ids.unique()) == len(ids)
            assert label not in ids
    few = [open_smoothing(news_bank, draws=16, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(few[0].ids, few[1].ids)
    assert not torch.equal(few[0].ids, few[2].ids)
    assert few[0].ids.shape == (news_bank.size, 16)
    with pytest.raises(UsageError, match="draws is 8, and k is 8"):
        open_smoothing(news_bank, k=8, draws=8)
    for name, value in (("draws", 64.0), ("draws", True), ("draws", 0), ("seed", 0.5)):
        with pytest.raises(UsageError, match=f"{name} is {value}"):
            open_smoothing(news_bank, **{name: value})


def test_the_recommended_preset_opens_a_banks_distributions(news_bank: Bank):
    logits, labels = torch.randn(2, 5, news_bank.size), torch.randint(300, 1_900, (2, 5))
    loss = EMOLoss(news_bank, preset="recommended")(logits, labels)
    smoothing = open_smoothing(news_bank)
    assert torch.equal(loss, emo_loss(logits, labels, smoothing, EMOOptions.preset("recommended")))
    by_hand = []
    for row, label in zip(logits.flatten(0, 1).double(), labels.flatten().tolist(), strict=True):
        log_probs = torch.log_softmax(row, 0)
        by_hand.append(-0.9 * log_probs[label] - 0.1 * (_shares(smoothing, label) * log_probs).sum())
    assert float(loss) == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-5)


def test_presets_are_options_by_name(costs):
    assert EMOOptions.preset("published") == EMOOptions()
    assert EMOOptions.preset("recommended") == EMOOptions(
        objective="neighbor_smoothing", mixing="interpolate", weight=0.1
    )
    assert EMOOptions.preset("paper") == EMOOptions(objective="emo", mixing="emo1")
    assert EMOLoss(costs, preset="published", shift=True).options == EMOOptions(
        objective="emo", mixing="emo1_clamped", shift=True
    )
    with pytest.raises(UsageError, match="preset is 'best'") as caught:
        EMOOptions.preset("best")  # pyright: ignore[reportArgumentType]
    assert caught.value.hint == "give one of: recommended, paper, published"
    with pytest.raises(UsageError, match="options and preset"):
        EMOLoss(costs, EMOOptions.preset("paper"), preset="paper")


def test_costs_and_smoothing_are_not_mixed_up(costs, smoothing, smoothing_of_all, logits, labels):
    with pytest.raises(UsageError, match="'neighbor_smoothing' does not support dense costs") as caught:
        emo_loss(logits, labels, costs, EMOOptions.preset("recommended"))
    assert "open_smoothing(bank)" in caught.value.hint
    for opened in (smoothing, smoothing_of_all):
        with pytest.raises(UsageError, match="'emo' does not support smoothing costs") as caught:
            emo_loss(logits, labels, opened, EMOOptions.preset("paper"))
        assert "open_costs(bank)" in caught.value.hint
    with pytest.raises(UsageError, match="needs costs") as caught:
        emo_loss(logits, labels, None, EMOOptions.preset("recommended"))
    assert "open_smoothing(bank)" in caught.value.hint
    with pytest.raises(UsageError, match="mixing is 'emo1'"):
        EMOOptions(objective="neighbor_smoothing", mixing="emo1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"perplexity": 1.0}, "perplexity is 1.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature_per": "row"}, "temperature_per is 'row'"),
        ({"temperature_per": "token"}, "over all tokens"),
        ({"exempt": ("digits",)}, "exempt has 'digits'"),
        ({"exempt_most_frequent": -1}, "exempt_most_frequent is -1"),
        ({"unigram_power": -0.5}, "unigram_power is -0.5"),
        ({"k": 8, "perplexity": 9.0}, "needs more than 8 neighbors"),
        ({"perplexity": 5_000.0}, "needs more than"),
        ({"k": 8, "perplexity": 4.0, "rank": 4}, "rank is 4, and k is 8"),
        ({"k": 9_999}, "neighbors per token"),
    ],
)
def test_settings_that_cannot_be_are_refused(news_bank: Bank, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        open_smoothing(news_bank, **options)


def test_tables_that_do_not_fit_are_refused(neighbors):
    with pytest.raises(ShapeError, match="neighbors of shape"):
        smooth_neighbors(neighbors.ids, neighbors.costs[:, :3], SmoothingOptions(k=8, perplexity=4.0))
    with pytest.raises(UsageError, match="no token can be softened"):
        smooth_dense(DenseCosts(torch.zeros(9, 4)), SmoothingOptions())


@pytest.mark.parametrize("k", [None, 8])
def test_a_bank_is_fitted_to_wider_and_narrower_logits(
    news_bank: Bank, k: int | None, caplog: pytest.LogCaptureFixture
):
    smoothing = open_smoothing(news_bank, k=k, perplexity=6.0, vocab_size=2_100)
    assert not smoothing.softened[2_000:].any()
    assert _shares(smoothing, 2_050)[2_050] == pytest.approx(1.0)
    assert _shares(smoothing, 1_000)[2_000:].abs().max() < 1e-12
    narrow = open_smoothing(news_bank, k=k, perplexity=6.0, vocab_size=1_500)
    assert float(_shares(narrow, 1_000).sum()) == pytest.approx(1.0, abs=1e-6)
    loss = EMOLoss(news_bank, preset="recommended")
    loss(torch.zeros(3, 2_100), torch.tensor([2_050, 700, 1_000]))
    assert "trained with cross-entropy alone" in caplog.text


def test_a_checkpoint_names_the_settings(news_bank: Bank):
    state = LinearEMOLoss(open_smoothing(news_bank, perplexity=90.0), preset="recommended").state_dict()
    LinearEMOLoss(open_smoothing(news_bank, perplexity=90.0), preset="recommended").load_state_dict(state)
    with pytest.raises(UsageError, match="perplexity 90"):
        LinearEMOLoss(open_smoothing(news_bank, perplexity=80.0), preset="recommended").load_state_dict(state)


def test_a_low_rank_has_nearly_the_same_distributions(news_bank: Bank):
    exact, low = (open_smoothing(news_bank, perplexity=50.0, rank=rank) for rank in (None, 20))
    for token in (500, 900):
        assert float((_shares(exact, token) - _shares(low, token)).abs().sum()) < 0.5


def test_dense_costs_are_still_opened_for_other_objectives(news_bank: Bank):
    loss = EMOLoss(news_bank, preset="paper")
    assert torch.equal(loss.costs.vectors, open_costs(news_bank).vectors)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def test_the_module_needs_no_neighbor_table(tmp_path: Path, news_bank: Bank):
    assert isinstance(EMOLoss(news_bank, preset="recommended").costs, DenseSmoothing)
