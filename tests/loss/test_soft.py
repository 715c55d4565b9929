"""Soft targets: the product coupling and the debiased bound, with full logits and in the linear loss."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from costbank.errors import ShapeError, UsageError
from costbank.loss import (
    DenseCosts,
    EMOOptions,
    LowRankCosts,
    SoftTargets,
    emo_loss,
    emo_loss_with_parts,
    exact_transport_loss,
    linear_emo_loss,
)
from tests.loss.oracle import cost_matrix

CASES = [
    pytest.param(EMOOptions(objective=objective, reduction="none", chunk_rows=7, **given), id=f"{objective}-{name}")
    for objective in ("emo", "kernel", "ce")
    for name, given in {
        "emo1": {},
        "emo2": {"mixing": "emo2"},
        "pure": {"mixing": "interpolate", "weight": 1.0},
        "warm": {"mixing": "fixed", "weight": 0.7, "temperature": 2.0, "softcap": 6.0, "z_loss": 1e-3},
    }.items()
]


def definition(logits: Tensor, q: Tensor, costs: DenseCosts, options: EMOOptions) -> Tensor:
    """Losses [n] in float64, for autograd."""
    matrix, rows = cost_matrix(costs, logits.shape[1]), costs.vectors.double()
    z = logits.double()
    if options.softcap:
        z = options.softcap * torch.tanh(z / options.softcap)
    log_p = torch.log_softmax(z / options.temperature, dim=1)
    kept = q.sum(1) > 0
    q = q.double() / q.double().sum(1, keepdim=True).clamp_min(1e-300)
    ce = -(q * log_p).sum(1)
    if options.objective == "emo":
        value = torch.einsum("ni,ij,nj->n", log_p.exp(), matrix, q)
    elif options.objective == "kernel":
        value = ((log_p.exp() - q) @ rows).square().sum(1) / 2
    else:
        value = 0 * ce
    ratio1, ratio2 = (ce / (value + 1e-10)).detach().clamp_max(3), (value / (ce + 1e-10)).detach()
    loss = {
        "emo1_clamped": (ce + ratio1 * value) / 2,
        "emo2": ratio2 * ce + value,
        "interpolate": value,
        "fixed": ce + 0.7 * value,
    }[options.mixing]
    loss = ce if options.objective == "ce" else loss
    return torch.where(kept, loss + options.z_loss * torch.logsumexp(z / options.temperature, 1) ** 2, 0.0)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_values_and_gradients_are_the_definitions(logits, teacher, costs, options: EMOOptions, sparse: bool):
    if sparse:
        probabilities, ids = teacher.topk(9)
        targets = SoftTargets(probabilities, ids)
        teacher = torch.zeros_like(teacher).scatter(1, ids, probabilities)
    else:
        targets = SoftTargets(teacher)
    leaf, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss, expected = emo_loss(leaf, targets, costs, options), definition(exact, teacher, costs, options)
    assert torch.allclose(loss.double(), expected, rtol=2e-5, atol=1e-6)
    (gradient,), (right,) = torch.autograd.grad(loss.sum(), leaf), torch.autograd.grad(expected.sum(), exact)
    assert torch.allclose(gradient.double(), right, rtol=1e-4, atol=2e-6)
    wide = emo_loss(logits.double(), targets, costs, options)
    assert torch.allclose(wide, definition(logits.double(), teacher, costs, options), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", CASES)
def test_the_linear_form_is_the_same(generator, teacher, costs, options: EMOOptions):
    hidden, weight = torch.randn(29, 11, generator=generator), torch.randn(37, 11, generator=generator)
    probabilities, ids = teacher.topk(9)
    options = replace(options, reduction="mean")
    for targets in (SoftTargets(teacher), SoftTargets(probabilities, ids)):
        ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        theirs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = linear_emo_loss(*ours, targets, costs, options)
        expected = emo_loss(theirs[0] @ theirs[1].T, targets, costs, options)
        assert torch.allclose(loss, expected, rtol=1e-6)
        for mine, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
            assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", ["emo", "kernel", "ce"])
@pytest.mark.parametrize("mixing", ["emo1_clamped", "emo2", "fixed"])
@pytest.mark.parametrize("ahead", [0.0, 20.0, -200.0], ids=["spread", "sure", "lost"])
def test_one_token_with_all_the_mass_is_a_label(logits, labels, costs, objective: str, mixing: str, ahead: float):
    logits = logits.double() + ahead * functional.one_hot(labels.clamp_min(0), 37)
    options = EMOOptions(objective=objective, mixing=mixing, reduction="none")
    one_hot = functional.one_hot(labels.clamp_min(0), 37) * (labels >= 0)[:, None]
    sparse = SoftTargets((labels >= 0)[:, None].float(), labels.clamp_min(0)[:, None])
    plain = logits.clone().requires_grad_()
    expected = emo_loss_with_parts(plain, labels, costs, options)
    (right,) = torch.autograd.grad(expected.loss.sum(), plain)
    for targets in (SoftTargets(one_hot.float()), sparse):
        leaf = logits.clone().requires_grad_()
        result = emo_loss_with_parts(leaf, targets, costs, options)
        assert torch.allclose(result.loss, expected.loss, rtol=1e-6, atol=1e-14)
        assert torch.equal(result.parts.correct, expected.parts.correct)
        assert torch.allclose(torch.autograd.grad(result.loss.sum(), leaf)[0], right, rtol=1e-6, atol=1e-14)


def test_a_sure_teacher_takes_no_digits_of_the_cross_entropy(logits, labels, costs):
    """In float32, with a student as certain as its teacher: 1 − q_t and 1 − p_t are far below 1e-7."""
    sure = functional.one_hot(labels.clamp_min(0), 37) * 36.0
    logits = logits.clamp(-3, 3)
    teacher = torch.softmax(sure + logits, dim=1)
    student = (sure + logits.flip(1)).requires_grad_()
    options = EMOOptions(objective="ce", reduction="none")
    result = emo_loss(student, SoftTargets(teacher), None, options)
    exact = student.detach().double().requires_grad_()
    log_p = torch.log_softmax(exact, dim=1)
    q = teacher.double()
    # The label is left out of these sums, because even float64 would round its term.
    others = 1.0 - functional.one_hot(labels.clamp_min(0), 37)
    miss = (others * log_p.exp()).sum(1)
    away = log_p.gather(1, labels.clamp_min(0)[:, None]) - log_p
    expected = -torch.log1p(-miss) + (others * q * away).sum(1)
    assert expected.max() < 1e-8
    assert torch.allclose(result.double(), expected, rtol=1e-4, atol=0)
    (gradient,), (right,) = torch.autograd.grad(result.sum(), student), torch.autograd.grad(expected.sum(), exact)
    assert torch.allclose(gradient.double(), right, rtol=1e-4, atol=1e-15)


def test_a_lost_likeliest_token_takes_no_digits_of_the_cross_entropy(generator):
    """The likeliest token of a flat teacher is lost: its large terms in the cross-entropy must cancel exactly."""
    logits = torch.randn(20, 200, generator=generator)
    teacher = torch.softmax(0.1 * torch.randn(20, 200, generator=generator), dim=1)
    likeliest = teacher.argmax(1, keepdim=True)
    for lost in (30.0, 300.0, 3_000.0):
        z = logits.scatter(1, likeliest, -lost)
        loss = emo_loss(z, SoftTargets(teacher), None, EMOOptions(objective="ce", reduction="none"))
        q = teacher.double() / teacher.double().sum(1, keepdim=True)
        expected = -(q * torch.log_softmax(z.double(), dim=1)).sum(1)
        assert torch.allclose(loss.double(), expected, rtol=1e-6)


@pytest.mark.parametrize("objective", ["emo", "kernel", "ce"])
def test_a_masked_token_with_probability_is_infinitely_far(logits, teacher, costs, objective: str):
    """The masked token is the likeliest or the second; targets are over all tokens or over a few."""
    options = EMOOptions(objective=objective, mixing="fixed", reduction="none")
    for place in (0, 1):
        masked = logits.scatter(1, teacher.topk(2).indices[:, place : place + 1], -torch.inf)
        for targets in (SoftTargets(teacher), SoftTargets(*teacher.topk(5))):
            loss = emo_loss(masked, targets, costs, options)
            assert torch.equal(loss == torch.inf, teacher.sum(1) > 0)


def test_the_product_coupling_bounds_the_distance_itself(logits, teacher, costs):
    pure = EMOOptions(mixing="interpolate", weight=1.0, reduction="none")
    kept = teacher.sum(1) > 0
    targets = teacher[kept]
    bound = emo_loss(logits[kept], SoftTargets(targets), costs, pure)
    distance = exact_transport_loss(logits[kept], targets, costs, support=37, reduction="none")
    assert (bound >= distance - 1e-6).all()
    assert (bound > distance + 0.05).any()


def test_only_the_debiased_bound_is_nothing_where_the_student_is_the_teacher(teacher, costs):
    kept = teacher.sum(1) > 0
    teacher = teacher[kept]
    for objective, least in (("emo", 0.1), ("kernel", 0.0)):
        options = EMOOptions(objective=objective, mixing="interpolate", weight=1.0, reduction="none")
        value = emo_loss(teacher.log(), SoftTargets(teacher), costs, options)
        assert (value >= least).all()
        assert least or value.max() < 1e-10


def test_a_student_learns_its_teacher(logits, teacher, costs, generator):
    """Distillation by cross-entropy to the teacher and the debiased bound."""
    student = torch.zeros(29, 37, requires_grad=True)
    optimizer = torch.optim.Adam([student], lr=0.1)
    options = EMOOptions(objective="kernel", mixing="fixed", weight=5.0)
    for _ in range(200):
        optimizer.zero_grad()
        emo_loss(student, SoftTargets(teacher), costs, options).backward()
        optimizer.step()
    kept = teacher.sum(1) > 0
    assert (torch.softmax(student, 1) - teacher)[kept].abs().max() < 0.02


def test_costs_of_fewer_dimensions_will_do(logits, teacher, costs):
    low = LowRankCosts.project(costs, 6)
    options = EMOOptions(mixing="fixed")
    assert torch.allclose(
        emo_loss(logits, SoftTargets(teacher), low, options), emo_loss(logits, SoftTargets(teacher), costs, options)
    )


def test_masked_tokens_without_probability_change_nothing(logits, teacher, costs):
    wide = torch.cat([logits, torch.full((29, 3), -torch.inf)], dim=1)
    more = DenseCosts(functional.pad(costs.vectors, (0, 0, 0, 3)))
    loss = emo_loss(wide, SoftTargets(functional.pad(teacher, (0, 3))), more)
    assert torch.allclose(loss, emo_loss(logits, SoftTargets(teacher), costs))


def test_meaningless_soft_targets_are_refused(logits, teacher, costs, neighbors):
    with pytest.raises(ShapeError, match=r"positions of shape \[28\]"):
        emo_loss(logits, SoftTargets(teacher[1:]), costs)
    with pytest.raises(ShapeError, match="over 36 tokens"):
        emo_loss(logits, SoftTargets(teacher[:, 1:]), costs)
    with pytest.raises(ShapeError, match="ids of shape"):
        SoftTargets(teacher, torch.zeros(29, 3, dtype=torch.long))
    with pytest.raises(UsageError, match="negative") as caught:
        emo_loss(logits, SoftTargets(logits), costs)
    assert "not logits" in caught.value.hint
    with pytest.raises(UsageError, match="an id of a soft target"):
        emo_loss(logits, SoftTargets(torch.ones(29, 1), torch.full((29, 1), 37)), costs)
    with pytest.raises(UsageError, match=r"are torch.float32") as caught:
        emo_loss(logits, SoftTargets(torch.ones(29, 1), torch.full((29, 1), 1.7)), costs)
    with pytest.raises(ShapeError, match="have no entries"):
        emo_loss(logits, SoftTargets(torch.ones(29, 0), torch.ones(29, 0, dtype=torch.long)), costs)
    with pytest.raises(UsageError, match="neighbors costs"):
        emo_loss(logits, SoftTargets(teacher), neighbors)
    with pytest.raises(UsageError, match="'log' does not support soft targets"):
        emo_loss(logits, SoftTargets(teacher), costs, EMOOptions(objective="log", mixing="fixed"))
    for given in ({"shift": True}, {"label_smoothing": 0.1}, {"target_mass": "detached"}):
        with pytest.raises(UsageError, match=f"{next(iter(given))} cannot be combined with soft"):
            emo_loss(logits, SoftTargets(teacher), costs, EMOOptions(**given))
