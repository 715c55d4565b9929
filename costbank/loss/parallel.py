"""The EMO losses for tensor parallelism: each process has a slice of the vocabulary.

A process computes the logits of its slice, and exchanges a few numbers per token with the others. No tensor as wide as
the vocabulary is ever sent, and gradients of logits need no exchange.
"""

from dataclasses import replace

from jaxtyping import Float, Integer
from torch import Tensor
from torch.distributed import ProcessGroup

from costbank.loss.arguments import check_linear, check_logits, eager
from costbank.loss.costs import Costs
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.functional import logit_losses
from costbank.loss.linear import linear_losses
from costbank.loss.options import EMOOptions
from costbank.loss.prepare import Arguments
from costbank.loss.shards import open_shard, summed_over, vocab_shard_of, whole, whole_labels

__all__ = [
    "parallel_emo_loss",
    "parallel_emo_loss_with_parts",
    "parallel_linear_emo_loss",
    "parallel_linear_emo_loss_with_parts",
]


@eager
def parallel_linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "local_vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    bias: Float[Tensor, "local_vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    reduce_hidden: bool = True,
) -> Tensor:
    """`linear_emo_loss` for a group of processes, each with a slice of the head's rows.

    Slices are contiguous, in the order of processes. All processes must call this function with the same tokens and
    options, and all get the same loss; if one does not call it, the others wait. A block of tokens takes one all-gather
    in float32: for `emo` 4 numbers per token with dense costs and 5 with neighbor costs, for other objectives 3 to 6,
    for `kernel` 3 and one for each dimension of the costs. Label smoothing and soft targets add 2, parts 1, and the
    entropy 1. With `reduction="none"`, or on a second backward pass, blocks are computed and exchanged again.

    Args:
        hidden: [..., dim], the same on all processes; or a replicated DTensor.
        weight: [local_vocab, dim], this process's slice; or a DTensor placed Shard(0) on a mesh of one dimension. Its
            gradient is then also a DTensor.
        labels: [...], token ids of the whole vocabulary, or `options.ignore_index`; or `SoftTargets` over all tokens
            or with ids of the whole vocabulary; the same on all processes.
        costs: the costs of the whole vocabulary, on each process; None for objectives without costs.
        options: the objective, the mixing, the reduction and others; the same on all processes.
        group: the processes; default: all, or those of a DTensor's mesh.
        vocab_start: the token id of the slice's first row; not needed for a DTensor. By default, and for objectives
            without costs, processes exchange their sizes in each call, which synchronizes with accelerators.
        bias: [local_vocab], this process's slice.
        token_weights: see `emo_loss`; the same on all processes.
        step: see `emo_loss`.
        reduce_hidden: sum the gradient of the hidden states over processes, by one all-reduce in the backward pass.
            Otherwise each process gets only its slice's share of the sum, for frameworks that sum it themselves.

    Returns:
        The loss, as `emo_loss` returns it.

    Raises:
        ShapeError: shapes do not match, slices do not add up to the vocabulary of the costs, or processes have
            different numbers of tokens (checked if sizes are exchanged).
        UsageError: see `linear_emo_loss`; also if there is no process group, or a DTensor has other placements.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights)
    return _linear(hidden, weight, bias, arguments, group, vocab_start, reduce_hidden).loss


@eager
def parallel_linear_emo_loss_with_parts(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "local_vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    bias: Float[Tensor, "local_vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    entropy: bool = False,
    reduce_hidden: bool = True,
) -> EMOResult:
    """`parallel_linear_emo_loss` with the parts of each token's loss: see `EMOParts`.

    Args:
        hidden, weight, labels, costs, options, group, vocab_start, bias, token_weights, step, reduce_hidden: see
            `parallel_linear_emo_loss`.
        entropy: see `emo_loss_with_parts`.

    Raises:
        ShapeError, UsageError: see `parallel_linear_emo_loss`.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy)
    return _linear(hidden, weight, bias, arguments, group, vocab_start, reduce_hidden)


def _linear(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: Arguments,
    group: ProcessGroup | None,
    vocab_start: int | None,
    reduce_hidden: bool,
) -> EMOResult:
    arguments.check_kinds(hidden=hidden, weight=weight, bias=bias)
    shard = open_shard("weight", weight, 0, group, vocab_start)
    biases = None if bias is None else open_shard("bias", bias, 0, shard.group, shard.start).tensor
    inputs = whole("hidden", hidden, partial_gradient=not reduce_hidden)
    assert inputs is not None
    arguments = _whole(arguments)
    check_linear(inputs, shard.tensor, biases)
    tokens = inputs.shape[:-1].numel()
    vocab = vocab_shard_of(shard, len(shard.tensor), tokens, arguments.costs, arguments.options)
    reduce = summed_over(shard.group) if reduce_hidden else None
    return linear_losses(inputs, shard.tensor, biases, arguments, vocab, reduce)


@eager
def parallel_emo_loss(
    logits: Float[Tensor, "*tokens local_vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
) -> Tensor:
    """`emo_loss` for a group of processes, each with a slice of the logits' columns. See `parallel_linear_emo_loss`.

    Args:
        logits: [..., local_vocab]; or a DTensor that is split along its last dimension, on a mesh of one dimension.
        labels: see `parallel_linear_emo_loss`.
        costs: see `parallel_linear_emo_loss`.
        options: see `parallel_linear_emo_loss`.
        group: see `parallel_linear_emo_loss`.
        vocab_start: the token id of the first column; see `parallel_linear_emo_loss`.
        token_weights: see `emo_loss`.
        step: see `emo_loss`.

    Returns:
        The loss, as `emo_loss` returns it: the same on all processes. The gradient of the logits needs an exchange only
        on a second backward pass.

    Raises:
        ShapeError: see `parallel_linear_emo_loss`.
        UsageError: see `parallel_linear_emo_loss`.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights)
    return _logits(logits, arguments, group, vocab_start).loss


@eager
def parallel_emo_loss_with_parts(
    logits: Float[Tensor, "*tokens local_vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    group: ProcessGroup | None = None,
    vocab_start: int | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    entropy: bool = False,
) -> EMOResult:
    """`parallel_emo_loss` with the parts of each token's loss: see `EMOParts`.

    Args:
        logits, labels, costs, options, group, vocab_start, token_weights, step: see `parallel_emo_loss`.
        entropy: see `emo_loss_with_parts`.

    Raises:
        ShapeError, UsageError: see `parallel_linear_emo_loss`.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy)
    return _logits(logits, arguments, group, vocab_start)


def _logits(logits: Tensor, arguments: Arguments, group: ProcessGroup | None, vocab_start: int | None) -> EMOResult:
    arguments.check_kinds(logits=logits)
    check_logits(logits)
    shard = open_shard("logits", logits, -1, group, vocab_start)
    local, arguments = shard.tensor, _whole(arguments)
    tokens = local.shape[:-1].numel()
    vocab = vocab_shard_of(shard, local.shape[-1], tokens, arguments.costs, arguments.options)
    return logit_losses(local, arguments, vocab)


def _whole(arguments: Arguments) -> Arguments:
    """The arguments with labels and weights as plain tensors."""
    weights = whole("token_weights", arguments.token_weights)
    return replace(arguments, labels=whole_labels(arguments.labels), token_weights=weights)
