"""Checks that run on processes that share a vocabulary: each compares its result with the loss of the whole."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, distributed
from torch.nn import functional

import costbank.loss
from costbank.loss import (
    EMOOptions,
    emo_loss_with_parts,
    parallel_emo_loss,
    parallel_emo_loss_with_parts,
    parallel_linear_emo_loss,
)
from tests.loss.slices import CASES, CUTS, DIM, HALF, TOKENS, VOCAB, close, compare, data, forms, own, refusal, seeded

FORMS = {"kernel": ("dense",), "d2gpo": ("neighbors",), "neighbor_smoothing": ("smoothing-of-all", "smoothing")}
OBJECTIVES = [EMOOptions(), *(EMOOptions(objective=name, **HALF) for name in ("log", "neighbor_smoothing", "kernel"))]


def _loss_of(name: str, with_parts: bool) -> Callable[..., Tensor]:
    """A parallel loss, in the variant with parts or the one without."""
    if with_parts:
        function = getattr(costbank.loss, f"parallel_{name}_with_parts")
        return lambda *args, **kwargs: function(*args, **kwargs).loss
    return getattr(costbank.loss, f"parallel_{name}")


def each_cut(dtype: torch.dtype, tolerance: float, scale: float = 1.0) -> None:
    costs, given = forms(), data(dtype, scale)
    cuts = CUTS[distributed.get_world_size()]
    for i, (name, (changes, form)) in enumerate(CASES.items()):
        # In float64 on two processes, every case runs with every cut; otherwise with one of them, in turn.
        is_thorough = dtype == torch.float64 and scale == 1.0 and distributed.get_world_size() == 2
        for sizes in cuts if is_thorough else (cuts[i % len(cuts)],):
            compare(EMOOptions(chunk_rows=11, **changes), costs[form], sizes, given, tolerance, (name, sizes))


def float64_to_its_last_digits() -> None:
    each_cut(torch.float64, 1e-9)


def float32_to_its_own() -> None:
    each_cut(torch.float32, 1e-5)


def sure_and_lost_tokens() -> None:
    """Logits far apart: the sums of a slice can be negligible next to another's, or consist of the label alone."""
    each_cut(torch.float64, 1e-9, scale=30.0)
    compare(EMOOptions(), forms()["dense"], CUTS[distributed.get_world_size()][0], data(torch.float32, 30.0), 1e-5, 30)


def half_precision() -> None:
    each_cut(torch.bfloat16, 1e-2)


def on_kernels() -> None:
    """Each kind of tile and of sparse terms, with slices that are wide and narrow; and slices of masked columns."""
    os.environ["TRITON_INTERPRET"] = "1"  # on a machine with a GPU too: these tensors are on the CPU
    costs, given = forms(), data(torch.float32)
    cuts = CUTS[distributed.get_world_size()]
    for i, name in enumerate(("emo2-neighbors", "log", "smoothed-smoothing", "d2gpo", "all")):
        changes, form = CASES[name]
        options, sizes = EMOOptions(chunk_rows=11, **changes), cuts[i % len(cuts)]
        compare(options, costs[form], sizes, given, 1e-5, (name, sizes), kernels="triton")
    logits, labels, sizes = torch.randn(5, VOCAB, generator=seeded()), torch.arange(5), cuts[0]
    for rank in range(len(sizes)):
        masked = logits.clone()
        masked[:, sum(sizes[:rank]) : sum(sizes[: rank + 1])] = -torch.inf
        masked[labels, labels] = 1.0
        _rows(masked, labels, EMOOptions(kernels="triton"), 1e-5, ("masked", rank))


def reductions_and_weights() -> None:
    given, costs = data(torch.float64), forms()
    sizes = CUTS[distributed.get_world_size()][0]
    for reduction in ("none", "sum", "mean"):
        for token_weights in (None, given[4]):
            options = EMOOptions(chunk_rows=7, reduction=reduction)
            for form in ("dense", "neighbors"):
                what = (reduction, form, token_weights is None)
                compare(options, costs[form], sizes, given, 1e-9, what, token_weights)
    wide = EMOOptions(accumulate="float64")
    compare(wide, costs["dense"], sizes, data(torch.float32), 1e-6, "float64 sums of float32")


def labels_of_one_slice_or_none() -> None:
    given, costs = data(torch.float64), forms()
    for sizes in CUTS[distributed.get_world_size()]:
        for owner in range(len(sizes)):
            start = sum(sizes[:owner])
            labels = start + torch.arange(TOKENS) % sizes[owner]
            compare(EMOOptions(), costs["dense"], sizes, [*given[:3], labels], 1e-9, ("owner", owner, sizes))
        ignored = torch.full((TOKENS,), -100)
        for reduction in ("none", "mean"):
            options = EMOOptions(reduction=reduction)
            compare(options, costs["dense"], sizes, [*given[:3], ignored], 1e-9, ("ignored", sizes))
            empty = [given[0][:0], given[1], given[2], given[3][:0]]
            compare(options, costs["neighbors"], sizes, empty, 1e-9, ("empty", sizes))
        many = [given[0][:24].reshape(2, 3, 4, DIM), *given[1:3], given[3][:24].reshape(2, 3, 4)]
        compare(EMOOptions(shift=True), costs["dense"], sizes, many, 1e-9, ("shifted", sizes))


def _rows(logits: Tensor, labels: Tensor, options: EMOOptions, tolerance: float, what: object) -> None:
    """Compare losses, parts and gradients of rows of logits, in each form of costs that the objective supports."""
    for sizes in CUTS[distributed.get_world_size()]:
        for form in FORMS.get(options.objective, ("dense", "neighbors")):
            full, part = logits.clone().requires_grad_(), logits[:, own(sizes)].clone().requires_grad_()
            expected = emo_loss_with_parts(full, labels, forms()[form], options, entropy=True)
            result = parallel_emo_loss_with_parts(part, labels, forms()[form], options, entropy=True)
            close(result.loss, expected.loss, tolerance, (what, sizes, form))
            assert torch.equal(result.parts.correct, expected.parts.correct), (what, sizes, form)
            for one, other in zip(result.parts, expected.parts, strict=True):
                close(one.nan_to_num(), other.nan_to_num(), tolerance, (what, sizes, form))
            ours, theirs = torch.autograd.grad(result.loss, part)[0], torch.autograd.grad(expected.loss, full)[0]
            close(ours, theirs[:, own(sizes)], 5 * tolerance, (what, sizes, form, "gradient"))


def ties_across_slices() -> None:
    """The first of equal logits counts as the largest, in whichever slice it is."""
    pairs = torch.tensor([(a, b) for a in range(0, VOCAB, 3) for b in range(1, VOCAB, 3)])
    logits = torch.randn(len(pairs), VOCAB, generator=seeded(), dtype=torch.float64).clamp_max(1.5)
    logits.scatter_(1, pairs, 2.3)
    for temperature in (1.0, 0.7):
        for common in (0.0, 8192.0):
            for column in (0, 1):
                options = EMOOptions(temperature=temperature)
                _rows((logits + common).float(), pairs[:, column], options, 1e-5, (temperature, common))
    _rows(torch.zeros(VOCAB, VOCAB), torch.arange(VOCAB), EMOOptions(), 1e-6, "all the same")
    _rows(100 * logits, pairs[:, 0], EMOOptions(softcap=2.0), 1e-9, "saturated")


def masked_slices() -> None:
    """Logits of −inf in all columns of a slice, or in all except the label's."""
    logits = torch.randn(VOCAB, VOCAB, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(VOCAB)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        for sizes in CUTS[distributed.get_world_size()]:
            for rank in range(len(sizes)):
                masked = logits.to(dtype, copy=True)
                masked[:, sum(sizes[:rank]) : sum(sizes[: rank + 1])] = -torch.inf
                masked[labels, labels] = 1.0
                for options in OBJECTIVES:
                    _rows(masked, labels, options, tolerance, ("masked", rank, options))
                    _rows(masked, labels, replace(options, temperature=0.5), tolerance, ("and cool", rank, options))
    only = torch.full((VOCAB, VOCAB), -torch.inf).fill_diagonal_(2.0)
    for options in OBJECTIVES:
        _rows(only, labels, options, 1e-6, ("nothing but labels", options))
        for ahead in (-300.0, 60.0, 300.0):
            _rows(functional.one_hot(labels, VOCAB) * ahead + 0.01 * labels, labels, options, 1e-5, (ahead, options))


def common_logits_take_no_digits() -> None:
    logits = (256 * 3 * torch.randn(VOCAB, VOCAB, generator=seeded())).round() / 256
    labels = torch.arange(VOCAB)
    smoothed, ranked = EMOOptions(label_smoothing=0.1, **HALF), EMOOptions(objective="d2gpo", **HALF)
    halves = (replace(options, **HALF) for options in OBJECTIVES)
    for options in (EMOOptions(temperature=0.7, **HALF), smoothed, ranked, *halves):
        costs = forms()[FORMS.get(options.objective, ("dense",))[0]]
        for sizes in CUTS[distributed.get_world_size()]:
            near, far = (
                parallel_emo_loss(logits[:, own(sizes)] + common, labels, costs, options) for common in (0, 8192)
            )
            close(far, near, 1e-6, sizes)


def nan_is_refused_by_all() -> None:
    labels, costs = torch.arange(5) + 20, forms()["dense"]
    for bad in (torch.nan, torch.inf):
        for column in (0, VOCAB - 1):
            logits = torch.randn(5, VOCAB, generator=seeded())
            logits[3, column] = bad
            part = logits[:, own(CUTS[distributed.get_world_size()][0])]
            for reduction in ("mean", "none"):
                refused = partial(parallel_emo_loss, part, labels, costs, EMOOptions(reduction=reduction))
                assert "the loss is NaN" in refusal(refused)
            losses = parallel_emo_loss(part, labels, costs, EMOOptions(reduction="none", nan_logits="pass"))
            assert losses.isnan().tolist() == [False, False, False, True, False]
    masked = torch.full((1, VOCAB), -torch.inf)[:, own(CUTS[distributed.get_world_size()][0])]
    assert "contain NaN" in refusal(lambda: parallel_emo_loss(masked, torch.tensor([3]), costs))


def one_process_fails() -> None:
    """Fails in one process, on purpose."""
    if distributed.get_rank() == 0:
        refusal(lambda: None)


def frameworks_may_sum_the_hidden_states_gradient() -> None:
    hidden, weight, _, labels, _ = data(torch.float64)
    sizes = CUTS[distributed.get_world_size()][0]
    sums, summands = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    # Strided hidden states, whose gradient is strided too.
    strided = hidden.T.contiguous().T.requires_grad_()
    for leaf, reduce in ((sums, True), (summands, False), (strided, True)):
        parallel_linear_emo_loss(
            leaf, weight[own(sizes)], labels.clamp_min(0), forms()["dense"], reduce_hidden=reduce
        ).backward()
    assert not torch.allclose(summands.grad, sums.grad)
    distributed.all_reduce(summands.grad)
    close(summands.grad, sums.grad, 1e-12, "summed by hand")
    close(strided.grad, sums.grad, 1e-12, "strided")


def second_backward_is_as_good() -> None:
    hidden, weight, bias, labels, _ = data(torch.float64)
    mine = own(CUTS[distributed.get_world_size()][0])
    leaves = [hidden.requires_grad_(), weight[mine].clone().requires_grad_()]
    loss = parallel_linear_emo_loss(*leaves, labels, forms()["dense"], bias=bias[mine])
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for one, two in zip(first, torch.autograd.grad(2 * loss, leaves), strict=True):
        close(two, 2 * one, 1e-12, "second")


def collectives_are_these() -> None:
    """Collectives: one per block in the forward pass; in the backward pass none for logits, one for hidden states."""
    hidden, weight, _, labels, _ = data(torch.float32)
    sizes = CUTS[distributed.get_world_size()][0]
    mine, costs = own(sizes), forms()
    gathered: list[tuple[int, ...]] = []
    name = "all_gather_single" if hasattr(distributed, "all_gather_single") else "all_gather_into_tensor"
    real = getattr(distributed, name), distributed.all_reduce

    def gather(out: Tensor, tensor: Tensor, **more: Any) -> Any:
        gathered.append((*tensor.shape, tensor.element_size()))
        return real[0](out, tensor, **more)

    def reduce(tensor: Tensor, **more: Any) -> Any:
        gathered.append((-1, *tensor.shape))
        return real[1](tensor, **more)

    leaf, part = hidden.requires_grad_(), weight[mine].clone().requires_grad_()
    logits = (hidden.detach() @ weight[mine].T).requires_grad_()
    kept = int((labels >= 0).sum())
    blocks = [min(7, kept - start) for start in range(0, kept, 7)]
    options = EMOOptions(chunk_rows=7)
    wanted = (("dense", options, False, 4), ("neighbors", options, False, 5), ("dense", options, True, 5),
              ("neighbors", options, True, 6), ("none", replace(options, objective="ce"), False, 3),
              ("dense", replace(options, label_smoothing=0.1), False, 6),
              ("dense", replace(options, objective="log", **HALF), False, 4),
              ("neighbors", replace(options, objective="log", **HALF), True, 7),
              ("smoothing-of-all", replace(options, objective="neighbor_smoothing", **HALF), False, 5),
              ("smoothing", replace(options, objective="neighbor_smoothing", **HALF), False, 6),
              ("dense", replace(options, objective="kernel", **HALF), False, 3 + 6))  # fmt: skip
    with (
        patch.object(distributed, name, gather),
        patch.object(distributed, "all_reduce", reduce),
    ):
        for form, how, parts, numbers in wanted:
            forward = [(numbers, rows, 4) for rows in blocks]
            sizes_sent = [(1, 3, 8)] if form == "none" else []
            of_logits = _loss_of("emo_loss", parts)(logits, labels, costs[form], how, vocab_start=mine.start)
            assert gathered == sizes_sent + forward, (form, gathered)
            gathered.clear()
            of_logits.backward()
            assert gathered == [], gathered
            loss = _loss_of("linear_emo_loss", parts)(leaf, part, labels, costs[form], how, vocab_start=mine.start)
            assert gathered == sizes_sent + forward, (form, gathered)
            gathered.clear()
            loss.backward()
            assert gathered == [(-1, TOKENS, DIM)], gathered
            gathered.clear()
        parallel_emo_loss(logits, labels, costs["dense"], options)
        assert gathered == [(1, 3, 8), *((4, rows, 4) for rows in blocks)], "sizes are exchanged if no start is given"
