"""Sums in bfloat16 with stochastic rounding: the formula, its mean and its spread, and the same bits everywhere."""

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from costbank.loss import EMOOptions, LinearEMOLoss, linear_emo_loss
from costbank.loss.engine import rounding
from costbank.loss.engine.rounding import add_product_rounded_, add_rounded_
from tests.loss.broken import broken_copy

ULP = 2.0**-7
"""The distance between numbers of bfloat16 from 1 to 2."""


def defined(total: Tensor, terms: Tensor, first: int, number: int) -> Tensor:
    """The sums as the definition has them: in NumPy's 32-bit integers, which wrap."""
    sums = total.float().numpy() + terms.numpy()
    bits = sums.view(np.uint32)
    entries = (first + np.arange(sums.size)).astype(np.uint32).reshape(sums.shape)
    noise = bits * np.uint32(0x3243F6A9) + entries * np.uint32(0x1E3779B1) + np.uint32(number * 0x05EBCA6B % 2**32)
    noise = (noise ^ (noise >> 16)) * np.uint32(0x7FEB352D)
    noise = (noise ^ (noise >> 15)) * np.uint32(0x846CA68B)
    noise ^= noise >> 16
    rounded = torch.from_numpy(((bits + (noise >> 16)) & np.uint32(0xFFFF0000)).view(np.float32)).bfloat16()
    exact = torch.from_numpy(sums)
    return torch.where(exact.isfinite(), rounded, exact.bfloat16())


def examples(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Totals and terms [70, 41] of several sizes and both signs, with NaN, inf and zeros among them."""
    total = torch.randn(70, 41, generator=generator).bfloat16()
    terms = torch.randn(70, 41, generator=generator) * 10.0 ** torch.randint(-6, 1, (70, 1), generator=generator)
    terms[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    # The NaN that GPUs compute: a carry would make it 0.
    terms[0, 0] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    terms[1, :2] = total[1, :2] = 0.0
    return total, terms


def by_kernel(kernels: ModuleType, total: Tensor, terms: Tensor, first: int, number: int) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = total.to(device)
    result = result.clone() if device == "cpu" else result
    kernels.launch(result, terms.to(device), first, number)
    return result.cpu()


def equal_bits(one: Tensor, other: Tensor) -> bool:
    return bool((one.isnan() == other.isnan()).all()) and torch.equal(
        one.nan_to_num(7.0).view(torch.int16), other.nan_to_num(7.0).view(torch.int16)
    )


@pytest.mark.parametrize(("first", "number"), [(0, 0), (123, 1), (2**31 - 50, 77), (2**33 + 5, 40_000)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sums_are_those_of_the_definition(generator, first: int, number: int):
    total, terms = examples(generator)
    expected = defined(total, terms, first, number)
    assert expected[0, :3].isfinite().sum() == 0
    ours = total.clone()
    add_rounded_(ours, terms.clone(), first, number)
    assert equal_bits(ours, expected)
    # The interpreter computes with NumPy, which warns of sums that wrap.
    pytest.importorskip("triton")
    from costbank.loss.engine.kernels import rounding as kernels

    assert equal_bits(by_kernel(kernels, total, terms, first, number), expected)


MUTATIONS = {
    "one part of the noise": ("noise = (noise ^ (noise >> 15)) * HASH_1", "noise = noise * HASH_1"),
    "no noise": ("bits + (noise >> 16)", "bits"),
    "half of the noise": ("bits + (noise >> 16)", "bits + (noise >> 17)"),
    "the same noise in each block": ("+ number.to(tl.uint32) * TERM", ""),
    "NaN without an exception": ('tl.where(tl.abs(s) < float("inf"), upper, s)', "upper"),
    "no total": ("s += tl.load(terms", "s = tl.load(terms"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled once a process")
@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_rounding_kernel_is_found(generator, name: str, tmp_path):
    pytest.importorskip("triton")
    from costbank.loss.engine.kernels import rounding as kernels

    broken = broken_copy(kernels, *MUTATIONS[name], tmp_path)
    total, terms = examples(generator)
    assert not equal_bits(by_kernel(broken, total, terms, 3, 5), defined(total, terms, 3, 5))


def test_a_sum_becomes_a_neighbor_with_a_mean_error_of_zero(generator):
    sums = 1 + torch.rand(500, 1_000, generator=generator)
    total = torch.zeros(500, 1_000, dtype=torch.bfloat16)
    add_rounded_(total, sums.clone())
    errors = (total.double() - sums.double()) / ULP
    assert errors.abs().max() < 1
    # f (1 − f) is the variance of a sum that is a fraction f above a number; its mean over f is 1/6.
    assert errors.square().mean() == pytest.approx(1 / 6, rel=0.01)
    for part in (errors, errors[:, ::2], errors[::7], errors[sums < 1.1]):
        assert abs(part.mean()) < 4 * math.sqrt(1 / 6 / part.numel())
    exact = torch.tensor([[0.0, 1.0, -3.5, 2.0**-126]])
    total = exact.bfloat16()
    add_rounded_(total, torch.zeros(1, 4))
    assert torch.equal(total.float(), exact)


def test_small_terms_do_not_vanish_in_a_large_sum(generator):
    """512 terms of 1/512 of the sum each: half a unit in the last place or less, so the nearest number stays."""
    nearest, stochastic = (torch.full((64, 64), 1.0, dtype=torch.bfloat16) for _ in range(2))
    term = torch.full((64, 64), 1 / 512)
    for number in range(512):
        nearest += term
        add_rounded_(stochastic, term.clone(), 0, number)
    assert (nearest == 1).all()
    assert stochastic.double().mean() == pytest.approx(2, abs=0.01)
    # √(512 / 6) roundings of one unit, at most.
    assert (stochastic.double() - 2).std() < 1.2 * ULP * math.sqrt(512 / 6)


@pytest.mark.parametrize("piece_bytes", [1, 1_000, 1 << 20])
def test_a_product_is_the_same_in_pieces_of_any_size(generator, monkeypatch, piece_bytes: int):
    left = torch.randn(9, 37, generator=generator).bfloat16()
    right = torch.randn(9, 11, generator=generator).bfloat16()
    expected = torch.ones(37, 11, dtype=torch.bfloat16)
    add_product_rounded_(expected, left, right, 3, add_rounded_)
    monkeypatch.setitem(rounding._PIECE_BYTES, "cpu", piece_bytes)
    ours = torch.ones(37, 11, dtype=torch.bfloat16)
    add_product_rounded_(ours, left, right, 3, add_rounded_)
    # A product of other shapes may differ in its last digit, which may change a rounding.
    assert (ours != expected).float().mean() < 0.01
    exact = 1 + left.double().T @ right.double()
    assert ((ours.double() - exact).abs() <= 2 * ULP * exact.abs().clamp_min(0.1)).all()


@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_two_runs_and_two_backward_passes_give_the_same_bits(generator, kernels: Any):
    if kernels == "triton":
        pytest.importorskip("triton")
    device = "cuda" if kernels == "triton" and torch.cuda.is_available() else "cpu"
    hidden, weight = (torch.randn(*shape, generator=generator).bfloat16().to(device) for shape in ((12, 8), (37, 8)))
    labels = torch.randint(0, 37, (12,), generator=generator).to(device)
    options = EMOOptions(objective="ce", chunk_rows=4, kernels=kernels, weight_gradient="stochastic")
    weight.requires_grad_()
    grads = []
    for _ in range(2):
        loss = linear_emo_loss(hidden, weight, labels, None, options)
        grads += [torch.autograd.grad(loss, weight, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(grads[0], other) for other in grads)
    wide = replace(options, weight_gradient="wide")
    (exact,) = torch.autograd.grad(linear_emo_loss(hidden, weight, labels, None, wide), weight)
    assert not torch.equal(grads[0], exact)
    assert (grads[0] - exact).abs().max() <= 4 * 2 * ULP * exact.abs().max()


@pytest.mark.slow
def test_a_compiled_loss_has_the_same_gradient(generator):
    hidden, weight = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((12, 8), (37, 8)))
    labels = torch.randint(0, 37, (12,), generator=generator)
    weight.requires_grad_()
    module = LinearEMOLoss(None, objective="ce", chunk_rows=4, weight_gradient="stochastic")
    compiled = torch.compile(lambda: module(hidden, weight, labels), backend="aot_eager", fullgraph=True)
    ours, expected = (
        torch.autograd.grad(call(), weight)[0] for call in (compiled, lambda: module(hidden, weight, labels))
    )
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=2 * ULP, atol=1e-6)
