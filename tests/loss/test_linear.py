"""The linear loss equals the loss of full logits, with less memory, and has gradients for hidden states and head."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import (
    EMOLoss,
    EMOOptions,
    LinearEMOLoss,
    Schedule,
    SoftTargets,
    emo_loss,
    emo_loss_with_parts,
    linear_emo_loss,
    linear_emo_loss_with_parts,
    open_costs,
)
from tests.loss.oracle import token_losses
from tests.loss.test_objectives import EACH

OPTIONS = EMOOptions(chunk_rows=7)


@pytest.fixture
def head(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [29, 11], a weight [37, 11], and a bias."""
    return (
        torch.randn(29, 11, generator=generator),
        torch.randn(37, 11, generator=generator),
        torch.randn(37, generator=generator),
    )


def leaves(tensors: tuple[Tensor, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors]


@pytest.mark.parametrize(("options", "form"), EACH)
def test_every_objective_is_that_of_full_logits(head, labels, of_form, options: EMOOptions, form: str):
    ours, theirs = leaves(head), leaves(head)
    options = replace(options, chunk_rows=7)
    loss = linear_emo_loss(ours[0], ours[1], labels, of_form[form], options, bias=ours[2])
    expected = emo_loss(functional.linear(*theirs), labels, of_form[form], options)
    assert torch.allclose(loss, expected, rtol=1e-6)
    for mine, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6 * other.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mixing", ["emo1_clamped", "emo2", "fixed"])
def test_errors_are_within_those_of_the_same_type(head, labels, costs, mixing: str, dtype: torch.dtype):
    """The distance from float64 is at most that of the definition computed in the same type, plus a tolerance."""
    options = EMOOptions(mixing=mixing, chunk_rows=7, reduction="sum")
    rounded = [tensor.to(dtype) for tensor in head]
    exact, same, ours = (
        leaves(tuple(rounded), torch.float64),
        leaves(tuple(rounded), dtype),
        leaves(tuple(rounded), dtype),
    )
    truth = token_losses(functional.linear(*exact), labels, costs, options).sum()
    reference = token_losses(functional.linear(*same).float(), labels, costs, options).sum()
    loss = linear_emo_loss(ours[0], ours[1], labels, costs, options, bias=ours[2])
    forward, backward = (1e-5, 5e-4) if dtype == torch.float32 else (1e-2, 1e-2)
    assert loss.dtype == torch.float32
    assert (loss - truth).abs() <= (reference - truth).abs() + forward * truth.abs()
    true_grads = torch.autograd.grad(truth, exact)
    for mine, other, right in zip(
        torch.autograd.grad(loss, ours), torch.autograd.grad(reference, same), true_grads, strict=True
    ):
        assert mine.dtype == dtype
        size = right.abs().max()
        assert (mine - right).abs().max() <= (other - right).abs().max() + backward * size


@pytest.mark.parametrize("wanted", [w for w in product([True, False], repeat=3) if any(w)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_only_the_required_gradients_are_computed(head, labels, costs, wanted, reduction: str):
    options = replace(OPTIONS, reduction=reduction)
    every, some = leaves(head), leaves(head)
    for tensor, needed in zip(some, wanted, strict=True):
        tensor.requires_grad_(needed)
    full = linear_emo_loss(every[0], every[1], labels, costs, options, bias=every[2])
    part = linear_emo_loss(some[0], some[1], labels, costs, options, bias=some[2])
    full.sum().backward()
    part.sum().backward()
    for mine, other, needed in zip(some, every, wanted, strict=True):
        assert (mine.grad is not None) == needed
        if needed:
            assert torch.equal(mine.grad, other.grad)


def test_no_memory_is_kept_if_no_gradient_is_needed(head, labels, costs):
    assert not linear_emo_loss(*head[:2], labels, costs).requires_grad
    with torch.no_grad():
        assert not linear_emo_loss(*leaves(head[:2]), labels, costs).requires_grad


@pytest.mark.parametrize("chunk_rows", [1, 4, 7, 22, 1_000])
def test_the_size_of_blocks_changes_nothing(head, labels, costs, chunk_rows: int):
    ours, whole = leaves(head[:2]), leaves(head[:2])
    loss = linear_emo_loss(*ours, labels, costs, replace(OPTIONS, chunk_rows=chunk_rows))
    expected = linear_emo_loss(*whole, labels, costs)
    assert torch.allclose(loss, expected, rtol=1e-6)
    for mine, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, whole), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("factor", [1.0, 2.0**16])
def test_each_tokens_gradient_has_its_own_factor(head, labels, costs, generator, factor: float):
    """A gradient that is already summed over tokens could not have these factors."""
    factors = factor * torch.rand(29, generator=generator)
    ours, theirs = leaves(head[:2]), leaves(head[:2])
    options = replace(OPTIONS, reduction="none")
    (linear_emo_loss(*ours, labels, costs, options) * factors).sum().backward()
    (emo_loss(theirs[0] @ theirs[1].T, labels, costs, options) * factors).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-7 * factor)


def test_operations_after_the_loss_scale_the_gradient(head, labels, costs):
    plain, scaled = leaves(head[:2]), leaves(head[:2])
    linear_emo_loss(*plain, labels, costs).backward()
    (3 * linear_emo_loss(*scaled, labels, costs) - 1).backward()
    for mine, other in zip(scaled, plain, strict=True):
        assert torch.allclose(mine.grad, 3 * other.grad)


def test_half_precision_gradients_survive_a_scaler(head, labels, costs):
    """In float16, a token's small share of a large batch must not underflow, nor a factor of 2^16 overflow."""
    many = [head[0].repeat(3_000, 1), head[1]]
    ours, wide = [t.half().requires_grad_() for t in many], leaves(tuple(t.half().float() for t in many))
    labels = labels.repeat(3_000)
    (linear_emo_loss(*ours, labels, costs) * 2.0**16).backward()
    (linear_emo_loss(*wide, labels, costs) * 2.0**16).backward()
    for mine, other in zip(ours, wide, strict=True):
        assert torch.isfinite(mine.grad).all()
        assert (mine.grad - other.grad).abs().max() <= 4e-3 * other.grad.abs().max()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_second_backward_pass_is_as_good_as_the_first(head, labels, costs, reduction: str):
    ours = leaves(head[:2])
    loss = linear_emo_loss(*ours, labels, costs, replace(OPTIONS, reduction=reduction)).sum()
    first = torch.autograd.grad(loss, ours, retain_graph=True)
    second = torch.autograd.grad(2 * loss, ours)
    for one, two in zip(first, second, strict=True):
        assert torch.allclose(2 * one, two)


def test_weights_of_tokens_weigh_the_mean(head, labels, costs, generator):
    weights = torch.rand(29, generator=generator)
    each = linear_emo_loss(*head[:2], labels, costs, replace(OPTIONS, reduction="none"))
    kept = labels != -100
    ours, theirs = leaves(head[:2]), leaves(head[:2])
    loss = linear_emo_loss(*ours, labels, costs, OPTIONS, token_weights=weights)
    assert torch.allclose(loss, (each * weights)[kept].sum() / weights[kept].sum())
    expected = emo_loss(theirs[0] @ theirs[1].T, labels, costs, OPTIONS, token_weights=weights)
    for mine, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-7)
    assert linear_emo_loss(*head[:2], labels, costs, token_weights=torch.zeros(29)) == 0


def test_shifted_labels_are_the_next_positions(head, labels, costs, generator):
    hidden, ids = head[0][:28].reshape(4, 7, 11), torch.randint(0, 37, (4, 7), generator=generator)
    weights = torch.rand(4, 7, generator=generator)
    shifted = linear_emo_loss(hidden, head[1], ids, costs, replace(OPTIONS, shift=True), token_weights=weights)
    by_hand = linear_emo_loss(hidden[:, :-1], head[1], ids[:, 1:], costs, OPTIONS, token_weights=weights[:, 1:])
    assert torch.allclose(shifted, by_hand)
    each = linear_emo_loss(hidden, head[1], ids, costs, replace(OPTIONS, shift=True, reduction="none"))
    assert each.shape == (4, 7)
    assert (each[:, -1] == 0).all()
    full = emo_loss(hidden @ head[1].T, ids, costs, replace(OPTIONS, shift=True))
    assert torch.allclose(full, emo_loss(hidden[:, :-1] @ head[1].T, ids[:, 1:], costs, OPTIONS))


def test_parts_are_those_of_full_logits(head, labels, costs, neighbors):
    for of in (costs, neighbors):
        parts = linear_emo_loss_with_parts(*head[:2], labels, of, OPTIONS).parts
        expected = emo_loss_with_parts(head[0] @ head[1].T, labels, of, OPTIONS).parts
        for mine, other in zip(parts, expected, strict=True):
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6, equal_nan=True)
            assert not mine.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_batches_without_any_label(head, costs, reduction: str):
    options = replace(OPTIONS, reduction=reduction)
    ours = leaves(head[:2])
    spoiled = (ours[0] + torch.nan, ours[1])
    loss = linear_emo_loss(*spoiled, torch.full((29,), -100), costs, options).sum()
    assert loss == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, ours[1:]))
    none = torch.empty(0, 11, requires_grad=True)
    empty = linear_emo_loss(none, ours[1], torch.empty(0, dtype=torch.long), costs, options).sum()
    assert empty == 0
    empty.backward()
    assert (ours[1].grad == 0).all()


def test_autocast_takes_products_in_its_type_and_nothing_else(head, labels, costs):
    ours, cast = leaves(head[:2]), leaves(tuple(t.bfloat16() for t in head[:2]), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_emo_loss(*ours, labels, costs, OPTIONS)
    expected = linear_emo_loss(*cast, labels, costs, OPTIONS)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    for mine, other in zip(ours, cast, strict=True):
        assert mine.grad.dtype == torch.float32
        assert torch.allclose(mine.grad, other.grad.float(), rtol=2e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_step_is_one_graph_with_the_same_loss(head, labels, costs, generator, backend: str):
    weights = torch.rand(len(labels), generator=generator)
    linear, full = LinearEMOLoss(costs, reduction="sum"), copy.deepcopy(EMOLoss(costs))
    layer = nn.Linear(11, 11)

    def step(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        inputs = torch.tanh(layer(hidden))
        return 2 * linear(inputs, weight, labels, bias=bias, token_weights=weights) + full(inputs @ weight.T, labels)

    ours, theirs = leaves(head), leaves(head)
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    loss, expected = compiled(*ours), step(*theirs)
    assert torch.allclose(loss, expected)
    for mine, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(compiled(*ours), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(compiled(*ours), step(*theirs))


@pytest.mark.slow
def test_a_compiled_step_keeps_small_float16_gradients_for_a_scaler(costs, generator):
    logits = torch.randn(512, 37, generator=generator).half()
    hidden, weight = torch.randn(512, 11, generator=generator).half(), torch.randn(37, 11, generator=generator).half()
    labels, full, linear = torch.randint(0, 37, (512,), generator=generator), EMOLoss(costs), LinearEMOLoss(costs)

    def step(logits: Tensor, hidden: Tensor, weight: Tensor, scale: float) -> Tensor:
        return scale * (full(logits, labels) + linear(hidden, weight, labels))

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for scale in (1e-4, 30_000.0):
        ours, theirs = leaves((logits, hidden, weight), torch.float16), leaves((logits, hidden, weight), torch.float16)
        mine = torch.autograd.grad(1_000 * compiled(*ours, scale), ours)
        for one, other in zip(mine, torch.autograd.grad(1_000 * step(*theirs, scale), theirs), strict=True):
            assert one.dtype == torch.float16
            assert torch.allclose(one, other, rtol=2e-3, atol=1e-7)


@pytest.mark.slow
def test_a_deleted_loss_is_named_by_a_graph_that_calls_it(head, labels, costs):
    from costbank.loss.compiled import compiled_loss

    number = LinearEMOLoss(costs)._number
    with pytest.raises(UsageError, match="no longer exists") as caught:
        compiled_loss(number, head[0], head[1], labels, None, None, None)
    assert "keep the loss" in caught.value.hint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # from PyTorch, while it compiles
def test_a_loss_for_each_token_and_soft_targets_break_the_graph(head, labels, costs):
    each, soft = LinearEMOLoss(costs, reduction="none"), EMOLoss(costs)
    teacher = SoftTargets(torch.softmax(head[0] @ head[1].T, dim=1))

    def step(hidden: Tensor, weight: Tensor) -> Tensor:
        inputs = torch.tanh(hidden)
        return each(inputs, weight, labels).sum() + soft(inputs @ weight.T, teacher)

    ours, theirs = leaves(head[:2]), leaves(head[:2])
    loss, expected = torch.compile(step, backend="aot_eager")(*ours), step(*theirs)
    loss.backward()
    expected.backward()
    assert torch.allclose(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=1e-6)


@pytest.mark.slow
def test_a_schedule_does_not_compile_each_step_anew(head, labels, costs):
    from torch._dynamo.testing import CompileCounter  # loads the compiler, which takes seconds

    counter = CompileCounter()
    module = LinearEMOLoss(costs, mixing="fixed", weight=Schedule(0.0, 1.0, steps=10))
    compiled = torch.compile(lambda step: module(head[0], head[1], labels, step=step), backend=counter, fullgraph=True)
    for step in range(5):
        assert torch.allclose(compiled(step), module(head[0], head[1], labels, step=step))
    assert counter.frame_count <= 3


@pytest.mark.parametrize("sums", ["nearest", "stochastic"])
def test_a_gradient_of_the_weight_in_bfloat16_is_rounded_once_more_for_each_block(head, labels, costs, sums: str):
    rounded = [tensor.bfloat16() for tensor in head[:2]]
    grads = {}
    for name in ("wide", sums):
        ours = leaves(tuple(rounded), torch.bfloat16)
        loss = linear_emo_loss(*ours, labels, costs, replace(OPTIONS, weight_gradient=name))
        grads[name] = torch.autograd.grad(loss, ours)
    assert torch.equal(grads[sums][0], grads["wide"][0])
    wide, narrow = (grads[name][1].float() for name in ("wide", sums))
    assert not torch.equal(wide, narrow)
    # Five blocks, and a rounding to the nearest at the end. Half an epsilon is the largest error of the nearest number.
    each = torch.finfo(torch.bfloat16).eps * (1 if sums == "stochastic" else 0.5)
    assert (wide - narrow).abs().max() <= (5 * each + torch.finfo(torch.bfloat16).eps) * wide.abs().max()
    full = leaves(head[:2])
    alike = replace(OPTIONS, weight_gradient=sums)
    wide = torch.autograd.grad(linear_emo_loss(*full, labels, costs, OPTIONS), full)
    for one, other in zip(torch.autograd.grad(linear_emo_loss(*full, labels, costs, alike), full), wide, strict=True):
        assert torch.equal(one, other)


def test_options_refuse_ignored_tokens_that_are_neither_kept_nor_skipped():
    with pytest.raises(UsageError, match="skip_ignored is 'no'"):
        EMOOptions(skip_ignored="no")


def test_options_refuse_other_sums_of_the_weights_gradient():
    with pytest.raises(UsageError, match="weight_gradient is 'bfloat16'") as caught:
        EMOOptions(weight_gradient="bfloat16")
    assert "wide, nearest, stochastic" in caught.value.hint


def test_float64_accumulation_is_closer(head, labels, costs):
    exact = linear_emo_loss(*(t.double() for t in head[:2]), labels, costs)
    wide = linear_emo_loss(*head[:2], labels, costs, EMOOptions(accumulate="float64"))
    assert wide.dtype == torch.float64
    assert (wide - exact).abs() <= 1e-6 * exact


def test_a_schedule_is_followed_by_step(head, labels, costs):
    scheduled = LinearEMOLoss(costs, mixing="fixed", weight=Schedule(0.0, 2.0, steps=10, begin=5))
    for step, weight in ((0, 0.0), (5, 0.0), (10, 1.0), (15, 2.0), (99, 2.0)):
        expected = linear_emo_loss(*head[:2], labels, costs, EMOOptions(mixing="fixed", weight=weight))
        assert torch.allclose(scheduled(*head[:2], labels, step=step), expected)
    with pytest.raises(UsageError, match="no step is given") as caught:
        scheduled(*head[:2], labels)
    assert "step=n" in caught.value.hint
    assert Schedule(0.0, 1.0, 10, shape="cosine").at(5) == pytest.approx(0.5)
    assert Schedule(0.2, 1.0, 0, begin=3).at(3) == 1.0


def test_arguments_that_do_not_fit_are_refused(head, labels, costs, news_bank: Bank):
    hidden, weight, bias = head
    with pytest.raises(ShapeError, match=r"\[29, 11\] with a weight of shape \[11, 37\]"):
        linear_emo_loss(hidden, weight.T, labels, costs)
    with pytest.raises(ShapeError, match=r"a bias of shape \[36\]"):
        linear_emo_loss(hidden, weight, labels, costs, bias=bias[1:])
    with pytest.raises(ShapeError, match=r"37 wide.*2,000 tokens"):
        LinearEMOLoss(news_bank)(hidden, weight, labels)
    with pytest.raises(UsageError, match=r"the weight is torch\.bfloat16") as caught:
        linear_emo_loss(hidden, weight.bfloat16(), labels, costs)
    assert "autocast" in caught.value.hint
    with pytest.raises(UsageError, match="weight on meta"):
        linear_emo_loss(hidden, weight.to("meta"), labels, costs)
    with pytest.raises(UsageError, match="costs on meta"):
        linear_emo_loss(hidden, weight, labels, costs.to("meta"))
    with pytest.raises(ShapeError, match=r"token_weights of shape \[28\]"):
        linear_emo_loss(hidden, weight, labels, costs, token_weights=torch.ones(28))
    with pytest.raises(UsageError, match="label 37 is neither"):
        linear_emo_loss(hidden, weight, torch.where(labels == -100, 37, labels), costs)
    with pytest.raises(UsageError, match="contain NaN or inf"):
        linear_emo_loss(hidden * torch.inf, weight, labels, costs)


def test_a_checkpoint_of_other_costs_is_refused(costs, neighbors):
    saved = LinearEMOLoss(costs).state_dict()
    LinearEMOLoss(costs).load_state_dict(saved)
    with pytest.raises(UsageError, match=r"unnamed@[0-9a-f]{16} dense.*unnamed@[0-9a-f]{16} neighbors") as caught:
        LinearEMOLoss(neighbors).load_state_dict(saved)
    assert "on purpose" in caught.value.hint
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "loss": EMOLoss(costs)})
    before = {name: value for name, value in model.state_dict().items() if not name.startswith("loss")}
    model.load_state_dict(before)


@pytest.mark.parametrize(
    ("objective", "form"), [("emo", "dense"), ("log", "dense"), ("neighbor_smoothing", "smoothing-of-all")]
)
@pytest.mark.parametrize("distinct", [1, 2, 5, 30])
def test_labels_that_come_again_and_again_change_nothing(of_form, generator, objective: str, form: str, distinct: int):
    """The costs of a label are computed once per block, for all rows with this label."""
    hidden, weight = torch.randn(40, 11, generator=generator), torch.randn(37, 11, generator=generator)
    labels = torch.randint(0, distinct, (40,), generator=generator)
    options, costs = EMOOptions(objective=objective, mixing="fixed", reduction="none", chunk_rows=13), of_form[form]
    ours, theirs = leaves((hidden, weight)), leaves((hidden, weight))
    together = linear_emo_loss(*ours, labels, costs, options)
    alone = torch.cat(
        [linear_emo_loss(theirs[0][i : i + 1], theirs[1], labels[i : i + 1], costs, options) for i in range(40)]
    )
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6)
    for mine, other in zip(
        torch.autograd.grad(together.sum(), ours), torch.autograd.grad(alone.sum(), theirs), strict=True
    ):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_knows_its_bank_under_another_name(costs):
    saved = LinearEMOLoss(replace(costs, bank="news@0123456789abcdef")).state_dict()
    LinearEMOLoss(replace(costs, bank="gazette@0123456789abcdef")).load_state_dict(saved)
    with pytest.raises(UsageError, match="news@0123456789abcdef"):
        LinearEMOLoss(replace(costs, bank="news@0123456789abcdee")).load_state_dict(saved)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_any_size_leave_float16_gradients_their_digits(head, labels, costs, generator, size, reduction):
    """Scaling all weights changes nothing in a mean, and otherwise only the size of the gradient."""
    weights = size * torch.rand(29, generator=generator)
    options = replace(OPTIONS, reduction=reduction)
    halves = tuple(tensor.half() for tensor in head[:2])
    ours, logits, exact = leaves(halves, torch.float16), leaves(halves, torch.float16), leaves(halves, torch.float64)
    scaler = 2.0**10 if reduction == "mean" else 2.0**10 / size
    (scaler * linear_emo_loss(*ours, labels, costs, options, token_weights=weights).sum()).backward()
    full = emo_loss(logits[0] @ logits[1].T, labels, costs, options, token_weights=weights)
    (scaler * full.sum()).backward()
    (scaler * linear_emo_loss(*exact, labels, costs, options, token_weights=weights).sum()).backward()
    for mine, other, right in zip(ours, logits, exact, strict=True):
        for grad in (mine.grad, other.grad):
            assert (grad - right.grad).abs().max() <= 5e-3 * right.grad.abs().max()


def test_a_weight_of_zero_leaves_a_lost_token_out(head, labels, costs):
    """The token's label is masked, so its loss is infinite."""
    logits, weights = head[0] @ head[1].T, torch.ones(29)
    logits[3, labels[3]] = -torch.inf
    weights[3] = 0
    kept = torch.where(torch.arange(29) == 3, -100, labels)
    loss = emo_loss(logits, labels, costs, token_weights=weights)
    assert torch.allclose(loss, emo_loss(logits, kept, costs))


def test_small_integer_labels_can_be_shifted(head, costs, generator):
    ids = torch.randint(0, 37, (4, 7), generator=generator)
    hidden, options = head[0][:28].reshape(4, 7, 11), replace(OPTIONS, shift=True)
    expected = linear_emo_loss(hidden, head[1], ids, costs, options)
    assert torch.equal(linear_emo_loss(hidden, head[1], ids.to(torch.uint8), costs, options), expected)
    assert linear_emo_loss(hidden[:, :0], head[1], ids[:, :0], costs, options) == 0
    with pytest.raises(ShapeError, match=r"labels of shape \[3, 7\] for \[4, 7\]"):
        linear_emo_loss(hidden, head[1], ids[:3], costs, options)


def test_impossible_options_are_refused_when_a_loss_is_created(costs, neighbors, news_bank: Bank):
    with pytest.raises(UsageError, match="'kernel' does not support neighbors costs"):
        LinearEMOLoss(neighbors, objective="kernel")
    with pytest.raises(UsageError, match="of type str") as caught:
        EMOLoss("my-bank")  # pyright: ignore[reportArgumentType]
    assert "open_bank" in caught.value.hint
    with pytest.raises(UsageError, match=r"weight is 0\.5, but mixing 'emo1_clamped'"):
        EMOLoss(costs, weight=0.5)
    with pytest.raises(UsageError, match="k=3 does not apply to form='dense'"):
        open_costs(news_bank, k=3)


def test_a_loss_that_counts_for_nothing_has_no_gradient_though_it_be_infinite(costs):
    """The factor of 0 is known only in the backward pass; `emo1` gives the cost of an infinite loss infinite weight."""
    g = torch.Generator().manual_seed(2)
    hidden, weight, labels = torch.randn(3, 5, generator=g), torch.randn(37, 5, generator=g), torch.tensor([3, 5, 6])
    bias = torch.zeros(37).index_fill(0, torch.tensor([3]), -torch.inf)
    options = EMOOptions(mixing="emo1", reduction="none")
    for of_logits in (False, True):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        if of_logits:
            logits = (leaves[0] @ leaves[1].T + bias).detach().requires_grad_()
            leaves, losses = [logits], emo_loss(logits, labels, costs, options)
        else:
            losses = linear_emo_loss(*leaves, labels, costs, options, bias=bias)
        assert losses.isinf().tolist() == [True, False, False]
        grads = torch.autograd.grad(losses[1:].sum(), leaves)
        assert all(torch.isfinite(grad).all() for grad in grads)
        assert (grads[0][0] == 0).all()
        assert (grads[0][1] != 0).any()
