"""Parity with the published package EMOLoss 0.0.3 (`emo.loss.EMOLoss`), whose modes 1 and 2 are two of our mixings.

The package computes K as 1 − ⟨e_t, Σ p_i e_i⟩, a difference of two numbers near 1, so K has an absolute error of 1e-7
in float32. This is negligible if K is large. But K of a nearly certain token is itself about 1e-7, and then the ratio
of K and CE, which weighs the token's gradient, is noise. Therefore the package runs in float32 where it is accurate,
and in float64 where logits are peaked. A separate test shows that it needs float64 there.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from costbank.bank import Bank
from costbank.loss import DenseCosts, EMOOptions, emo_loss

published = pytest.importorskip("emo.loss", reason="the package EMOLoss, the published code, is not installed").EMOLoss

MODES = [pytest.param(1, "emo1_clamped", id="mode 1"), pytest.param(2, "emo2", id="mode 2")]
VOCAB, BATCH, LENGTH = 96, 5, 25


@pytest.fixture(params=range(4), ids=lambda seed: f"seed {seed}")
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    return torch.Generator().manual_seed(request.param)


@pytest.fixture
def rows(generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(VOCAB, 16, generator=generator), dim=1)


@pytest.fixture
def logits(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, LENGTH, VOCAB, generator=generator)


@pytest.fixture
def labels(generator: torch.Generator) -> Tensor:
    """Unshifted labels. After the first of each row, each token is a label once, and a fifth is ignored."""
    counted = torch.cat((torch.arange(VOCAB), torch.full((BATCH * (LENGTH - 1) - VOCAB,), -100)))
    shuffled = counted[torch.randperm(len(counted), generator=generator)].reshape(BATCH, LENGTH - 1)
    return torch.cat((torch.randint(0, VOCAB, (BATCH, 1), generator=generator), shuffled), dim=1)


def _value_and_gradient(loss_of: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = loss_of(leaf)
    return loss.detach().double(), torch.autograd.grad(loss, leaf)[0].double()


def _ours(logits: Tensor, labels: Tensor, rows: Tensor, mixing: str) -> tuple[Tensor, Tensor]:
    # In the published loss, position i predicts label i + 1; with ours, the caller shifts labels.
    costs, options = DenseCosts(rows), EMOOptions(mixing=mixing)
    return _value_and_gradient(lambda z: emo_loss(z[:, :-1], labels[:, 1:], costs, options), logits)


def _theirs(logits: Tensor, labels: Tensor, rows: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    return _value_and_gradient(lambda z: published(z, labels, rows.to(z.dtype), mode=mode), logits)


def _apart(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The larger of two relative differences: of the values, and of the gradients (by their largest entry)."""
    value = (one[0] - other[0]).abs() / other[0].abs()
    gradient = (one[1] - other[1]).abs().max() / other[1].abs().max()
    return float(torch.maximum(value, gradient))


def _with_sure_tokens(logits: Tensor, labels: Tensor, how_many: int) -> Tensor:
    """The logits, changed so that the label has all probability but a millionth in the first rows of the batch."""
    sure = logits.clone()
    of_label = torch.nn.functional.one_hot(labels[:how_many, 1:].clamp_min(0), VOCAB)
    sure[:how_many, :-1] += 20 * of_label
    return sure


@pytest.mark.parametrize(("mode", "mixing"), MODES)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_spread_logits_in_float32(logits, labels, rows, mode: int, mixing: str, scale: float):
    assert _apart(_ours(scale * logits, labels, rows, mixing), _theirs(scale * logits, labels, rows, mode)) < 1e-5


@pytest.mark.parametrize(("mode", "mixing"), MODES)
@pytest.mark.parametrize("scale", [6.0, 12.0])
def test_peaked_logits_beside_the_published_formula_in_float64(logits, labels, rows, mode: int, mixing: str, scale):
    peaked = _with_sure_tokens(scale * logits, labels, how_many=3)
    assert _apart(_ours(peaked, labels, rows, mixing), _theirs(peaked.double(), labels, rows, mode)) < 1e-5


@pytest.mark.parametrize(("mode", "mixing"), MODES)
def test_on_tokens_that_are_sure_the_published_code_needs_float64_and_ours_does_not(
    logits, labels, rows, mode: int, mixing: str
):
    sure = _with_sure_tokens(logits, labels, how_many=BATCH)
    exact = _theirs(sure.double(), labels, rows, mode)
    assert _apart(_ours(sure, labels, rows, mixing), exact) < 1e-5
    assert _apart(_theirs(sure, labels, rows, mode), exact) > {1: 0.02, 2: 1.0}[mode]


@pytest.mark.parametrize(("mode", "mixing"), MODES)
def test_in_float64_they_agree_to_the_digits_of_the_rows(logits, labels, rows, mode: int, mixing: str):
    # The published code divides rows by their norms again; in float64, the norms of float32 unit rows are 1 ± 1e-7.
    logits = 3 * logits.double()
    assert _apart(_ours(logits, labels, rows, mixing), _theirs(logits, labels, rows, mode)) < 1e-6


@pytest.mark.parametrize(("mode", "mixing"), MODES)
def test_a_batch_of_ignored_labels_is_zero_to_both(logits, labels, rows, mode: int, mixing: str):
    for value, gradient in (
        _ours(logits, torch.full_like(labels, -100), rows, mixing),
        _theirs(logits, torch.full_like(labels, -100), rows, mode),
    ):
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize(("mode", "mixing"), MODES)
def test_a_real_bank_with_an_own_axis_for_its_tokens_without_a_vector(news_bank: Bank, mode: int, mixing: str):
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(2, 40, news_bank.size, generator=generator)
    labels = torch.randint(0, news_bank.size, (2, 40), generator=generator)
    labels[0, 1:3] = torch.from_numpy((~news_bank.usable).nonzero()[0][:2])
    rows = news_bank.matrix("torch", missing="own-axis")
    assert _apart(_ours(logits, labels, rows, mixing), _theirs(logits, labels, rows, mode)) < 1e-5
    assert published(logits, labels, news_bank.matrix("torch"), mode=mode).isnan()
