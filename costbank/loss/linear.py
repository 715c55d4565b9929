"""The EMO loss of hidden states and a head's weight, which never holds the logits of all tokens."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from costbank.loss.arguments import check_finite, check_linear, check_plain, eager
from costbank.loss.costs import Costs
from costbank.loss.engine.from_hidden import HeadCall, losses_of_hidden
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.mistakes import refuse_other_shapes
from costbank.loss.options import EMOOptions
from costbank.loss.prepare import Arguments, prepare

__all__ = ["linear_emo_loss", "linear_emo_loss_with_parts", "linear_losses"]


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
    """`emo_loss` of the logits hidden · weightᵀ + bias, which are made and used a block of tokens at a time.

    Gradients are computed with the values, and that of the weight is summed in float32; so besides the gradients
    themselves only a few blocks of `options.chunk_rows` × vocab are held. Ignored tokens are left out before anything
    else, for which the host waits once for an accelerator. With `reduction="none"` the backward pass computes the
    blocks again, since each token's gradient has a factor of its own then; so does a second backward pass.

    Args:
        hidden: [..., dim], the head's inputs, in any floating-point dtype. Under autocast products are in its dtype.
        weight: [vocab, dim], as `torch.nn.Linear` has it.
        labels: [...], token ids or `options.ignore_index`; or distributions of tokens, as `SoftTargets`.
        costs: of as many tokens as the head has rows, on its device; None for objectives without costs.
        options: how the loss is put together.
        bias: [vocab].
        token_weights: see `emo_loss`.
        step: see `emo_loss`.

    Returns:
        The loss, as `emo_loss` returns it.

    Raises:
        ShapeError: shapes or widths that do not fit.
        UsageError: see `emo_loss`; also a weight whose rows are shared out over processes.
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
    """`linear_emo_loss`, and what it is made of for each token: see `EMOParts`.

    Args:
        hidden, weight, labels, costs, options, bias, token_weights, step: see `linear_emo_loss`.
        entropy: see `emo_loss_with_parts`.

    Raises:
        ShapeError, UsageError: see `linear_emo_loss`.
    """
    arguments = Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy)
    return _linear_emo_loss(hidden, weight, bias, arguments)


def _linear_emo_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None, arguments: Arguments) -> EMOResult:
    arguments.check_kinds(hidden=hidden, weight=weight, bias=bias)
    check_plain(hidden=hidden, weight=weight, bias=bias)
    refuse_other_shapes(hidden, weight, arguments.costs, arguments.labels)
    check_linear(hidden, weight, bias)
    return linear_losses(hidden, weight, bias, arguments, VocabShard(0, len(weight), len(weight)))


def linear_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: Arguments,
    shard: VocabShard,
    reduce_hidden: Callable[[Tensor], None] | None = None,
) -> EMOResult:
    """The loss over a whole vocabulary, or over the slice of it that `shard` says.

    Args:
        hidden, weight, bias: shapes and types that `check_linear` has accepted.
        arguments: as the loss was called with them.
        shard: the tokens of the weight's rows.
        reduce_hidden: sums the gradient of the hidden states over processes, in place.
    """
    device = hidden.device.type
    # As torch.nn.Linear would: products in autocast's type, everything else in float32.
    cast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    products = torch.get_autocast_dtype(device) if cast else hidden.dtype
    call = prepare(arguments, hidden.shape[:-1], shard, products, compact=True, hidden=hidden, weight=weight, bias=bias)
    head = HeadCall(call, products, reduce_hidden, torch.is_grad_enabled())
    losses, parts = losses_of_hidden(hidden.reshape(-1, hidden.shape[-1]), weight, bias, head)
    what = "hidden states, the head's weight or token weights hold NaN or inf, or their products do"
    check_finite(losses, arguments.options, what)
    return call.result(losses, parts)
