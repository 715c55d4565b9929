"""The Triton kernels against the definitions in float64: on a CUDA device, or else in Triton's interpreter."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from costbank.errors import UsageError
from costbank.loss import (
    Costs,
    DenseCosts,
    EMOOptions,
    NeighborCosts,
    SmoothingOptions,
    SoftTargets,
    emo_loss,
    emo_loss_with_parts,
    linear,
    linear_emo_loss,
    linear_emo_loss_with_parts,
    prepare,
    smooth_dense,
    smooth_neighbors,
)
from costbank.loss.engine.kernels import blocks, choice
from costbank.loss.engine.softmax import VocabShard
from tests.loss.broken import broken_copy
from tests.loss.oracle import token_losses
from tests.loss.test_objectives import EACH
from tests.loss.test_soft import CASES as SOFT
from tests.loss.test_soft import definition

# The interpreter computes with NumPy, which warns of NaN.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Two rows without a label, two whose label has no vector, and two more. The interpreter takes long for each.
ROWS = 6
FORWARD = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
BACKWARD = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 4e-3}


def moved(costs: Costs | None) -> Costs | None:
    return None if costs is None else costs.to(DEVICE)


def on_kernels(options: EMOOptions, **changes: Any) -> EMOOptions:
    return replace(options, kernels="triton", **changes)


def check_logits(logits: Tensor, labels: Tensor, costs: Costs | None, options: EMOOptions) -> None:
    """Compare losses and gradients of logits with the definition, as closely as the type allows."""
    dtype = logits.dtype
    leaf, exact = logits.detach().to(DEVICE).requires_grad_(), logits.detach().double().requires_grad_()
    each = emo_loss(leaf, labels.to(DEVICE), moved(costs), on_kernels(options, reduction="none"))
    (gradient,) = torch.autograd.grad(each.sum(), leaf)
    expected = token_losses(exact, labels, costs, options)
    (right,) = torch.autograd.grad(expected.sum(), exact)
    assert each.dtype == torch.float32
    assert gradient.dtype == dtype
    # The logits are what they are, and sums are in float32.
    torch.testing.assert_close(each.cpu().double(), expected.detach(), rtol=2e-5, atol=1e-6)
    error = (gradient.cpu().double() - right).abs().amax(1)
    floor = 3e-6 if options.target_mass == "detached" else 5e-7
    if dtype == torch.float16:
        floor = max(floor, 6e-8 * 2)
    assert (error <= max(1e-4, 2 * torch.finfo(dtype).eps) * right.abs().amax(1) + floor).all(), float(error.max())


def check_pytorch(logits: Tensor, labels: Tensor, costs: Costs | None, options: EMOOptions) -> None:
    """Compare loss, parts and gradient of logits with those of PyTorch's operations."""
    leaves = [logits.clone().to(device).requires_grad_() for device in ("cpu", DEVICE)]
    expected = emo_loss_with_parts(leaves[0], labels, costs, options, entropy=True)
    result = emo_loss_with_parts(leaves[1], labels.to(DEVICE), moved(costs), on_kernels(options), entropy=True)
    for ours, theirs in zip((result.loss, *result.parts), (expected.loss, *expected.parts), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=2e-5, atol=2e-6, equal_nan=True)
    (gradient,), (right,) = torch.autograd.grad(result.loss, leaves[1]), torch.autograd.grad(expected.loss, leaves[0])
    torch.testing.assert_close(gradient.cpu(), right, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("options", "form"), EACH)
def test_losses_of_logits_are_the_definitions(logits, labels, of_form, options: EMOOptions, form: str):
    check_logits(logits[:ROWS], labels[:ROWS], of_form[form], options)


@pytest.mark.parametrize(("options", "form"), EACH[::5])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 6.0), (torch.float16, 2.0)])
def test_logits_of_16_bits_are_rounded_once(logits, labels, of_form, options, form: str, dtype: torch.dtype, scale):
    check_logits((scale * logits[:ROWS]).to(dtype), labels[:ROWS], of_form[form], options)


@pytest.mark.parametrize(("options", "form"), EACH[1::4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_of_hidden_states_are_as_precise_as_their_type(
    generator, labels, of_form, options: EMOOptions, form: str, dtype: torch.dtype
):
    """The distance from float64 is at most that of the definition computed in the same type, plus a tolerance."""
    head = [torch.randn(*shape, generator=generator).to(dtype) for shape in ((ROWS, 16), (37, 16), (37,))]
    labels, costs = labels[:ROWS], of_form[form]
    weights = torch.rand(ROWS, generator=generator)
    options = replace(options, reduction="sum", chunk_rows=4)
    ours = [tensor.to(DEVICE).requires_grad_() for tensor in head]
    same = [tensor.clone().requires_grad_() for tensor in head]
    exact = [tensor.double().requires_grad_() for tensor in head]
    loss = linear_emo_loss(
        ours[0], ours[1], labels.to(DEVICE), moved(costs), on_kernels(options), bias=ours[2],
        token_weights=weights.to(DEVICE),
    )  # fmt: skip
    truth = (weights * token_losses(functional.linear(*exact), labels, costs, options)).sum()
    reference = (weights * token_losses(functional.linear(*same).float(), labels, costs, options)).sum()
    assert abs(loss.item() - truth) <= abs(reference - truth) + FORWARD[dtype] * abs(truth)
    rights, others = torch.autograd.grad(truth, exact), torch.autograd.grad(reference, same)
    for mine, other, right in zip(torch.autograd.grad(loss, ours), others, rights, strict=True):
        assert mine.dtype == dtype
        error, size = (mine.cpu() - right).abs().max(), right.abs().max()
        assert error <= (other - right).abs().max() + BACKWARD[dtype] * size


@pytest.mark.parametrize("options", SOFT)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_soft_targets_are_the_definitions(logits, teacher, costs, options: EMOOptions, sparse: bool):
    logits, teacher = logits[:ROWS], teacher[:ROWS]
    targets = SoftTargets(teacher.to(DEVICE))
    if sparse:
        probabilities, ids = teacher.topk(9)
        targets = SoftTargets(probabilities.to(DEVICE), ids.to(DEVICE))
        teacher = torch.zeros_like(teacher).scatter(1, ids, probabilities)
    leaf, exact = logits.to(DEVICE).requires_grad_(), logits.double().requires_grad_()
    loss = emo_loss(leaf, targets, moved(costs), on_kernels(options))
    expected = definition(exact, teacher, costs, options)
    torch.testing.assert_close(loss.cpu().double(), expected, rtol=2e-5, atol=1e-6)
    (gradient,), (right,) = torch.autograd.grad(loss.sum(), leaf), torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(gradient.cpu().double(), right, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("width", [1, 31, 8_193])
@pytest.mark.parametrize("form", ["none", "dense", "neighbors", "smoothing", "smoothing-of-all"])
def test_any_width_follows_pytorch(generator, width: int, form: str):
    """A row is read 8,192 columns at a time; the last part of it is ragged."""
    objective = {"none": "ce", "smoothing": "neighbor_smoothing", "smoothing-of-all": "neighbor_smoothing"}
    costs = costs_of(form, width, generator)
    options = EMOOptions(
        objective=objective.get(form, "emo"), mixing="interpolate", weight=0.3, softcap=9.0,
        label_smoothing=0.1,
    )  # fmt: skip
    logits = 3 * torch.randn(5, width, generator=generator)
    logits[:, -1] += 12  # the largest of the row comes last
    labels = torch.tensor([0, width - 1, width // 2, -100, 0])
    check_pytorch(logits, labels, costs, options)


def costs_of(form: str, width: int, generator: torch.Generator) -> Costs | None:
    """Costs of random rows, of any form."""
    dense = DenseCosts(functional.normalize(torch.randn(width, 5, generator=generator), dim=1))
    if form in ("none", "dense"):
        return None if form == "none" else dense
    if form == "smoothing-of-all":
        return smooth_dense(dense, SmoothingOptions(temperature=0.5))
    ids = (torch.arange(width)[:, None] + torch.arange(1, 7)) % width
    ids[ids == torch.arange(width)[:, None]] = -1
    ids[:, min(6, width - 1) :] = -1
    near = (1 - (dense.vectors[:, None] * dense.vectors[ids]).sum(2)).clamp_min(0)
    if form == "smoothing":
        return smooth_neighbors(ids, near, SmoothingOptions(k=6, temperature=0.5))
    return NeighborCosts.from_table(dense, ids, near, measure=False)


def test_rows_without_a_label_get_no_gradient_whatever_they_hold(logits, labels, costs):
    logits = logits[:ROWS].clone()
    logits[0], logits[5] = torch.nan, torch.inf
    assert labels[0] == labels[5] == -100
    leaf = logits.to(DEVICE).requires_grad_()
    for options in (EMOOptions(), EMOOptions(objective="ce", softcap=5.0)):
        (gradient,) = torch.autograd.grad(emo_loss(leaf, labels[:ROWS].to(DEVICE), costs.to(DEVICE),
                                                   on_kernels(options)), leaf)  # fmt: skip
        assert (gradient[[0, 5]] == 0).all()
        assert gradient.isfinite().all()
        assert (gradient[[1, 2, 3, 4]] != 0).any(1).all()


def test_batches_without_a_row_or_without_a_label(costs):
    for shape in ((0, 37), (3, 37)):
        leaf = torch.ones(shape, device=DEVICE, requires_grad=True)
        loss = emo_loss(leaf, torch.full(shape[:1], -100, device=DEVICE), costs.to(DEVICE), on_kernels(EMOOptions()))
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert (gradient == 0).all()


@pytest.mark.parametrize("objective", ["ce", "emo", "neighbor_smoothing", "log"])
def test_masked_tokens_count_for_nothing(logits, labels, of_form, objective: str):
    costs = of_form[{"ce": "none", "neighbor_smoothing": "smoothing-of-all"}.get(objective, "dense")]
    options = EMOOptions(objective=objective, mixing="fixed", weight=0.5, softcap=9.0)
    masked = logits[:ROWS].clone()
    masked[:, ::4] = -torch.inf
    masked.scatter_(1, labels[:ROWS, None].clamp_min(0), 1.0)
    check_pytorch(masked, labels[:ROWS], costs, options)


@pytest.mark.skipif(DEVICE == "cuda", reason="on CUDA, the check ends the process")
def test_nan_and_labels_out_of_range_are_refused(logits, labels, costs):
    logits = logits[:ROWS].clone()
    for bad in (torch.nan, torch.inf):
        logits[1, 3] = bad
        with pytest.raises(UsageError, match="the loss is NaN"):
            emo_loss(logits, labels[:ROWS], costs, on_kernels(EMOOptions()))
    assert emo_loss(logits, labels[:ROWS], costs, on_kernels(EMOOptions(), nan_logits="pass")).isnan()
    with pytest.raises(UsageError, match="label 37"):
        emo_loss(logits, torch.full((ROWS,), 37), costs, on_kernels(EMOOptions()))


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter runs programs one after the other")
@pytest.mark.parametrize("form", ["dense", "neighbors"])
def test_two_runs_give_the_same_bits(generator, labels, of_form, form: str):
    head = [torch.randn(*shape, generator=generator).bfloat16() for shape in ((ROWS, 16), (37, 16))]
    runs = []
    for _ in range(2):
        leaves = [tensor.to(DEVICE).requires_grad_() for tensor in head]
        loss = linear_emo_loss(
            leaves[0], leaves[1], labels[:ROWS].to(DEVICE), moved(of_form[form]), on_kernels(EMOOptions())
        )
        runs.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_ignored_rows_that_stay_change_nothing(generator, labels, of_form, monkeypatch, kernels: str):
    """While a CUDA graph is captured, nothing can wait for the number of rows, and ignored ones stay in the blocks."""
    head = [torch.randn(*shape, generator=generator) for shape in ((ROWS, 16), (37, 16), (37,))]
    head[0][0] = torch.nan
    weights = torch.rand(ROWS, generator=generator)
    assert labels[0] == -100
    for form, objective in (("dense", "emo"), ("smoothing-of-all", "neighbor_smoothing"), ("none", "ce")):
        runs = []
        for captured in (False, True):
            monkeypatch.setattr(prepare, "_is_captured", lambda _, captured=captured: captured)
            options = EMOOptions(objective=objective, mixing="fixed", kernels=kernels, chunk_rows=4)
            leaves = [tensor.to(DEVICE).requires_grad_() for tensor in head]
            loss = linear_emo_loss(leaves[0], leaves[1], labels[:ROWS].to(DEVICE), moved(of_form[form]), options,
                                   bias=leaves[2], token_weights=weights.to(DEVICE))  # fmt: skip
            runs.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
        for one, other in zip(*runs, strict=True):
            torch.testing.assert_close(one.nan_to_num(), other.nan_to_num())
        assert (runs[1][1][0] == 0).all()


class Recorded(TorchDispatchMode):
    """Records the names of PyTorch's operations; an index of bools is the `nonzero` that finds the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.names.add(name)
        if name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self.names.add("nonzero")
        return function(*args, **(kwargs or {}))


# The host must know the values of a tensor for these, and so waits for an accelerator.
WAITING = {"_local_scalar_dense", "nonzero", "unique_consecutive", "_unique2", "unique_dim", "masked_select", "equal",
           "is_nonzero", "repeat_interleave", "bincount"}  # fmt: skip


@pytest.mark.parametrize("skipped", [True, False])
@pytest.mark.parametrize(("form", "objective"), [("dense", "emo"), ("smoothing-of-all", "neighbor_smoothing"),
                                                 ("smoothing", "neighbor_smoothing"), ("none", "ce")])  # fmt: skip
def test_no_step_waits_for_the_device_if_ignored_tokens_stay(
    generator, labels, of_form, monkeypatch, form: str, objective: str, skipped: bool
):
    """With kernels, no call needs a value on the host, except to leave out ignored tokens."""

    def refused(_tensor: Tensor, *_arguments: Any) -> Any:
        raise AssertionError("the host reads a tensor")

    if not skipped:
        monkeypatch.setattr(Tensor, "tolist", refused)
    # On an accelerator, these two checks are asynchronous.
    monkeypatch.setattr(prepare, "check_label_range", lambda *_arguments: None)
    monkeypatch.setattr(linear, "check_finite", lambda *_arguments: None)
    options = on_kernels(EMOOptions(objective=objective, mixing="fixed", skip_ignored=skipped), chunk_rows=4)
    costs, given = moved(of_form[form]), labels[:ROWS].to(DEVICE)
    head = [torch.randn(*shape, generator=generator) for shape in ((ROWS, 16), (37, 16))]
    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in head]
    with Recorded() as recorded:
        loss = linear_emo_loss(leaves[0], leaves[1], given, costs, options)
        gradients = torch.autograd.grad(loss, leaves)
    assert bool(recorded.names & WAITING) == skipped
    other = linear_emo_loss(leaves[0], leaves[1], given, costs, replace(options, skip_ignored=not skipped))
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(gradients, torch.autograd.grad(other, leaves))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_evaluation_and_second_passes_are_as_good(generator, labels, costs, reduction: str):
    head = [torch.randn(*shape, generator=generator) for shape in ((ROWS, 16), (37, 16))]
    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in head]
    options = on_kernels(EMOOptions(), reduction=reduction, chunk_rows=4)
    with torch.no_grad():
        alone = linear_emo_loss_with_parts(leaves[0], leaves[1], labels[:ROWS].to(DEVICE), costs.to(DEVICE), options)
    loss = linear_emo_loss(leaves[0], leaves[1], labels[:ROWS].to(DEVICE), costs.to(DEVICE), options)
    torch.testing.assert_close(alone.loss, loss.detach())
    first = torch.autograd.grad(loss.sum(), leaves, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss.sum(), leaves), strict=True):
        torch.testing.assert_close(one, other)


class Model(nn.Module):
    """Three layers over an embedding, with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(37, 16)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(3)))
        self.head = nn.Linear(16, 37)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers(self.embedding(ids)) + self.embedding(ids)


@pytest.mark.slow
def test_training_on_kernels_follows_training_on_pytorch(smoothing_of_all):
    """200 steps of a model with three layers: losses differ by at most 1e-3."""
    curves = {}
    for kernels in ("torch", "triton"):
        torch.manual_seed(0)
        model = Model().to(DEVICE)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        text = (5 * torch.arange(300) % 17).to(DEVICE)
        options = EMOOptions.preset("recommended", kernels=kernels)
        losses = []
        for step in range(200):
            start = 2 * step % (len(text) - 3)
            ids, labels = text[start : start + 2], text[start + 1 : start + 3]
            loss = linear_emo_loss(model(ids), model.head.weight, labels, moved(smoothing_of_all), options,
                                   bias=model.head.bias)  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curves[kernels] = torch.tensor(losses)
    assert curves["torch"][-20:].mean() < 0.7 * curves["torch"][:20].mean()
    assert (curves["torch"] - curves["triton"]).abs().max() < 1e-3


MUTATIONS = {
    "the label in the sum": ("e = tl.where(is_other, tl.exp(d), 0.0)", "e = tl.where(inside, tl.exp(d), 0.0)"),
    "no correction of sums": ("lower = tl.exp(-rise)", "lower = 1.0"),
    "no label's gradient": ("g = tl.where(columns == label, at_label, g)", "g = g"),
    "costs without their factor": ("g += e * f * cost_factor", "g += e * f"),
    "no softcap's slope": ("slope = 1.0 - t * t", "slope = 1.0 + 0.0 * t"),
    "no neighbors": ("tl.store(g_row + near_columns, values", "tl.store(g_row + near_columns, 0.0 * values"),
    "targets added": ("g -= target_factor * _target_weights", "g += target_factor * _target_weights"),
}


@pytest.mark.skipif(DEVICE == "cuda", reason="kernels are compiled once a process")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_kernel_is_found(name: str, logits, labels, of_form, tmp_path, monkeypatch):
    """The comparison above fails if a term of a kernel is wrong."""
    monkeypatch.setattr(blocks, "rows", broken_copy(blocks.rows, *MUTATIONS[name], tmp_path))
    half = {"mixing": "fixed", "weight": 0.5, "softcap": 6.0}
    logits = torch.cat([logits, logits], dim=1)[:6, :37]
    failed = False
    for options, form in (
        (EMOOptions(objective="emo", **half), "dense"),
        (EMOOptions(objective="emo", **half), "neighbors"),
        (EMOOptions(objective="neighbor_smoothing", **half), "smoothing-of-all"),
    ):
        try:
            check_logits(logits, labels[:6], of_form[form], options)
        except AssertionError:
            failed = True
            break
    if name == "no correction of sums":
        # Only rows of several parts need it.
        with pytest.raises(AssertionError):
            test_any_width_follows_pytorch(torch.Generator().manual_seed(0), 8_193, "none")
    else:
        assert failed


def test_kernels_are_refused_where_they_cannot_run(logits, labels, costs, monkeypatch):
    with pytest.raises(UsageError, match="cannot sum in float64"):
        emo_loss(logits.double(), labels, costs, on_kernels(EMOOptions()))
    with monkeypatch.context() as patched:
        patched.delenv("TRITON_INTERPRET", raising=False)
        with pytest.raises(UsageError, match="on a CPU") as caught:
            emo_loss(logits, labels, costs, on_kernels(EMOOptions()))
        assert "TRITON_INTERPRET=1" in caught.value.hint
    with pytest.raises(UsageError, match="on the device mps"):
        choice.uses_kernels(on_kernels(EMOOptions()), torch.device("mps"), torch.float32)
    with pytest.raises(UsageError, match="kernels is 'cuda'"):
        EMOOptions(kernels="cuda")


def test_a_machine_without_a_working_triton_runs_pytorch_and_says_so_once(monkeypatch):
    options, device = EMOOptions(), torch.device("cuda")

    def no_compiler(_: torch.device) -> bool:
        raise RuntimeError("no C compiler")

    for name, function, told in (
        ("_is_installed", lambda: False, "pip install 'costbank\\[gpu\\]'"),
        ("_is_probed", no_compiler, "RuntimeError: no C compiler; kernels='torch' avoids"),
    ):
        choice._works.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(choice, name, function)
            with pytest.warns(UserWarning, match=told) as warnings:
                assert not any(choice.uses_kernels(options, device, torch.float32) for _ in range(3))
            assert len(warnings) == 1
            assert not choice.uses_kernels(options, torch.device("cpu"), torch.float32)
    choice._works.cache_clear()
    monkeypatch.setattr(choice, "_is_installed", lambda: False)
    with pytest.raises(UsageError, match="Triton is not installed"):
        choice.uses_kernels(on_kernels(options), device, torch.float32)


def test_a_table_that_lists_the_label_itself_is_read_as_by_pytorch(logits, labels, neighbors):
    ids, costs = neighbors.ids.clone(), neighbors.costs.clone()
    ids[:, 0], costs[:, 0] = torch.arange(37), 0.0
    table = replace(neighbors, ids=ids, costs=costs)
    for objective in ("emo", "log"):
        options = EMOOptions(objective=objective, mixing="fixed")
        check_pytorch(logits[:ROWS], labels[:ROWS], table, options)


def test_blocks_have_as_many_rows_on_every_process_and_a_bounded_size():
    cuda = torch.device("cuda")
    rows = {width: prepare._chunk_rows(cuda, width, torch.bfloat16) for width in (256, 50_257, 128_256, 256_000)}
    assert rows == {256: 16_384, 50_257: 5_312, 128_256: 2_048, 256_000: 1_024}
    assert prepare._chunk_rows(cuda, 128_256, torch.float32) == 1_024
    # Slices of different sizes have equal blocks: otherwise processes would wait for each other for ever.
    labels, options = torch.zeros(3, dtype=torch.long), EMOOptions(objective="ce", kernels="torch")
    arguments, shape = prepare.Arguments(labels, None, options, None), torch.Size([3])
    shards = (VocabShard(0, 131_073, 262_145), VocabShard(131_073, 131_072, 262_145, rank=1))
    calls = [prepare.prepare(arguments, shape, shard, torch.bfloat16, False, cuda) for shard in shards]
    assert calls[0].tokens.chunk_rows == calls[1].tokens.chunk_rows == 448
    assert prepare._chunk_rows(torch.device("cpu"), 128_256, torch.float32) == 256


@pytest.mark.slow
def test_kernels_compile_for_a_gpu_without_spilling_registers():
    """For sm_90, which needs no device; a kernel may keep a few bytes on the stack."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.loss.compiled_kernels"], capture_output=True, text=True, env=environment,
        check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2_000:]
    kernels = json.loads(result.stdout)
    assert len(kernels) == 28
    assert all(kernel["spilled bytes"] <= 16 for kernel in kernels), kernels
    assert all(math.isfinite(kernel["registers"]) and kernel["registers"] <= 128 for kernel in kernels), kernels
