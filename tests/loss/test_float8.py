"""Rows of costs in 8 bits: their rounding and its error, and losses that follow the definition for such rows."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import (
    Costs,
    DenseCosts,
    EMOOptions,
    LinearEMOLoss,
    LowRankCosts,
    NeighborCosts,
    SoftTargets,
    emo_loss,
    open_costs,
    open_smoothing,
)
from costbank.loss.costs import dense
from costbank.loss.costs.float8 import Float8Rows
from tests.loss.oracle import cost_matrix, token_losses
from tests.loss.test_objectives import EACH
from tests.loss.test_soft import CASES as SOFT
from tests.loss.test_soft import definition

FLOAT8 = torch.float8_e4m3fn
DENSE = [case for case in EACH if case.values[1] in ("dense", "smoothing-of-all")]


def narrow(costs: Costs | None) -> DenseCosts:
    assert isinstance(costs, DenseCosts)
    return costs.to(dtype=FLOAT8)


@pytest.fixture
def rows(generator: torch.Generator) -> Tensor:
    """Unit rows [300, 48] whose numbers have very different sizes; rows 7 and 299 are 0."""
    rows = torch.randn(300, 48, generator=generator) * 10.0 ** torch.randint(-3, 1, (300, 48), generator=generator)
    rows[[7, 299]] = 0
    return functional.normalize(rows, dim=1)


def test_rows_are_rounded_to_four_significant_bits(rows: Tensor):
    costs = DenseCosts(rows).to(dtype=FLOAT8)
    assert costs.vectors.dtype == FLOAT8
    assert costs.scales is not None
    assert costs.scales.dtype == torch.float32
    near, stored = costs.wide(dtype=torch.float64), costs.vectors.double()
    assert torch.equal(near, stored * costs.scales.double()[:, None])
    assert stored.abs().amax(1)[costs.has_vector].eq(448).all()
    assert costs.has_vector.tolist() == [i not in (7, 299) for i in range(300)]
    # The scale is the nearest: what is left of a row is orthogonal to it.
    left = rows.double() - near
    assert ((left * near).sum(1).abs() < 1e-6).all()
    # Numbers above the smallest normal one; the scale moves all of them by a few parts in a hundred.
    large = stored.abs() >= 2**-6
    assert (left.abs() <= (1 / 16 + 0.03) * rows.double().abs())[large].all()
    assert (left.norm(dim=1) < 0.04).all()


def test_the_error_is_that_of_all_costs(rows: Tensor):
    exact = DenseCosts(rows)
    costs = exact.to(dtype=FLOAT8)
    changes = (costs.rows(torch.arange(300), torch.float64) - exact.rows(torch.arange(300), torch.float64)).abs()
    error = costs.rounding_error
    assert error is not None
    assert error.sampled == 300
    assert error.largest == pytest.approx(float(changes.max()), rel=1e-3)
    assert error.mean == pytest.approx(float(changes.sum()) / (300 * 299), rel=1e-3)
    assert error.largest <= error.bound < 0.1
    assert exact.rounding_error is None
    assert costs.error == f"rounded to float8_e4m3fn, {error}"
    assert f"measured between 300 tokens: by at most {error.largest:.2g}, {error.mean:.2g} on average" in repr(costs)
    low = LowRankCosts.project(exact, 8).to(dtype=FLOAT8)
    assert "8 dimensions" in low.error
    assert "on average, rounded to float8_e4m3fn, which changes a cost by at most" in low.error


def test_errors_are_measured_between_evenly_spaced_rows(generator, monkeypatch):
    monkeypatch.setattr("costbank.loss.costs.float8._SAMPLED_ROWS", 10)
    rows = functional.normalize(torch.randn(100, 16, generator=generator), dim=1)
    whole, parts = Float8Rows(100, 16, None), Float8Rows(100, 16, None)
    whole.put(0, rows)
    for start in range(0, 100, 7):
        parts.put(start, rows[start : start + 7])
    assert torch.equal(whole.vectors.view(torch.uint8), parts.vectors.view(torch.uint8))
    assert torch.equal(whole.scales, parts.scales)
    assert whole.error.sampled == parts.error.sampled == 10
    assert whole.error == pytest.approx(parts.error)
    assert Float8Rows(0, 16, None).error == (0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize(("options", "form"), DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_the_definitions(logits, labels, of_form, options: EMOOptions, form: str, dtype, monkeypatch):
    monkeypatch.setattr(dense, "_CONVERTED_ROWS", 10)
    costs = narrow(of_form[form])
    leaf, exact = logits.to(dtype).requires_grad_(), logits.double().requires_grad_()
    each = emo_loss(leaf, labels, costs, replace(options, reduction="none"))
    expected = token_losses(exact, labels, costs, options)
    (gradient,), (right,) = torch.autograd.grad(each.sum(), leaf), torch.autograd.grad(expected.sum(), exact)
    (unrounded,) = torch.autograd.grad(token_losses(exact, labels, of_form[form], options).sum(), exact)
    assert not torch.allclose(right, unrounded, rtol=1e-3)
    factor = 1.0 if dtype == torch.float32 else 1e-6
    torch.testing.assert_close(each.double(), expected, rtol=2e-5 * factor, atol=1e-6 * factor)
    floor = 3e-6 if options.target_mass == "detached" else 5e-7
    assert ((gradient - right).abs().amax(1) <= factor * (1e-4 * right.abs().amax(1) + floor)).all()


@pytest.mark.parametrize("options", SOFT)
def test_soft_targets_are_the_definitions(logits, teacher, costs, options: EMOOptions):
    narrowed = narrow(costs)
    loss = emo_loss(logits, SoftTargets(teacher), narrowed, replace(options, reduction="none"))
    wide = DenseCosts(narrowed.wide(dtype=torch.float64), bank="wide")
    expected = definition(logits, teacher, wide, options)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("options", "form"), DENSE[::2])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_kernels_follow_the_definition(logits, labels, of_form, options: EMOOptions, form: str):
    """Kernels read products of 8-bit rows from a tile in bfloat16, which moves a cost by up to 2⁻⁸."""
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    costs = narrow(of_form[form])
    leaf, exact = logits[:6].to(device).requires_grad_(), logits[:6].double().requires_grad_()
    options = replace(options, reduction="none", kernels="triton")
    each = emo_loss(leaf, labels[:6].to(device), costs.to(device), options)
    expected = token_losses(exact, labels[:6], costs, options)
    (gradient,), (right,) = torch.autograd.grad(each.sum(), leaf), torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(each.cpu().double(), expected, rtol=2e-2, atol=1e-3)
    assert ((gradient.cpu() - right).abs().amax(1) <= 2e-2 * right.abs().amax(1) + 1e-4).all()


@pytest.mark.parametrize("piece", [5, 1_000])
def test_products_are_converted_in_pieces_of_any_size(rows: Tensor, monkeypatch, piece: int):
    costs = DenseCosts(rows).to(dtype=FLOAT8)
    monkeypatch.setattr(dense, "_CONVERTED_ROWS", piece)
    assert torch.equal(DenseCosts(rows).to(dtype=FLOAT8).vectors.view(torch.uint8), costs.vectors.view(torch.uint8))
    labels, matrix = torch.tensor([0, 7, 255, 299, 3]), 1 - cost_matrix(costs, 300)
    for columns in (slice(None), slice(3, 4), slice(11, 250)):
        out = torch.empty(5, len(range(300)[columns]))
        costs.products_of(labels, columns, out)
        exact = torch.where(labels[:, None] == torch.arange(300)[columns], 0.0, out)
        right = torch.where(labels[:, None] == torch.arange(300)[columns], 0.0, -matrix.T[labels][:, columns])
        torch.testing.assert_close(exact.double(), right, rtol=0, atol=1e-6)


def test_a_banks_rows_are_rounded_block_by_block(news_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    read_ids, read = [], Bank.vectors
    monkeypatch.setattr(Bank, "vectors", lambda bank, ids: read_ids.append(ids) or read(bank, ids))
    for vocab_size in (1_000, 2_000, 2_048):
        read_ids.clear()
        opened = open_costs(news_bank, dtype=FLOAT8, vocab_size=vocab_size, block_rows=300)
        assert max(ids.stop - ids.start for ids in read_ids) == 300
        at_once = narrow(open_costs(news_bank, vocab_size=vocab_size))
        assert isinstance(opened, DenseCosts)
        assert torch.equal(opened.vectors.view(torch.uint8), at_once.vectors.view(torch.uint8))
        assert torch.equal(opened.wide(), at_once.wide())
        assert opened.error.startswith("rounded to float8_e4m3fn, which changes a cost by at most")
    assert open_costs(news_bank, dtype=FLOAT8).pin == open_costs(news_bank).pin
    low = open_costs(news_bank, "low-rank", rank=8, dtype=FLOAT8)
    assert isinstance(low, LowRankCosts)
    assert low.vectors.dtype == FLOAT8
    smoothing = open_smoothing(news_bank, dtype=FLOAT8)
    assert "T = " in smoothing.error
    assert "rounded to float8_e4m3fn" in smoothing.error


def test_costs_fit_other_widths_and_types(rows: Tensor, generator):
    costs = replace(DenseCosts(rows), bank="some@bank").to(dtype=FLOAT8)
    again = costs.to(dtype=torch.bfloat16)
    assert again.scales is None
    assert again.vectors.dtype == torch.bfloat16
    assert torch.equal(again.vectors, costs.wide(dtype=torch.bfloat16))
    assert "float8_e4m3fn" in again.error
    assert costs.to("cpu").scales is not None
    assert costs.to("meta").wide().shape == (300, 48)
    hidden, weight = (torch.randn(*shape, generator=generator) for shape in ((6, 8), (300, 8)))
    labels = torch.randint(0, 300, (6,), generator=generator)
    eight, sixteen = (
        LinearEMOLoss(each, EMOOptions())(hidden, weight, labels) for each in (costs, costs.to(dtype=torch.float32))
    )
    torch.testing.assert_close(eight, sixteen)
    from costbank.loss.costs import fit_width, smooth_dense
    from costbank.loss.costs.smoothing import SmoothingOptions

    for each in (costs, smooth_dense(costs, SmoothingOptions(perplexity=20.0))):
        wider: Any = fit_width(each, 320, 300, "code")
        assert wider.wide().shape == (320, 48)
        assert torch.equal(wider.wide()[:300], costs.wide())
        assert (wider.wide()[300:] == 0).all()
    near = costs.rows(torch.arange(300)).topk(4, largest=False)
    table = NeighborCosts.from_table(costs, near.indices, near.values, measure=True)
    wide = replace(DenseCosts(costs.wide(), bank="some@bank"))
    expected = NeighborCosts.from_table(wide, near.indices, near.values, measure=True)
    torch.testing.assert_close(table.far, expected.far)


def test_exact_transport_reads_scaled_rows(rows: Tensor, generator):
    pytest.importorskip("ot")
    from costbank.loss import exact_transport_loss

    costs = DenseCosts(rows).to(dtype=FLOAT8)
    logits, targets = torch.randn(2, 300, generator=generator), torch.rand(2, 300, generator=generator)
    ours, wide = (exact_transport_loss(logits, SoftTargets(targets), each, support=8) for each in (costs, costs.wide()))
    torch.testing.assert_close(ours, wide)


def test_what_cannot_be_8_bits_is_refused(news_bank: Bank, rows: Tensor, neighbors: NeighborCosts, smoothing):
    costs = DenseCosts(rows)
    for refused in (
        lambda: open_costs(news_bank, "neighbors", dtype=FLOAT8),
        lambda: open_smoothing(news_bank, k=8, dtype=FLOAT8),
        lambda: open_smoothing(news_bank, draws=8, dtype=FLOAT8),
        lambda: neighbors.to(dtype=FLOAT8),
        lambda: smoothing.to(dtype=FLOAT8),
    ):
        with pytest.raises(UsageError, match=r"costs without rows cannot be torch.float8_e4m3fn") as caught:
            refused()
        assert "dense or low-rank costs" in caught.value.hint
    for dtype in (torch.float8_e5m2, torch.float8_e4m3fnuz):
        with pytest.raises(UsageError, match=f"costs cannot be {dtype}") as caught:
            costs.to(dtype=dtype)
        assert "use torch.float8_e4m3fn" in caught.value.hint
    with pytest.raises(UsageError, match=r"vectors are torch.float8_e4m3fn without scales") as caught:
        DenseCosts(rows.to(FLOAT8))
    assert "to(dtype=torch.float8_e4m3fn)" in caught.value.hint
    with pytest.raises(ShapeError, match="scales of shape"):
        DenseCosts(rows.to(FLOAT8), scales=torch.ones(3))


def test_a_type_that_a_device_does_not_have_is_refused_in_words(
    rows: Tensor, news_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    convert = Tensor.to

    def without_8_bits(tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if FLOAT8 in (*arguments, *named.values()):
            raise TypeError("this device has no float8")
        return convert(tensor, *arguments, **named)

    monkeypatch.setattr(Tensor, "to", without_8_bits)
    DenseCosts(rows).to("cpu", torch.bfloat16)
    for refused in (
        lambda: DenseCosts(rows).to("cpu", FLOAT8),
        lambda: open_costs(news_bank, device="cpu", dtype=FLOAT8),
    ):
        with pytest.raises(UsageError, match=r"costs cannot be torch.float8_e4m3fn on the device cpu: this") as caught:
            refused()
        assert "another device" in caught.value.hint
