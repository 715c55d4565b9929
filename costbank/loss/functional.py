"""The EMO loss of full logits, as functions."""

from jaxtyping import Float, Integer
from torch import Tensor

from costbank.loss.arguments import check_finite, check_logits, check_plain, eager
from costbank.loss.costs import Costs
from costbank.loss.engine.call import Call
from costbank.loss.engine.from_logits import gradient_of_logits, losses_of_logits
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.mistakes import refuse_classes_second
from costbank.loss.options import EMOOptions
from costbank.loss.prepare import Arguments, prepare

__all__ = ["emo_loss", "emo_loss_with_parts", "logit_gradient", "logit_losses"]

_NOT_FINITE = "logits or token weights contain NaN or inf, or all logits of a row are -inf"


@eager
def emo_loss(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
) -> Tensor:
    """The loss of logits for labels or soft targets.

    Rows are processed in blocks, and the gradient is computed together with the values. Besides the gradient of the
    logits, memory is needed for one block only. Sums are in float32 for any type of logits. −inf logits mask tokens, as
    in cross-entropy. If all tokens of a batch are ignored, the loss and its gradient are 0.

    Args:
        logits: [..., vocab], any floating-point dtype.
        labels: [...], token ids or `options.ignore_index`; or distributions over tokens, as `SoftTargets`.
        costs: a cost for each column of the logits, on the same device; None for objectives without costs.
        options: the objective, the mixing, the reduction and others.
        token_weights: [...], a factor for each token's loss, without gradient; with `shift`, a weight belongs to the
            label at the same position. The mean is divided by the sum of weights. A token of weight 0 is ignored, even
            if its logits are NaN.
        step: the training step, counted from 0, if `options.weight` follows a schedule.

    Returns:
        The loss in float32 (float64 for float64 logits): a scalar, or [...] for `reduction="none"`. With `shift`, the
        loss of a position is that of the next label, and the last one is 0.

    Raises:
        ShapeError: shapes or widths do not match.
        UsageError: labels are not integers or are out of range, logits are NaN (both checked asynchronously on an
            accelerator), tensors are on several devices, or the objective does not support the costs.
    """
    return _emo_loss(logits, Arguments(labels, costs, options.at(step), token_weights)).loss


@eager
def emo_loss_with_parts(
    logits: Float[Tensor, "*tokens vocab"],
    labels: Integer[Tensor, "*tokens"] | SoftTargets,
    costs: Costs | None,
    options: EMOOptions = EMOOptions(),
    *,
    token_weights: Float[Tensor, "*tokens"] | None = None,
    step: int | None = None,
    entropy: bool = False,
) -> EMOResult:
    """`emo_loss` with the parts of each token's loss: see `EMOParts`.

    Args:
        logits, labels, costs, options, token_weights, step: see `emo_loss`.
        entropy: whether the parts include the entropy of each token's probabilities, which without Triton kernels takes
            one more pass over each block.

    Raises:
        ShapeError, UsageError: see `emo_loss`.
    """
    return _emo_loss(logits, Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy))


def _emo_loss(logits: Tensor, arguments: Arguments) -> EMOResult:
    return logit_losses(logits, arguments, _check(logits, arguments))


def logit_gradient(logits: Tensor, arguments: Arguments, wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """`emo_loss`; a factor of its gradient; and that gradient, None if not wanted."""
    shard = _check(logits, arguments)
    loss, factor, gradient = gradient_of_logits(logits.reshape(-1, shard.size), _call(logits, arguments, shard), wanted)
    check_finite(loss, arguments.options, _NOT_FINITE)
    return loss, factor, None if gradient is None else gradient.view(logits.shape)


def logit_losses(logits: Tensor, arguments: Arguments, shard: VocabShard) -> EMOResult:
    """The loss of logits over the whole vocabulary, or over the slice `shard`."""
    call = _call(logits, arguments, shard)
    losses, parts = losses_of_logits(logits.reshape(-1, shard.size), call)
    check_finite(losses, arguments.options, _NOT_FINITE)
    return call.result(losses, parts)


def _check(logits: Tensor, arguments: Arguments) -> VocabShard:
    arguments.check_kinds(logits=logits)
    check_plain(logits=logits)
    check_logits(logits)
    refuse_classes_second(logits, arguments.labels)
    width = logits.shape[-1]
    return VocabShard(0, width, width)


def _call(logits: Tensor, arguments: Arguments, shard: VocabShard) -> Call:
    # Kernels read logits where they are; rows that are left out would have to be copied.
    compact = logits.device.type == "cpu" and arguments.options.kernels != "triton"
    return prepare(arguments, logits.shape[:-1], shard, logits.dtype, compact, logits.device, logits=logits)
