import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from costbank.errors import MissingExtraError, ShapeError, UsageError
from costbank.loss import DenseCosts, EMOOptions, SoftTargets, emo_loss
from costbank.loss.transport import exact_transport_loss, exact_transport_loss_with_parts
from tests.loss.oracle import cost_matrix

pytest.importorskip("ot", reason="POT, of the extra `ot`, is not installed")

EVERYTHING = 10_000


@pytest.fixture
def soft(generator: torch.Generator) -> Tensor:
    """Soft targets for the logits, some of them nearly hard."""
    return torch.softmax(4 * torch.randn(29, 37, generator=generator, dtype=torch.float64), dim=1)


def _by_linear_programming(p: np.ndarray, q: np.ndarray, costs: np.ndarray) -> float:
    n = len(p)
    marginals = np.zeros((2 * n, n * n))
    for i in range(n):
        marginals[i, i * n : (i + 1) * n] = 1
        marginals[n + i, i::n] = 1
    solved = linprog(costs.ravel(), A_eq=marginals, b_eq=np.r_[p, q], method="highs")
    assert solved.success
    return solved.fun


def test_the_distance_is_the_least_cost_of_all_plans(logits, soft, costs):
    result = exact_transport_loss(logits[:6].double(), soft[:6], costs, support=EVERYTHING, reduction="none")
    p, matrix = torch.softmax(logits[:6].double(), dim=1).numpy(), cost_matrix(costs, 37).numpy()
    for row in range(6):
        assert result[row].item() == pytest.approx(_by_linear_programming(p[row], soft[row].numpy(), matrix), abs=2e-7)


def test_the_product_coupling_is_a_bound_of_it_that_is_not_tight(logits, soft, costs):
    exact = exact_transport_loss(logits.double(), soft, costs, support=EVERYTHING, reduction="none")
    rows = costs.vectors.double()
    bound = 1 - ((torch.softmax(logits.double(), dim=1) @ rows) * (soft @ rows)).sum(dim=1)
    assert (bound >= exact - 1e-7).all()
    assert (bound - exact).mean() > 0.05


def test_a_one_hot_target_gives_the_expected_cost(logits, labels, costs):
    kept = labels != -100
    logits, labels = logits[kept].double().requires_grad_(), labels[kept]
    one_hot = torch.nn.functional.one_hot(labels, 37).double()
    exact = exact_transport_loss(logits, one_hot, costs, support=EVERYTHING, reduction="none")
    p = torch.softmax(logits, dim=1)
    expected = (p * cost_matrix(costs, 37)[labels]).sum(dim=1)
    assert torch.allclose(exact, expected, atol=1e-7)
    with_ce = emo_loss(logits, labels, costs, EMOOptions(mixing="fixed", reduction="none"))
    assert torch.allclose(
        exact, with_ce - torch.nn.functional.cross_entropy(logits, labels, reduction="none"), atol=1e-7
    )
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (exact, expected)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_the_gradient_is_that_of_finite_differences(logits, soft, costs):
    leaf = logits[:5].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: exact_transport_loss(z, soft[:5], costs, support=EVERYTHING, reduction="none"), leaf, eps=1e-6
    )


def test_the_gradient_on_a_support_is_that_of_what_was_solved(logits, soft, costs):
    leaf = (3 * logits[:5]).double().requires_grad_()
    ids = soft[:5].topk(4, dim=1).indices
    sparse = (ids, soft[:5].gather(1, ids))
    assert torch.autograd.gradcheck(
        lambda z: exact_transport_loss(z, sparse, costs, support=6, reduction="none"), leaf, eps=1e-7
    )
    (gradient,) = torch.autograd.grad(exact_transport_loss(leaf, sparse, costs, support=6), leaf)
    assert ((gradient != 0).sum(dim=1) <= 10).all()
    assert torch.allclose(gradient.sum(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-15)


def test_equal_distributions_are_nothing_apart(logits, costs):
    leaf = logits.double().requires_grad_()
    p = torch.softmax(leaf, dim=1).detach()
    loss, parts = exact_transport_loss_with_parts(leaf, p, costs, support=EVERYTHING, reduction="sum")
    assert loss.item() == pytest.approx(0, abs=1e-14)
    assert parts.distance.shape == (29,)
    assert exact_transport_loss(leaf, p, costs, support=5).item() == pytest.approx(0, abs=1e-14)


def test_where_the_distance_is_zero_so_is_the_gradient(costs):
    logits = torch.tensor([[0.0, 0.0] + [-torch.inf] * 35], requires_grad=True)
    loss = exact_transport_loss(logits, torch.tensor([[0.5, 0.5] + [0.0] * 35]), costs)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_distance_is_symmetric(soft, costs):
    one, other = soft[:10], soft[10:20]
    there = exact_transport_loss(one.log(), other, costs, support=EVERYTHING, reduction="none")
    back = exact_transport_loss(other.log(), one, costs, support=EVERYTHING, reduction="none")
    assert torch.allclose(there, back, atol=1e-9)


@pytest.mark.parametrize("support", [1, 3, 8, 20])
def test_the_omitted_probability_bounds_the_error(logits, soft, costs, support: int):
    whole = exact_transport_loss_with_parts(logits.double(), soft, costs, support=EVERYTHING, reduction="none").parts
    assert not whole.left_out_logits.any()
    assert whole.left_out_targets.max() < 1e-12
    part = exact_transport_loss_with_parts(logits.double(), soft, costs, support=support, reduction="none").parts
    left_out = part.left_out_logits + part.left_out_targets
    assert ((part.distance - whole.distance).abs() <= 2 * left_out + 1e-9).all()
    assert torch.allclose(part.left_out_targets, 1 - soft.topk(support, dim=1).values.sum(dim=1))
    assert (
        part.left_out_logits <= 1 - torch.softmax(logits.double(), 1).topk(support, dim=1).values.sum(1) + 1e-6
    ).all()


def test_sparse_targets_are_the_dense_ones_that_they_stand_for(logits, soft, costs):
    values, ids = soft.topk(6, dim=1)
    padded = (torch.cat((ids, ids[:, :1]), dim=1), torch.cat((values, torch.zeros(29, 1)), dim=1))
    dense = torch.zeros_like(soft).scatter_(1, ids, values)
    dense /= dense.sum(dim=1, keepdim=True)
    sparse = exact_transport_loss_with_parts(logits, padded, costs, support=6, reduction="none")
    assert torch.allclose(sparse.loss, exact_transport_loss(logits, dense, costs, support=6, reduction="none"))
    assert torch.allclose(sparse.parts.left_out_targets, (1 - values.sum(dim=1)).float(), atol=1e-6)


def test_reductions_and_masks(logits, soft, costs):
    logits, soft = logits[:28].reshape(4, 7, 37), soft[:28].reshape(4, 7, 37)
    each = exact_transport_loss(logits, soft, costs, reduction="none")
    assert each.shape == (4, 7)
    assert each.dtype == torch.float32
    assert torch.allclose(exact_transport_loss(logits, soft, costs), each.mean())
    assert torch.allclose(exact_transport_loss(logits, soft, costs, reduction="sum"), each.sum())
    mask = torch.arange(28).reshape(4, 7) % 3 > 0
    soft = torch.where(mask[..., None], soft, torch.nan)
    masked = exact_transport_loss(logits, soft, costs, mask=mask, reduction="none")
    assert torch.equal(masked, torch.where(mask, each, 0))
    leaf = logits.clone().requires_grad_()
    loss = exact_transport_loss(leaf, soft, costs, mask=mask)
    assert torch.allclose(loss, each[mask].mean())
    (gradient,) = torch.autograd.grad(3 * loss, leaf)
    assert torch.equal((gradient != 0).any(dim=-1), mask)


def test_a_batch_that_is_all_masked_has_loss_zero(logits, soft, costs):
    leaf = logits.clone().requires_grad_()
    loss = exact_transport_loss(leaf, soft, costs, mask=torch.zeros(29, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_solved_as_they_are(logits, soft, costs, dtype: torch.dtype):
    rounded = logits.to(dtype).requires_grad_()
    exact = rounded.detach().double().requires_grad_()
    losses = [exact_transport_loss(z, soft, costs, support=8) for z in (rounded, exact)]
    assert losses[0].dtype == torch.float32
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, z)[0] for loss, z in zip(losses, (rounded, exact), strict=True)]
    assert gradients[0].dtype == dtype
    assert torch.allclose(gradients[0].double(), gradients[1], rtol=1e-2, atol=1e-6)


def test_logits_that_are_nan_give_nan_and_no_others(logits, soft, costs):
    broken = logits.clone()
    broken[3, 5] = torch.nan
    losses = exact_transport_loss(broken, soft, costs, reduction="none")
    assert torch.equal(losses.isnan(), torch.arange(29) == 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.update(targets=a["targets"][:, :-1]), ShapeError, r"\[29, 37\] with targets of shape \[29, 36\]"),
        (lambda a: a.update(targets=a["targets"][:-1]), ShapeError, r"targets of shape \[28, 37\]"),
        (lambda a: a.update(targets=a["targets"] - 0.01), UsageError, "negative"),
        (lambda a: a.update(targets=a["targets"].log()), UsageError, "negative"),
        (lambda a: a.update(targets=a["targets"] * torch.nan), UsageError, "NaN"),
        (lambda a: a.update(targets=a["targets"] * 0.9), UsageError, "sum to 0.9"),
        (lambda a: a.update(targets=(torch.zeros(29, 2).long(), torch.ones(29, 2))), UsageError, "sum to 2"),
        (lambda a: a.update(targets=(torch.zeros(29, 2).long(), torch.zeros(29, 2))), UsageError, "sum to 0"),
        (lambda a: a.update(targets=(torch.zeros(29, 3).long(), torch.ones(29, 1))), ShapeError, "one|with"),
        (lambda a: a.update(targets=(torch.full((29, 1), 37), torch.ones(29, 1))), UsageError, "integers below 37"),
        (lambda a: a.update(targets=(torch.zeros(29, 1), torch.ones(29, 1))), UsageError, "integers below 37"),
        (lambda a: a.update(vectors=a["vectors"].vectors[:30]), ShapeError, r"vectors have shape \[30, 6\]"),
        (lambda a: a.update(support=0), UsageError, "support is 0"),
        (lambda a: a.update(reduction="max"), UsageError, "reduction is 'max'"),
        (lambda a: a.update(mask=torch.ones(28, dtype=torch.bool)), ShapeError, r"mask has shape \[28\]"),
    ],
)  # fmt: skip
def test_impossible_arguments_are_refused(logits, soft, costs: DenseCosts, change, error: type, message: str):
    arguments = {"logits": logits, "targets": soft, "vectors": costs}
    change(arguments)
    with pytest.raises(error, match=message) as raised:
        exact_transport_loss(**arguments)
    assert raised.value.hint


@pytest.mark.slow
def test_the_loss_does_not_load_pot_before_it_solves():
    code = "import sys, costbank.loss, costbank.loss.transport; print('ot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"


def test_without_pot_the_extra_is_named(logits, soft, costs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(MissingExtraError, match="'ot', which is not installed") as raised:
        exact_transport_loss(logits, soft, costs)
    assert raised.value.hint == "pip install 'costbank[ot]'"


def test_soft_targets_are_taken_as_elsewhere(logits, costs):
    q = torch.softmax(logits[:6].flip(1), dim=1)
    q[2] = 0
    ids = torch.arange(37).expand(6, 37).contiguous()
    expected = exact_transport_loss(logits[:6], q.clamp_min(1e-30), costs, support=37, mask=torch.arange(6) != 2)
    for targets in (SoftTargets(q), SoftTargets(q, ids)):
        assert torch.allclose(exact_transport_loss(logits[:6], targets, costs, support=37), expected)
