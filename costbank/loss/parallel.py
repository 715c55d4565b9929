"""The EMO losses over a vocabulary that processes share, each holding a slice of it (tensor parallelism).

Each process computes the logits of its slice, and with the others exchanges a few numbers a token: no tensor of the
vocabulary's width is ever sent, and gradients of logits need nothing from other processes.
"""

from typing import Literal, overload

from jaxtyping import Float, Integer
from torch import Tensor
from torch.distributed import ProcessGroup

from costbank.loss.arguments import check_devices
from costbank.loss.costs import Costs
from costbank.loss.eager import eager
from costbank.loss.functional import EMOResult, check_logits, logit_losses
from costbank.loss.linear import check_linear, linear_losses
from costbank.loss.mistakes import check_kinds
from costbank.loss.options import EMOOptions
from costbank.loss.rows import BlockPlan
from costbank.loss.shards import columns_of, open_shard, summed_over, whole, whole_labels
from costbank.loss.soft import SoftTargets, check_soft

__all__ = ["parallel_emo_loss", "parallel_linear_emo_loss"]


@overload
def parallel_linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "local_vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    bias: Float[Tensor, "local_vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[False] = False,
    reduce_hidden: bool = True,
) -> Tensor: ...
@overload
def parallel_linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "local_vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    bias: Float[Tensor, "local_vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[True],
    entropy: bool = ...,
    reduce_hidden: bool = True,
) -> EMOResult: ...
@eager
def parallel_linear_emo_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    bias: Tensor | None = None,
    token_weights: Tensor | None = None,
    step: int | None = None,
    parts: bool = False,
    entropy: bool = False,
    reduce_hidden: bool = True,
) -> Tensor | EMOResult:
    """`linear_emo_loss` where each process of a group holds a slice of the head's rows.

    Slices are contiguous and in the order of processes. All processes call it with the same tokens and options, and
    get the same loss; one that does not call it leaves the others waiting. A block of tokens takes one all-gather, in
    float32: for `emo` of 4 numbers a token with dense costs and 5 with neighbor costs, for other objectives of 3 to 6,
    for `kernel` of 3 and one for each dimension of the costs; label smoothing and soft targets add 2, parts 1, and
    entropies 1. With `reduction="none"`, or on a second backward pass, blocks are computed again, and that exchange
    with them.

    Args:
        hidden: [..., dim], the same on all processes; a DTensor that is replicated is one, too.
        weight: [local_vocab, dim], this process's slice; or a DTensor placed Shard(0) on a mesh of one dimension, with
            a gradient that is one.
        labels: [...], token ids of the whole vocabulary, or `options.ignore_index`; or `SoftTargets` over all tokens
            or with ids of the whole vocabulary; the same on all processes.
        costs: of the whole vocabulary, on each process; None for objectives without costs.
        options: how the loss is put together; the same on all processes.
        group: the processes; not given: all, or those of a DTensor's mesh.
        vocab_start: the token id of the slice's first row. Not given: processes tell each other their sizes, once a
            call, which accelerators are waited for; so they do for objectives without costs. DTensors know it.
        bias: [local_vocab], its slice.
        token_weights: see `emo_loss`; the same on all processes.
        step: see `emo_loss`.
        parts: also return what it is made of.
        entropy: of each token's probabilities, among the parts; without parts it changes nothing.
        reduce_hidden: sum the hidden states' gradient over processes, by one all-reduce in the backward pass. Without
            it each process gets its slice's summand of it, for frameworks that sum themselves.

    Returns:
        The loss, as `emo_loss` returns it.

    Raises:
        ShapeError: shapes that do not fit, slices that do not add up to the costs' tokens, or different numbers of
            tokens (where sizes are told).
        UsageError: see `linear_emo_loss`; also no process group, or a DTensor placed in another way.
    """
    check_kinds(costs, hidden=hidden, weight=weight, labels=labels, bias=bias, token_weights=token_weights)
    shard = open_shard("weight", weight, 0, group, vocab_start)
    biases = None if bias is None else open_shard("bias", bias, 0, shard.group, shard.start).tensor
    inputs, targets = whole("hidden", hidden, partial_gradient=not reduce_hidden), whole_labels(labels)
    factors = whole("token_weights", token_weights)
    assert inputs is not None
    check_linear(inputs, shard.tensor, biases)
    options = options.at(step)
    columns, vocab = columns_of(shard, len(shard.tensor), inputs.shape[:-1].numel(), costs, options)
    if isinstance(targets, SoftTargets):
        check_soft(targets, inputs.shape[:-1], vocab, costs, options)
    check_devices(
        costs, options, hidden=inputs, weight=shard.tensor, bias=biases, labels=targets, token_weights=factors
    )
    plan = BlockPlan(costs, options, columns, with_gradient=False, with_parts=parts, with_entropy=entropy)
    reduce = summed_over(shard.group) if reduce_hidden else None
    return linear_losses(inputs, shard.tensor, biases, targets, factors, vocab, plan, reduce)


@overload
def parallel_emo_loss(
    logits: Float[Tensor, "*tokens local_vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[False] = False,
) -> Tensor: ...
@overload
def parallel_emo_loss(
    logits: Float[Tensor, "*tokens local_vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = ...,
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    parts: Literal[True],
    entropy: bool = ...,
) -> EMOResult: ...
@eager
def parallel_emo_loss(
    logits: Tensor,
    labels: Tensor | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    token_weights: Tensor | None = None,
    step: int | None = None,
    parts: bool = False,
    entropy: bool = False,
) -> Tensor | EMOResult:
    """`emo_loss` where each process of a group holds a slice of the logits' columns. See `parallel_linear_emo_loss`.

    Args:
        logits: [..., local_vocab]; or a DTensor whose last dimension is cut, on a mesh of one dimension.
        labels: see `parallel_linear_emo_loss`.
        costs: see `parallel_linear_emo_loss`.
        options: see `parallel_linear_emo_loss`.
        group: see `parallel_linear_emo_loss`.
        vocab_start: the token id of the first column; see `parallel_linear_emo_loss`.
        token_weights: see `emo_loss`.
        step: see `emo_loss`.
        parts: also return what it is made of.
        entropy: of each token's probabilities, among the parts; without parts it changes nothing.

    Returns:
        The loss, as `emo_loss` returns it: the same on all processes. The gradient of the logits takes no exchange but
        on a second backward pass.

    Raises:
        ShapeError: see `parallel_linear_emo_loss`.
        UsageError: see `parallel_linear_emo_loss`.
    """
    check_kinds(costs, logits=logits, labels=labels, token_weights=token_weights)
    check_logits(logits)
    shard = open_shard("logits", logits, -1, group, vocab_start)
    targets, factors = whole_labels(labels), whole("token_weights", token_weights)
    options = options.at(step)
    local = shard.tensor
    columns, vocab = columns_of(shard, local.shape[-1], local.shape[:-1].numel(), costs, options)
    if isinstance(targets, SoftTargets):
        check_soft(targets, local.shape[:-1], vocab, costs, options)
    check_devices(costs, options, logits=local, labels=targets, token_weights=factors)
    plan = BlockPlan(costs, options, columns, with_gradient=False, with_parts=parts, with_entropy=entropy)
    return logit_losses(local, targets, factors, vocab, plan)
