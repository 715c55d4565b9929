"""Every objective in every form of costs, with every option that changes the arithmetic, against definitions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from costbank.errors import UsageError
from costbank.loss import (
    Costs,
    DenseCosts,
    DenseSmoothing,
    EMOOptions,
    NeighborCosts,
    NeighborSmoothing,
    emo_loss,
    emo_loss_with_parts,
)
from tests.loss.oracle import token_losses

PURE = {"mixing": "interpolate", "weight": 1.0}
HALF = {"mixing": "fixed", "weight": 0.5}

CASES = {
    "emo": ({"objective": "emo", "mixing": "emo1"}, ("dense", "neighbors")),
    "emo-pure": ({"objective": "emo", **PURE}, ("dense", "neighbors")),
    "emo-mass": ({"objective": "emo", "target_mass": "detached"}, ("dense", "neighbors")),
    "emo2-mass": ({"objective": "emo", "mixing": "emo2", "target_mass": "detached"}, ("dense", "neighbors")),
    "neighbor-smoothing": (
        {"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.3},
        ("smoothing", "smoothing-of-all"),
    ),
    "neighbor-smoothing-pure": ({"objective": "neighbor_smoothing", **PURE}, ("smoothing", "smoothing-of-all")),
    "neighbor-smoothing-everything": (
        {"objective": "neighbor_smoothing", **HALF, "softcap": 5.0, "temperature": 1.3, "label_smoothing": 0.05},
        ("smoothing", "smoothing-of-all"),
    ),
    "neighbor-smoothing-with-label": (
        {"objective": "neighbor_smoothing", **HALF},
        ("smoothing-with-label", "smoothing-of-all-with-label"),
    ),
    "gated": ({"objective": "neighbor_smoothing", **HALF, "entropy_gate": 9.0}, ("smoothing", "smoothing-of-all")),
    "gated-emo": ({"objective": "emo", **PURE, "entropy_gate": 30.0, "softcap": 6.0}, ("dense", "neighbors")),
    "delta": ({"objective": "delta", **HALF}, ("none",)),
    "delta-emo1": ({"objective": "delta", "mixing": "emo1_clamped"}, ("none",)),
    "log": ({"objective": "log", **HALF}, ("dense", "neighbors")),
    "log-pure": ({"objective": "log", **PURE, "log_power": 2.5}, ("dense", "neighbors")),
    "kernel": ({"objective": "kernel", **HALF}, ("dense",)),
    "kernel-emo2": ({"objective": "kernel", "mixing": "emo2"}, ("dense",)),
    "ce": ({"objective": "ce"}, ("none",)),
    "tailr": ({"objective": "tailr", "tailr_gamma": 0.3, "tailr_least": 0.2}, ("none",)),
    "tailr-tiny": ({"objective": "tailr", "tailr_gamma": 1e-7}, ("none",)),
    "mixce": ({"objective": "mixce", "mixce_ratio": 0.3}, ("none",)),
    "d2gpo": ({"objective": "d2gpo", "mixing": "interpolate", "weight": 0.3}, ("neighbors",)),
    "smoothed": ({"objective": "emo", "label_smoothing": 0.1}, ("dense", "neighbors")),
    "smoothed-ce": ({"objective": "ce", "label_smoothing": 0.2}, ("none",)),
    "softcap": ({"objective": "emo", "softcap": 4.0}, ("dense", "neighbors")),
    "cool": ({"objective": "emo", "temperature": 0.6}, ("dense",)),
    "capped-hot": ({"objective": "log", **HALF, "softcap": 5.0, "temperature": 1.7}, ("dense",)),
    "z-loss": ({"objective": "emo", "z_loss": 1e-2}, ("dense", "neighbors")),
    "everything": (
        {"objective": "emo", "z_loss": 1e-2, "softcap": 5.0, "temperature": 1.3, "label_smoothing": 0.05},
        ("dense",),
    ),
}
WITH_NEIGHBORS = torch.tensor([i for i in range(20) if i not in (4, 9)])
EACH = [
    pytest.param(EMOOptions(**given), form, id=f"{name}-{form}")
    for name, (given, forms) in CASES.items()
    for form in forms
]


def both(logits: Tensor, labels: Tensor, costs: Costs | None, options: EMOOptions) -> tuple[Tensor, ...]:
    """Losses and gradients of the implementation, and of the definition."""
    leaf, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    each = emo_loss(leaf, labels, costs, replace(options, reduction="none"))
    (gradient,) = torch.autograd.grad(each.sum(), leaf)
    expected = token_losses(exact, labels, costs, options)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), exact)
    return each.detach(), gradient, expected.detach(), expected_gradient


@pytest.mark.parametrize(("options", "form"), EACH)
@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0], ids=["flat", "spread", "peaked"])
def test_values_and_gradients_are_the_definitions(logits, labels, of_form, options: EMOOptions, form: str, scale):
    each, gradient, expected, expected_gradient = both(scale * logits, labels, of_form[form], options)
    assert torch.allclose(each.double(), expected, rtol=2e-5, atol=1e-6)
    error = (gradient - expected_gradient).abs().amax(1)
    # A lost token's distance is a sum near 1, off by 6e-8; with detached mass, a small cross-entropy divides it.
    floor = 3e-6 if options.target_mass == "detached" else 5e-7
    assert (error <= 1e-4 * expected_gradient.abs().amax(1) + floor).all()


@pytest.mark.parametrize(("options", "form"), EACH)
def test_float64_logits_give_the_definition_to_its_last_digits(logits, labels, of_form, options: EMOOptions, form: str):
    each, gradient, expected, expected_gradient = both(logits.double(), labels, of_form[form], options)
    assert torch.allclose(each, expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("options", "form"), EACH)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_rounded_once(logits, labels, of_form, options: EMOOptions, form: str, dtype):
    each, gradient, expected, expected_gradient = both((4 * logits).to(dtype), labels, of_form[form], options)
    assert each.dtype == torch.float32
    assert torch.allclose(each.double(), expected, rtol=2e-5, atol=1e-6)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize(("options", "form"), EACH)
def test_gradients_of_rows_sum_to_nothing(logits, labels, of_form, options: EMOOptions, form: str):
    if options.z_loss or options.softcap:
        pytest.skip("z-loss shifts all logits, and a softcap gives each logit its own slope")
    exact = both(logits.double(), labels, of_form[form], options)[1]
    assert (exact.sum(1).abs() <= 1e-14 * (1 + exact.abs().sum(1))).all()
    gradient = both(logits, labels, of_form[form], options)[1]
    # The terms α(p − q) and β ∂D/∂z are as large as α and β, and their rounding with them.
    parts = emo_loss_with_parts(logits, labels, of_form[form], options).parts
    largest = (parts.ce_weight + parts.value_weight).clamp_min(1.0)
    assert (gradient.sum(1).abs() <= 1e-6 * gradient.abs().sum(1) + 5e-7 * largest).all()


@pytest.mark.parametrize(("options", "form"), EACH)
@pytest.mark.parametrize("ahead", [-300.0, 20.0, 60.0], ids=["lost", "sure", "certain"])
def test_lost_and_sure_tokens_keep_their_digits(of_form, options: EMOOptions, form: str, ahead: float):
    """The label's logit is far below or above all others; some of the others, also neighbors, are masked."""
    labels = torch.arange(20)
    logits = functional.one_hot(labels, 37) * ahead + 0.01 * torch.arange(37.0)
    if not (options.label_smoothing or options.objective == "d2gpo"):
        logits[:, 30:33] = -torch.inf
    each, gradient, expected, expected_gradient = both(logits, labels, of_form[form], options)
    assert torch.isfinite(each).all()
    assert torch.isfinite(gradient).all()
    # At 60, float64 cannot represent the definition's 1 − p_t, nor float32 the slope of a saturated softcap.
    least = {-300.0: 1e-6, 20.0: 1e-14, 60.0: 1e-9 if options.softcap else 1e-20}[ahead]
    if options.target_mass == "detached":
        least = 1e-5
    if options.objective == "neighbor_smoothing" and options.softcap and ahead == 60.0:
        least = 1e-8  # a difference of probabilities up to 0.05, each rounded to 3e-9
    assert torch.allclose(each.double(), expected, rtol=1e-4, atol=least)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=1e-3, atol=least)


def _widened(costs: Costs) -> Costs:
    """Costs with five more tokens, which have no row and are in no other token's."""
    rows, ids = {"pad": (0, 0, 0, 5)}, {"pad": (0, 0, 0, 5), "value": -1}
    match costs:
        case DenseSmoothing():
            each = {name: functional.pad(getattr(costs, name), (0, 5)) for name in ("factors", "softened")}
            return replace(costs, vectors=functional.pad(costs.vectors, **rows), **each)
        case DenseCosts():
            return replace(costs, vectors=functional.pad(costs.vectors, **rows))
        case NeighborSmoothing():
            return replace(costs, ids=functional.pad(costs.ids, **ids), weights=functional.pad(costs.weights, **rows))
        case NeighborCosts():
            more = {"costs": functional.pad(costs.costs, (0, 0, 0, 5), value=1.0),
                    "far": functional.pad(costs.far, (0, 5), value=1.0)}  # fmt: skip
            return replace(costs, ids=functional.pad(costs.ids, **ids), **more)
    raise AssertionError(costs.form)


@pytest.mark.parametrize(("options", "form"), EACH)
def test_masked_tokens_count_for_nothing(logits, labels, of_form, options: EMOOptions, form: str):
    if options.label_smoothing or options.objective == "d2gpo":
        pytest.skip("if targets give every token probability, masked tokens make the loss infinite, as in PyTorch")
    wide = torch.cat([logits, torch.full((29, 5), -torch.inf)], dim=1)
    narrow_costs = of_form[form]
    more = None if narrow_costs is None else _widened(narrow_costs)
    leaf, narrow = wide.requires_grad_(), logits.clone().requires_grad_()
    loss, expected = emo_loss(leaf, labels, more, options), emo_loss(narrow, labels, narrow_costs, options)
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, narrow)
    assert torch.allclose(loss, expected)
    assert torch.allclose(gradient[:, :37], expected_gradient, atol=1e-8)
    assert (gradient[:, 37:] == 0).all()


@pytest.mark.parametrize(("options", "form"), EACH)
def test_a_constant_added_to_all_logits_costs_no_precision(logits, labels, of_form, options: EMOOptions, form: str):
    if options.softcap or options.z_loss:
        pytest.skip("a softcap and z-loss depend on a constant that is added to all logits")
    shifted = (256 * logits).round() / 256 + 8_192  # exact in float32
    each, gradient, expected, expected_gradient = both(shifted, labels, of_form[form], options)
    assert torch.allclose(each.double(), expected, rtol=2e-5, atol=2e-6)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=1e-4, atol=3e-6)


def test_sure_tokens_with_a_synonym_keep_the_digits_of_log(neighbors):
    """A near neighbor has all probability that the label does not; its log s is negligible next to its logit."""
    labels = WITH_NEIGHBORS
    near = neighbors.ids[labels, 0].long()
    costs = replace(neighbors, costs=neighbors.costs.index_fill(1, torch.tensor([0]), 0.01))
    logits = 60.0 * functional.one_hot(labels, 37) + 30.0 * functional.one_hot(near, 37) + 0.01 * torch.arange(37.0)
    options = EMOOptions(objective="log", reduction="none", **PURE)
    results = []
    for given in (logits, logits.double()):
        leaf = given.requires_grad_()
        results.append(torch.autograd.grad(emo_loss(leaf, labels, costs, options).sum(), leaf)[0].double())
    error = (results[0] - results[1]).abs().amax(1) / results[1].abs().amax(1)
    assert error.max() < 3e-5


def test_far_tokens_may_have_all_there_is_of_log(neighbors):
    """With so large a power, the similarities to the label are below float32's smallest numbers."""
    costs = replace(neighbors, far=torch.full_like(neighbors.far, 0.999))
    labels = WITH_NEIGHBORS
    logits = -300.0 * functional.one_hot(labels, 37) + 0.01 * torch.arange(37.0)
    logits.scatter_(1, neighbors.ids[labels].long(), -300.0)
    options = EMOOptions(objective="log", log_power=12.0, reduction="none", **PURE)
    for dtype in (torch.float32, torch.float64):
        each, gradient, expected, right = both(logits.to(dtype), labels, costs, options)
        assert torch.allclose(each.double(), expected, rtol=1e-5)
        assert torch.allclose(gradient.double(), right, atol=1e-4)


@pytest.mark.parametrize(
    ("objective", "form"),
    [
        *(("neighbor_smoothing", f"smoothing{what}") for what in ("", "-of-all", "-with-label", "-of-all-with-label")),
        ("log", "neighbors"),
        ("log", "dense"),
    ],
)
@pytest.mark.parametrize("mixing", ["fixed", "interpolate"])
def test_a_masked_label_is_infinitely_far(logits, of_form, objective: str, form: str, mixing: str):
    labels = torch.arange(20)
    masked = logits[:20].scatter(1, labels[:, None], -torch.inf)
    options = EMOOptions(objective=objective, mixing=mixing, weight=0.5, reduction="none")
    assert (emo_loss(masked, labels, of_form[form], options) == torch.inf).all()


@pytest.mark.parametrize(("options", "form"), EACH)
def test_a_token_of_no_weight_is_ignored_whatever_it_holds(logits, of_form, options: EMOOptions, form: str):
    labels, weights = torch.arange(7), torch.tensor([0.0, 0, 0, 1, 2, 1, 1])
    spoilt = logits[:7].clone()
    spoilt[:3, 0] = torch.tensor([-torch.inf, torch.inf, torch.nan])
    leaf, rest = spoilt.requires_grad_(), logits[3:7].clone().requires_grad_()
    loss = emo_loss(leaf, labels, of_form[form], options, token_weights=weights)
    expected = emo_loss(rest, labels[3:], of_form[form], options, token_weights=weights[3:])
    assert torch.allclose(loss, expected)
    (gradient,), (right,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, rest)
    assert torch.allclose(gradient[3:], right)
    assert (gradient[:3] == 0).all()


@pytest.mark.parametrize("form", ["dense", "neighbors"])
@pytest.mark.parametrize("mixing", ["emo1", "emo1_clamped", "emo2"])
def test_a_masked_label_is_infinitely_far_in_every_mixing(logits, of_form, form: str, mixing: str):
    masked = logits[:20].scatter(1, torch.arange(20)[:, None], -torch.inf)
    options = EMOOptions(mixing=mixing, reduction="none")
    assert (emo_loss(masked, torch.arange(20), of_form[form], options) == torch.inf).all()


def test_a_weight_of_nothing_takes_no_notice_of_an_infinite_distance(logits, neighbors):
    labels = torch.arange(20)
    masked = logits[:20].clone()
    masked[:, 36] = -torch.inf
    for mixing in ("fixed", "interpolate"):
        options = EMOOptions(objective="d2gpo", mixing=mixing, weight=0.0)
        leaf, plain = masked.clone().requires_grad_(), masked.clone().requires_grad_()
        loss, expected = emo_loss(leaf, labels, neighbors, options), functional.cross_entropy(plain, labels)
        assert torch.allclose(loss, expected)
        (gradient,), (right,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, plain)
        assert torch.allclose(gradient, right, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_a_masked_label_is_infinitely_far_under_smoothing(logits, smoothing: float):
    masked = logits[:20].scatter(1, torch.arange(20)[:, None], -torch.inf)
    options = EMOOptions(objective="ce", label_smoothing=smoothing, reduction="none")
    assert (emo_loss(masked, torch.arange(20), None, options) == torch.inf).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["emo-pure", "delta", "log", "neighbor-smoothing", "kernel"])
def test_gradcheck(logits, labels, of_form, name: str):
    given, forms = CASES[name]
    options = EMOOptions(**given, reduction="none")
    for form in forms:
        leaf = logits[:5].double().requires_grad_()
        assert torch.autograd.gradcheck(lambda z, c=of_form[form]: emo_loss(z, labels[:5], c, options), leaf)


def test_log_with_a_zero_similarity_of_all_others_is_cross_entropy(logits, labels):
    options = EMOOptions(objective="log", mixing="interpolate", weight=1.0)
    loss = emo_loss(100 * logits, labels, DenseCosts(torch.eye(37)), options)
    assert torch.allclose(loss, functional.cross_entropy(100 * logits, labels), rtol=1e-6)


def test_cross_entropy_and_smoothing_are_pytorchs(logits, labels):
    for smoothing in (0.0, 0.1):
        leaf, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = emo_loss(leaf, labels, None, EMOOptions(objective="ce", label_smoothing=smoothing))
        expected = functional.cross_entropy(plain, labels, label_smoothing=smoothing)
        assert torch.allclose(loss, expected, rtol=1e-6)
        assert torch.allclose(torch.autograd.grad(loss, leaf)[0], torch.autograd.grad(expected, plain)[0], atol=1e-8)


def test_three_objectives_have_the_gradient_of_the_miss_probability(logits, labels):
    """TaiLr with γ = 1, MixCE with η = 0, and 1 − p_t itself have one gradient."""
    gradients = []
    for given in ({"objective": "tailr", "tailr_gamma": 1.0}, {"objective": "mixce", "mixce_ratio": 0.0},
                  {"objective": "delta", **PURE}):  # fmt: skip
        leaf = logits.clone().requires_grad_()
        emo_loss(leaf, labels, None, EMOOptions(**given)).backward()
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-8)
    assert torch.allclose(gradients[1], gradients[2], atol=1e-8)


def test_the_bound_of_one_minus_the_cosine_is_another_number(logits, labels, costs):
    """1 − ⟨ē_p, e_t⟩ is K; 1 − cos(ē_p, e_t) is not, because ē_p is shorter than 1."""
    kept = (labels >= 0) & (labels != 4) & (labels != 9)
    parts = emo_loss_with_parts(logits, labels, costs, EMOOptions()).parts
    mean = torch.softmax(logits, 1) @ costs.vectors
    target = costs.vectors[labels.clamp_min(0)]
    assert torch.allclose(parts.value[kept], 1 - (mean * target).sum(1)[kept], atol=1e-5)
    assert (parts.value[kept] - 1 + functional.cosine_similarity(mean, target)[kept]).abs().max() > 0.1


def test_neighbor_errors_are_within_the_reported_bounds(logits, labels, costs, neighbors):
    kept = labels >= 0
    exact = emo_loss_with_parts(logits, labels, costs, EMOOptions()).parts.value
    parts = emo_loss_with_parts(logits, labels, neighbors, EMOOptions()).parts
    far = 1 - torch.softmax(logits, 1).gather(1, labels.clamp_min(0)[:, None])[:, 0] - parts.neighbor_mass
    bound = far * neighbors.deviation[labels.clamp_min(0)]
    assert ((parts.value - exact).abs()[kept] <= bound[kept] + 1e-6).all()
    assert (parts.neighbor_mass[kept] >= 0).all()
    assert torch.isnan(emo_loss_with_parts(logits, labels, costs, EMOOptions()).parts.neighbor_mass[kept]).all()


def test_all_neighbors_are_dense_costs(logits, labels, costs):
    near, ids = costs.rows(torch.arange(37)).fill_diagonal_(torch.inf).topk(36, largest=False)
    every = NeighborCosts.from_table(costs, ids, near, measure=True)
    for mixing in ("emo1", "emo2", "fixed"):
        options = EMOOptions(mixing=mixing)
        assert torch.allclose(emo_loss(logits, labels, every, options), emo_loss(logits, labels, costs, options))


def test_an_objective_that_a_form_lacks_is_refused_and_a_suitable_form_named(logits, labels, costs, neighbors):
    with pytest.raises(UsageError, match=r"'kernel' does not support neighbors costs") as caught:
        emo_loss(logits, labels, neighbors, EMOOptions(objective="kernel"))
    assert "dense" in caught.value.hint
    with pytest.raises(UsageError, match="'d2gpo' does not support dense costs") as caught:
        emo_loss(logits, labels, costs, EMOOptions(objective="d2gpo", mixing="fixed"))
    assert "neighbors" in caught.value.hint
    with pytest.raises(UsageError, match="needs 12 neighbors per token, but there are 8") as caught:
        emo_loss(logits, labels, neighbors, EMOOptions(objective="d2gpo", mixing="fixed", d2gpo_std=2))
    assert "k=12" in caught.value.hint
    with pytest.raises(UsageError, match="needs costs"):
        emo_loss(logits, labels, None, EMOOptions())
