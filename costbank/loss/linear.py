"""The EMO loss of hidden states and a head's weight, without the logits of all tokens in memory."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from costbank.loss.arguments import check_finite, check_linear, check_plain, eager
from costbank.loss.costs import Costs
from costbank.loss.engine.from_hidden import HeadCall, gradients_of_hidden, losses_of_hidden
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.mistakes import refuse_other_shapes
from costbank.loss.options import EMOOptions
from costbank.loss.prepare import Arguments, prepare

__all__ = ["linear_emo_loss", "linear_emo_loss_with_parts", "linear_gradients", "linear_losses"]

_NOT_FINITE = "hidden states, the head's weight, token weights or the logits contain NaN or inf"


@eager
def linear_emo_loss(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    bias: Float[Tensor, "vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
) -> Tensor:
    """`emo_loss` of the logits hidden · weightᵀ + bias, which are computed block by block.

    Gradients are computed together with the values, and the gradient of the weight is summed in float32 (see
    `weight_gradient`). Besides the gradients, memory is needed for a few blocks of `options.chunk_rows` × vocab.
    Ignored tokens are left out first, for which it waits for an accelerator (see `skip_ignored`). With
    `reduction="none"` the backward pass computes the blocks again, because it brings a factor for each token; so does a
    second backward pass.

    Args:
        hidden: [..., dim], the head's inputs, in any floating-point dtype. Under autocast, products have the
            dtype of autocast.
        weight: [vocab, dim], as in `torch.nn.Linear`.
        labels: [...], token ids or `options.ignore_index`; or distributions over tokens, as `SoftTargets`.
        costs: a cost for each row of the weight, on the same device; None for objectives without costs.
        options: the objective, the mixing, the reduction and others.
        bias: [vocab].
        token_weights: see `emo_loss`.
        step: see `emo_loss`.

    Returns:
        The loss, as `emo_loss` returns it.

    Raises:
        ShapeError: shapes or widths do not match.
        UsageError: see `emo_loss`; also if the weight is a DTensor.
    """
    return _linear_emo_loss(hidden, weight, bias, Arguments(labels, costs, options.at(step), token_weights)).loss


@eager
def linear_emo_loss_with_parts(
    hidden: Float[Tensor, "*tokens dim"],
    weight: Float[Tensor, "vocab dim"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    bias: Float[Tensor, "vocab"] | None = None,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    entropy: bool = False,
) -> EMOResult:
    """`linear_emo_loss` with the parts of each token's loss: see `EMOParts`.

    Args:
        hidden, weight, labels, costs, options, bias, token_weights, step: see `linear_emo_loss`.
        entropy: see `emo_loss_with_parts`.

    Raises:
        ShapeError, UsageError: see `linear_emo_loss`.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy)
    return _linear_emo_loss(hidden, weight, bias, arguments)


def linear_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments, wanted: tuple[bool, ...]
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """`linear_emo_loss`; a factor of its gradients of hidden states, weight and bias; and these, None if not wanted."""
    _check(hidden, weight, bias, arguments)
    head = _head_call(hidden, weight, bias, arguments, VocabShard(0, len(weight), len(weight)))
    loss, factor, (of_hidden, *others) = gradients_of_hidden(
        hidden.reshape(-1, hidden.shape[-1]), weight, bias, head, wanted
    )
    check_finite(loss, arguments.options, _NOT_FINITE)
    return loss, factor, (None if of_hidden is None else of_hidden.view(hidden.shape), *others)


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments) -> None:
    arguments.check_kinds(hidden=hidden, weight=weight, bias=bias)
    check_plain(hidden=hidden, weight=weight, bias=bias)
    refuse_other_shapes(hidden, weight, arguments.costs, arguments.labels)
    check_linear(hidden, weight, bias)


def _linear_emo_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments) -> EMOResult:
    _check(hidden, weight, bias, arguments)
    return linear_losses(hidden, weight, bias, arguments, VocabShard(0, len(weight), len(weight)))


def linear_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: Arguments,
    shard: VocabShard,
    reduce_hidden: Callable[[Tensor], None] | None = None,
) -> EMOResult:
    """The loss over the whole vocabulary, or over the slice `shard`.

    Args:
        hidden, weight, bias: tensors that `check_linear` has accepted.
        arguments: the other arguments of the loss.
        shard: the slice of the vocabulary that the weight's rows represent.
        reduce_hidden: sums the gradient of the hidden states over processes, in place.
    """
    head = _head_call(hidden, weight, bias, arguments, shard, reduce_hidden)
    losses, parts = losses_of_hidden(hidden.reshape(-1, hidden.shape[-1]), weight, bias, head)
    check_finite(losses, arguments.options, _NOT_FINITE)
    return head.call.result(losses, parts)


def _head_call(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: Arguments,
    shard: VocabShard,
    reduce_hidden: Callable[[Tensor], None] | None = None,
) -> HeadCall:
    device = hidden.device.type
    # As in torch.nn.Linear: products in autocast's type, everything else in float32.
    cast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    products = torch.get_autocast_dtype(device) if cast else hidden.dtype
    tensors = {"hidden": hidden, "weight": weight, "bias": bias}
    call = prepare(arguments, hidden.shape[:-1], shard, products, True, hidden.device, **tensors)
    return HeadCall(call, products, reduce_hidden, torch.is_grad_enabled())
