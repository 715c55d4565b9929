"""Checks of the ways to pass a slice of the vocabulary: DTensors, groups, sizes, and what is refused."""

from functools import partial

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from costbank.loss import (
    EMOOptions,
    SoftTargets,
    emo_loss,
    linear_emo_loss,
    parallel_emo_loss,
    parallel_linear_emo_loss,
)
from tests.loss.slices import CUTS, DIM, TOKENS, VOCAB, close, compare, data, forms, own, refusal

COSTS = forms()
linear = partial(parallel_linear_emo_loss, costs=COSTS["dense"])


def dtensors_come_with_their_place() -> None:
    """A sharded weight's gradient is sharded like the weight; that of replicated hidden states is whole or partial."""
    hidden, weight, bias, labels, _ = data(torch.float64)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    whole = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    expected = linear_emo_loss(whole[0], whole[1], labels, COSTS["dense"], bias=whole[2])
    rights = torch.autograd.grad(expected, whole)
    cut = [distribute_tensor(t.clone(), mesh, [Shard(0)]).requires_grad_() for t in (weight, bias)]
    for reduce, placement in ((True, Replicate()), (False, Partial())):
        inputs = distribute_tensor(hidden.clone(), mesh, [Replicate()]).requires_grad_()
        loss = linear(inputs, cut[0], labels, bias=cut[1], reduce_hidden=reduce)
        close(loss, expected, 1e-12, "loss")
        grads = torch.autograd.grad(loss, [inputs, *cut])
        assert all(isinstance(grad, DTensor) for grad in grads)
        assert [grad.placements for grad in grads] == [(placement,), (Shard(0),), (Shard(0),)]
        for one, other in zip(grads, rights, strict=True):
            close(one.full_tensor(), other, 1e-12, "gradient")
    plain = hidden.clone().requires_grad_()
    linear(plain, cut[0], labels, bias=cut[1]).backward()
    close(plain.grad, rights[0], 1e-12, "gradient of plain hidden states")


def logits_are_dtensors_too() -> None:
    hidden, weight, _, labels, weights = data(torch.float64)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    whole = (hidden @ weight.T)[:28].reshape(4, 7, VOCAB).requires_grad_()
    labels, weights = labels[:28].reshape(4, 7), weights[:28].reshape(4, 7)
    part = distribute_tensor(whole.detach().clone(), mesh, [Shard(2)]).requires_grad_()
    every = [distribute_tensor(t, mesh, [Replicate()]) for t in (labels, weights)]
    for form in ("dense", "neighbors"):
        expected = emo_loss(whole, labels, COSTS[form], token_weights=weights)
        loss = parallel_emo_loss(part, every[0], COSTS[form], token_weights=every[1])
        close(loss, expected, 1e-12, form)
        (grad,) = torch.autograd.grad(loss, part)
        assert grad.placements == (Shard(2),)
        close(grad.full_tensor(), torch.autograd.grad(expected, whole)[0], 1e-12, form)


def other_placements_are_refused() -> None:
    hidden, weight, _, labels, _ = data(torch.float32)
    processes = distributed.get_world_size()
    mesh, square = init_device_mesh("cpu", (processes,)), init_device_mesh("cpu", (processes // 2, 2))
    cut = distribute_tensor(weight, mesh, [Shard(0)])
    for placement in (Replicate(), Shard(1)):
        message = refusal(partial(linear, hidden, distribute_tensor(weight, mesh, [placement]), labels))
        assert "weight is a DTensor placed" in message
        assert "redistribute(placements=[Shard(0)])" in message
    summand = DTensor.from_local(weight, mesh, [Partial()])
    assert "DTensor placed" in refusal(partial(linear, hidden, summand, labels))
    message = refusal(partial(linear, hidden, distribute_tensor(weight, square, [Replicate(), Shard(0)]), labels))
    assert "on a mesh of 2 dimensions" in message
    assert "to_local()" in message
    message = refusal(partial(linear, distribute_tensor(hidden, mesh, [Shard(0)]), cut, labels))
    assert "hidden is a DTensor placed" in message
    assert "Replicate()" in message
    everywhere = distribute_tensor(hidden, square, [Replicate(), Replicate()])
    assert "reduce_hidden=True" in refusal(partial(linear, everywhere, cut, labels, reduce_hidden=False))
    close(linear(everywhere, cut, labels), linear_emo_loss(hidden, weight, labels, COSTS["dense"]), 1e-5, "2-D hidden")
    message = refusal(partial(linear, hidden, cut, distribute_tensor(labels, mesh, [Shard(0)])))
    assert "labels is a DTensor" in message
    rows = VOCAB // processes
    begin = distributed.get_rank() * rows
    short = weight[begin : begin + rows if distributed.get_rank() < processes - 1 else None]
    ragged = DTensor.from_local(short, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=(DIM, 1))
    assert "vocab_start" in refusal(partial(linear, hidden, ragged, labels))
    few = distribute_tensor(weight[: processes - 1], mesh, [Shard(0)])
    assert "at least one" in refusal(partial(linear, hidden, few, labels))
    assert "omit it" in refusal(partial(linear, hidden, cut, labels, vocab_start=1))
    # The loss of a whole vocabulary names the parallel loss.
    assert "parallel_linear_emo_loss" in refusal(partial(linear_emo_loss, hidden, cut, labels, COSTS["dense"]))


def sizes_are_checked_in_words() -> None:
    hidden, weight, _, labels, _ = data(torch.float32)
    rank, sizes = distributed.get_rank(), CUTS[distributed.get_world_size()][0]
    mine, last = own(sizes), distributed.get_rank() == len(sizes) - 1
    short = weight[mine][1:] if last else weight[mine]
    assert "36 wide" in refusal(partial(linear, hidden, short, labels))
    none = weight[:0] if last else weight[mine]
    assert "at least one" in refusal(partial(linear, hidden, none, labels))
    fewer = slice(1, None) if last else slice(None)
    counts = ", ".join(map(str, [TOKENS] * (distributed.get_world_size() - 1) + [TOKENS - 1]))
    unequal = refusal(partial(linear, hidden[fewer], weight[mine], labels[fewer]))
    assert f"different numbers of tokens: {counts}" in unequal
    ce = EMOOptions(objective="ce")
    shifted = partial(parallel_linear_emo_loss, hidden, weight[mine], labels, None, ce, vocab_start=1 + mine.start)
    message = refusal(shifted)
    assert "vocab_start=0, " in message
    for start in (-1, VOCAB):
        message = refusal(partial(linear, hidden, weight[mine], labels, vocab_start=start))
        assert f"process {rank} of {len(sizes)} has tokens" in message
    if last or rank == 0:
        off = mine.start + (1 if rank == 0 else -1)
        assert "the first starts at 0" in refusal(partial(linear, hidden, weight[mine], labels, vocab_start=off))
    # Labels are ids of the whole vocabulary: the last token is a valid label on the first process too.
    most = torch.full_like(labels, VOCAB - 1)
    close(linear(hidden, weight[mine], most), linear_emo_loss(hidden, weight, most, COSTS["dense"]), 1e-6, "last token")
    assert f"label {VOCAB} is neither a token id below {VOCAB}" in refusal(
        partial(linear, hidden, weight[mine], most + 1)
    )
    assert "needs costs" in refusal(partial(parallel_linear_emo_loss, hidden, weight[mine], labels, None))


def groups_may_be_some_of_the_processes() -> None:
    """A group of one process has the whole vocabulary as its slice, and a process outside a group gets an error."""
    hidden, weight, bias, labels, _ = data(torch.float64)
    groups = [distributed.new_group([rank]) for rank in range(distributed.get_world_size())]
    rank = distributed.get_rank()
    ours, theirs = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = linear(hidden, ours, labels, group=groups[rank], bias=bias)
    expected = linear_emo_loss(hidden, theirs, labels, COSTS["dense"], bias=bias)
    close(loss, expected, 1e-12, "alone")
    close(torch.autograd.grad(loss, ours)[0], torch.autograd.grad(expected, theirs)[0], 1e-12, "alone")
    other = groups[(rank + 1) % len(groups)]
    assert "not in the group" in refusal(partial(linear, hidden, weight, labels, group=other))
    cut = distribute_tensor(weight, init_device_mesh("cpu", (len(groups),)), [Shard(0)])
    assert "omit group" in refusal(partial(linear, hidden, cut, labels, group=groups[rank]))


def soft_targets_are_of_the_whole_vocabulary() -> None:
    """Distributions over all tokens, over some tokens of any slices, and over tokens of one slice only."""
    given = data(torch.float64)
    g = torch.Generator().manual_seed(5)
    teacher = torch.softmax(2 * torch.randn(TOKENS, VOCAB, generator=g, dtype=torch.float64), dim=1)
    teacher[::5] = 0
    some = SoftTargets(*teacher.topk(6))
    one_slice = SoftTargets(teacher[:, :5], torch.arange(5).expand(TOKENS, 5))
    given[4].mul_(2)
    for sizes in CUTS[distributed.get_world_size()]:
        for targets in (SoftTargets(teacher), some, one_slice):
            for objective in ("emo", "kernel", "ce"):
                for reduction in ("mean", "none"):
                    options = EMOOptions(
                        objective=objective, reduction=reduction, chunk_rows=11, temperature=1.5, z_loss=1e-2
                    )
                    what = (sizes, objective, reduction, targets.shape)
                    compare(options, COSTS["dense"], sizes, [*given[:3], targets], 1e-9, what, given[4])
        compare(EMOOptions(), COSTS["low-rank"], sizes, [*given[:3], some], 1e-9, "low-rank")
        for objective in ("emo", "kernel", "ce"):
            options = EMOOptions(objective=objective, mixing="fixed")
            compare(options, COSTS["dense"], sizes, [*data(torch.float64, 30.0)[:3], some], 1e-9, (sizes, "far apart"))
            # Tokens of the first slice are masked and have no target probability.
            logits = torch.randn(TOKENS, VOCAB, generator=g, dtype=torch.float64)
            logits[:, : sizes[0]] = -torch.inf
            rest = SoftTargets(teacher[:, sizes[0] :], torch.arange(sizes[0], VOCAB).expand(TOKENS, -1))
            full, part = logits.clone().requires_grad_(), logits[:, own(sizes)].clone().requires_grad_()
            expected = emo_loss(full, rest, COSTS["dense"], options)
            loss = parallel_emo_loss(part, rest, COSTS["dense"], options)
            close(loss, expected, 1e-9, (sizes, "masked"))
            theirs = torch.autograd.grad(expected, full)[0][:, own(sizes)]
            close(torch.autograd.grad(loss, part)[0], theirs, 1e-9, (sizes, "masked"))
    hidden, weight = given[0], given[1][own(CUTS[distributed.get_world_size()][0])]
    short = SoftTargets(teacher[:, 1:])
    assert "over 36 tokens" in refusal(partial(parallel_linear_emo_loss, hidden, weight, short, COSTS["dense"]))
    cut = distribute_tensor(teacher, init_device_mesh("cpu", (distributed.get_world_size(),)), [Shard(1)])
    message = refusal(partial(parallel_linear_emo_loss, hidden, weight, SoftTargets(cut), COSTS["dense"]))
    assert "soft targets is a DTensor" in message
