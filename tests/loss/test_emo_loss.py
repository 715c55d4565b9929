import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from costbank.loss import DenseCosts, EMOOptions, emo_loss, emo_loss_with_parts, linear_emo_loss_with_parts
from costbank.loss.engine.blocks import BlockPlan, block_losses
from costbank.loss.engine.objectives import objective_of
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.workspace import Workspace
from tests.loss.oracle import cost_matrix, token_losses

MIXINGS = ("fixed", "emo1", "emo1_clamped", "emo2")


def _value_and_gradient(
    logits: Tensor, labels: Tensor, costs: DenseCosts, options: EMOOptions
) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = emo_loss(leaf, labels, costs, options)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def _oracle(logits: Tensor, labels: Tensor, costs: DenseCosts, mixing: str) -> tuple[Tensor, Tensor]:
    leaf = logits.double().requires_grad_()
    losses = token_losses(leaf, labels, costs, EMOOptions(mixing=mixing))
    loss = losses.sum() / max(1, int((labels != -100).sum()))
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("scale", [1.0, 12.0], ids=["spread", "peaked"])
def test_values_and_gradients_are_the_oracles(logits, labels, costs, mixing: str, scale: float):
    loss, gradient = _value_and_gradient(scale * logits, labels, costs, EMOOptions(mixing=mixing))
    expected, expected_gradient = _oracle(scale * logits, labels, costs, mixing)
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    error = (gradient - expected_gradient).abs().amax(1)
    assert (error <= 5e-4 * expected_gradient.abs().amax(1) + 1e-15).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_float64_logits_are_computed_in_float64(logits, labels, costs, mixing: str):
    loss, gradient = _value_and_gradient(logits.double(), labels, costs, EMOOptions(mixing=mixing))
    expected, expected_gradient = _oracle(logits, labels, costs, mixing)
    assert loss.dtype == torch.float64
    assert torch.allclose(loss, expected, rtol=1e-13)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-14)


def test_gradcheck_of_the_mixing_without_detached_weights(logits, labels, costs):
    options = EMOOptions(mixing="fixed", weight=0.7, reduction="none")
    leaf = logits[:6].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: emo_loss(z, labels[:6], costs, options), leaf)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_lose_no_more_than_their_rounding(logits, labels, costs, mixing: str, dtype: torch.dtype):
    rounded = (2 * logits).to(dtype)
    loss, gradient = _value_and_gradient(rounded, labels, costs, EMOOptions(mixing=mixing))
    expected, expected_gradient = _oracle(rounded, labels, costs, mixing)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    assert gradient.dtype == dtype
    # Gradients below 0.1 in half precision are within one rounding of the exact ones.
    assert torch.allclose(gradient.double(), expected_gradient, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


def test_a_confident_token_keeps_its_small_cost():
    """p_t is 1 − 2e-9: in float32, K would be 0 if it were computed as 1 − p_t − …"""
    rows = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    logits, labels = torch.tensor([[20.0, 0.0, -5.0]]), torch.tensor([0])
    parts = emo_loss_with_parts(logits, labels, DenseCosts(rows)).parts
    probabilities = torch.softmax(logits.double(), 1)[0]
    expected = probabilities[1] * 1 + probabilities[2] * (1 - 0.5**0.5)
    assert parts.value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_distinct_rows_at_right_angles_give_the_probability_of_a_miss(logits, labels):
    parts = emo_loss_with_parts(logits, labels, DenseCosts(torch.eye(37))).parts
    kept = labels >= 0
    hit = torch.softmax(logits.double(), 1).gather(1, labels.clamp_min(0)[:, None])[:, 0]
    assert torch.allclose(parts.value.double()[kept], 1 - hit[kept], atol=1e-6)


def test_equal_rows_give_no_cost(logits, labels):
    rows = torch.full((37, 4), 0.5)
    parts = emo_loss_with_parts(logits, labels, DenseCosts(rows)).parts
    assert parts.value.abs().max() < 1e-6


def test_no_weight_on_the_cost_is_cross_entropy(logits, labels, costs):
    loss, gradient = _value_and_gradient(logits, labels, costs, EMOOptions(mixing="fixed", weight=0.0))
    leaf = logits.clone().requires_grad_()
    expected = functional.cross_entropy(leaf, labels)
    expected.backward()
    assert torch.allclose(loss, expected.detach(), rtol=1e-6)
    assert torch.allclose(gradient, leaf.grad, atol=1e-8)


def test_values_that_hide_the_effect_are_as_documented(logits, labels, costs):
    for mixing, factor, name in (("emo1", 1, "ce"), ("emo2", 2, "value")):
        result = emo_loss_with_parts(logits, labels, costs, EMOOptions(mixing=mixing, reduction="none"))
        assert torch.allclose(result.loss, factor * getattr(result.parts, name), rtol=1e-6)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_gradient_of_each_row_sums_to_zero(logits, labels, costs, mixing: str):
    _, gradient = _value_and_gradient(logits, labels, costs, EMOOptions(mixing=mixing, reduction="sum"))
    assert (gradient.sum(1).abs() <= 1e-5 * gradient.abs().sum(1)).all()


def test_tokens_without_a_vector_cost_one_and_stay_finite(logits, costs):
    labels = torch.full((29,), 4)
    parts = emo_loss_with_parts(logits, labels, costs).parts
    miss = 1 - torch.softmax(logits, 1)[:, 4]
    assert torch.allclose(parts.value, miss, atol=1e-6)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_masked_vocabulary_entries_count_for_nothing(logits, labels, costs, mixing: str):
    wide = torch.cat([logits, torch.full((29, 5), -torch.inf)], dim=1)
    padded = DenseCosts(torch.cat([costs.vectors, torch.zeros(5, 6)]))
    loss, gradient = _value_and_gradient(wide, labels, padded, EMOOptions(mixing=mixing))
    expected, expected_gradient = _value_and_gradient(logits, labels, costs, EMOOptions(mixing=mixing))
    assert torch.allclose(loss, expected)
    assert torch.allclose(gradient[:, :37], expected_gradient)
    assert (gradient[:, 37:] == 0).all()


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_batch_of_ignored_tokens_has_loss_zero_and_gradient_zero(logits, costs, mixing: str):
    labels = torch.full((29,), -100)
    loss, gradient = _value_and_gradient(torch.full_like(logits, torch.nan), labels, costs, EMOOptions(mixing=mixing))
    assert loss == 0
    assert (gradient == 0).all()


def test_an_empty_batch_has_loss_zero(costs):
    loss, gradient = _value_and_gradient(torch.empty(0, 37), torch.empty(0, dtype=torch.long), costs, EMOOptions())
    assert loss == 0
    assert gradient.shape == (0, 37)


def test_any_ignore_index_will_do(logits, labels, costs):
    expected, expected_gradient = _value_and_gradient(logits, labels, costs, EMOOptions())
    free = next(i for i in range(37) if i not in labels.tolist())
    for index in (free, -1, 1_000):
        changed = torch.where(labels == -100, index, labels)
        loss, gradient = _value_and_gradient(logits, changed, costs, EMOOptions(ignore_index=index))
        assert torch.equal(loss, expected)
        assert torch.equal(gradient, expected_gradient)


def test_reductions_agree_with_each_other(logits, labels, costs):
    each = emo_loss(logits, labels, costs, EMOOptions(reduction="none"))
    assert each.shape == labels.shape
    assert (each[labels == -100] == 0).all()
    assert torch.allclose(emo_loss(logits, labels, costs, EMOOptions(reduction="sum")), each.sum())
    assert torch.allclose(emo_loss(logits, labels, costs), each.sum() / (labels != -100).sum())


def test_the_gradient_follows_what_comes_after_the_loss(logits, labels, costs, generator):
    weights = torch.rand(29, generator=generator)
    leaf, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (emo_loss(leaf, labels, costs, EMOOptions(reduction="none")) * weights).sum().backward()
    emo_loss(plain, labels, costs, EMOOptions(reduction="sum")).backward()
    assert leaf.grad is not None
    assert plain.grad is not None
    assert torch.allclose(leaf.grad, plain.grad * weights[:, None])


def test_backward_can_be_run_again_but_not_differentiated(logits, labels, costs):
    leaf = logits.clone().requires_grad_()
    loss = emo_loss(leaf, labels, costs)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(loss + 0 * loss * leaf.sum(), leaf, create_graph=True)
    assert torch.allclose(first, second)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_more_rows_than_a_block_change_nothing(costs, generator):
    logits, labels = torch.randn(700, 37, generator=generator), torch.randint(0, 37, (700,), generator=generator)
    each = EMOOptions(reduction="none")
    loss, gradient = _value_and_gradient(logits, labels, costs, each)
    for rows in (slice(0, 300), slice(300, 700)):
        part, part_gradient = _value_and_gradient(logits[rows], labels[rows], costs, each)
        assert torch.allclose(loss[rows], part, rtol=1e-6)
        assert torch.allclose(gradient[rows], part_gradient, rtol=1e-5, atol=1e-8)


def test_leading_dimensions_are_the_batchs_own(logits, labels, costs):
    shaped = emo_loss_with_parts(logits[:24].reshape(2, 3, 4, 37), labels[:24].reshape(2, 3, 4), costs)
    assert shaped.parts.ce.shape == (2, 3, 4)
    assert torch.equal(shaped.loss, emo_loss(logits[:24], labels[:24], costs))
    assert emo_loss(logits[0], torch.tensor(3), costs).shape == ()


def test_parts_say_what_the_loss_is_made_of(logits, labels, costs):
    leaf = logits.clone().requires_grad_()
    result = emo_loss_with_parts(leaf, labels, costs, EMOOptions(mixing="emo1_clamped", reduction="none"))
    parts, kept = result.parts, labels != -100
    assert torch.allclose(result.loss, parts.ce_weight * parts.ce + parts.value_weight * parts.value, rtol=1e-6)
    assert torch.allclose(parts.lse[kept], torch.logsumexp(logits, 1)[kept])
    assert torch.equal(parts.correct[kept] == 1, (logits.argmax(1) == labels)[kept])
    assert parts.value_weight.max() <= 1.5
    for part in parts:
        assert not part.requires_grad
        assert part.shape == labels.shape
        assert (part[~kept] == 0).all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_entropies_are_those_of_the_probabilities(scale: float, logits, labels, costs):
    logits = logits * scale
    logits[3, 5:9] = -torch.inf
    logits[3, int(labels[3])] = 1.0
    # One token has all the mass: in one row the label, in the next another token.
    logits[4, int(labels[4])], logits[5, 0] = 500.0, 500.0
    for options in (EMOOptions(), EMOOptions(temperature=2.0, softcap=20.0), EMOOptions(label_smoothing=0.1)):
        z = logits.double()
        z = z if options.softcap is None else options.softcap * torch.tanh(z / options.softcap)
        z = z.masked_fill(logits == -torch.inf, -torch.inf) / options.temperature
        expected = torch.special.entr(torch.softmax(z, 1)).sum(1)
        plain = emo_loss_with_parts(logits, labels, costs, options)
        result = emo_loss_with_parts(logits, labels, costs, options, entropy=True)
        linear = linear_emo_loss_with_parts(
            torch.eye(len(logits)), logits.T.nan_to_num(neginf=-1e30), labels, costs, options, entropy=True
        )
        kept = labels != -100
        torch.testing.assert_close(result.parts.entropy[kept].double(), expected[kept], rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(linear.parts.entropy[kept].double(), expected[kept], rtol=1e-4, atol=1e-5)
        assert (result.parts.entropy[~kept] == 0).all()
        # The loss does not change, and without `entropy=True` there is no entropy.
        assert torch.equal(result.loss, plain.loss)
        assert plain.parts.entropy[kept].isnan().all()


@pytest.mark.parametrize("cut", [1, 20, 36])
def test_entropies_of_a_cut_vocabulary_are_merged_with_the_other_sums(cut: int, logits, labels, costs):
    logits = logits * 3
    logits[2, :cut], logits[2, 36] = -torch.inf, 2.0
    labels = torch.where(labels == -100, 36, labels)
    labels[2] = 36
    sent: list[list[torch.Tensor]] = [[], []]

    def side(rank: int, others: list[torch.Tensor] | None) -> torch.Tensor:
        part = (logits[:, :cut], logits[:, cut:])[rank].clone()

        def gather(numbers: torch.Tensor) -> torch.Tensor:
            sent[rank].append(numbers.clone())
            own = [numbers, numbers] if others is None else [others[0], others[0]]
            own[rank] = numbers
            return torch.stack(own)

        shard, options = VocabShard(rank * cut, part.shape[1], 37, gather, rank), EMOOptions()
        objective = objective_of(costs, options, soft=False)
        plan = BlockPlan(objective, options, shard, with_parts=True, with_entropy=True)
        workspace = Workspace(part.shape[1], part.device, torch.float32)
        parts = block_losses(part, labels, None, plan, workspace).parts
        assert parts is not None
        return parts.entropy

    side(0, None)
    actual = side(1, sent[0])
    expected = torch.special.entr(torch.softmax(logits.double(), 1)).sum(1)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(side(0, sent[1]).double(), expected, rtol=1e-5, atol=2e-6)
    # One exchange per block, with one more number per token: largest logit, label's, wrong sum, K, rival, entropy.
    assert [len(numbers) for numbers in sent[0]] == [6, 6]


def test_autocast_does_not_reach_the_costs(logits, labels, costs):
    expected, expected_gradient = _value_and_gradient(logits, labels, costs, EMOOptions())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = _value_and_gradient(logits, labels, costs, EMOOptions())
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, expected_gradient)


def test_no_graph_is_kept_if_no_gradient_is_needed(logits, labels, costs):
    with torch.no_grad():
        assert emo_loss(logits.clone().requires_grad_(), labels, costs).grad_fn is None
    assert emo_loss(logits, labels, costs).grad_fn is None


def _emo1_rounding(logits: Tensor, labels: Tensor, costs: DenseCosts) -> float:
    """What rounding can change in emo1, which weights the EMD, D, by w = CE / (D + 1e-10).

    D is a sum of products of numbers near 1, so float64 rounds it by δD, up to 4 eps. That changes w D and its gradient
    by w δD. It also changes w by w δD / (D + 1e-10), and the gradient, which is w times at most D, by w δD once more.
    """
    log_p = torch.log_softmax(logits.double(), 1)
    own = torch.arange(len(labels))
    emd = (log_p.exp() * cost_matrix(costs, logits.shape[1])[:, labels].T).sum(1)
    weights = -log_p[own, labels] / (emd + 1e-10)
    return 2 * float(weights.max()) * 4 * torch.finfo(torch.float64).eps


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 4), st.sampled_from(MIXINGS), st.integers(0, 1 << 31),
       st.sampled_from([0.1, 1.0, 30.0]))  # fmt: skip
@example(1, 3, 1, "emo1", 2489, 30.0)
def test_any_shape_follows_the_oracle(n: int, vocab: int, dim: int, mixing: str, seed: int, scale: float):
    generator = torch.Generator().manual_seed(seed)
    rows = functional.normalize(torch.randn(vocab, dim, generator=generator), dim=1)
    logits = scale * torch.randn(n, vocab, generator=generator)
    labels = torch.randint(0, vocab, (n,), generator=generator)
    loss, gradient = _value_and_gradient(logits.double(), labels, DenseCosts(rows), EMOOptions(mixing=mixing))
    expected, expected_gradient = _oracle(logits, labels, DenseCosts(rows), mixing)
    rounding = _emo1_rounding(logits, labels, DenseCosts(rows)) if mixing == "emo1" else 0.0
    assert torch.allclose(loss, expected, rtol=1e-6, atol=1e-7 + rounding)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-7 + rounding)


def test_a_scaled_loss_in_half_precision_keeps_its_gradient(logits, labels, costs):
    """A GradScaler multiplies the loss by 2^16; the gradient must not overflow when it is converted to float16."""
    half = logits.detach().half().requires_grad_()
    emo_loss(half, labels, costs).backward()
    assert half.grad is not None
    scaled = logits.detach().half().requires_grad_()
    (emo_loss(scaled, labels, costs) * 2.0**16).backward()
    assert scaled.grad is not None
    assert torch.isfinite(scaled.grad).all()
    assert torch.allclose(scaled.grad.float() / 2.0**16, half.grad.float(), atol=2e-4, rtol=2e-3)


def test_a_label_is_correct_where_it_is_the_first_of_the_largest(costs):
    logits = torch.zeros(2, costs.vocab_size)
    logits[:, [3, 7]] = 1.0
    _, parts = emo_loss_with_parts(logits, torch.tensor([3, 7]), costs)
    assert parts.correct.tolist() == [1.0, 0.0]
