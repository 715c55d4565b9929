"""The EMO loss of full logits, as functions."""

from jaxtyping import Float, Integer
from torch import Tensor

from costbank.loss.arguments import check_finite, check_logits, check_plain, eager
from costbank.loss.costs import Costs
from costbank.loss.engine.from_logits import losses_of_logits
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.mistakes import refuse_classes_second
from costbank.loss.options import EMOOptions
from costbank.loss.prepare import Arguments, prepare

__all__ = ["emo_loss", "emo_loss_with_parts", "logit_losses"]


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
    """The loss that `options` describe, of logits for labels or soft targets.

    Rows are taken in blocks, and the gradient is computed with the values; besides the logits' own gradient
    only a block's rows are held. Sums are in float32 whatever the dtype of the logits. −inf logits mask tokens, as in
    cross-entropy. A batch whose tokens are all ignored has loss 0, and a gradient of zeros.

    Args:
        logits: [..., vocab], any floating-point dtype.
        labels: [...], token ids or `options.ignore_index`; or distributions of tokens, as `SoftTargets`.
        costs: of as many tokens as the logits have, on their device; None for objectives without costs.
        options: how the loss is put together.
        token_weights: [...], factors of the tokens' losses, without gradient; with `shift`, that of the label at the
            same place. The mean is then over weights, and a token of weight 0 is ignored, whatever its logits hold.
        step: of training, counted from 0, where `options.weight` follows a schedule.

    Returns:
        The loss in float32 (float64 for such logits): a scalar, or [...] for `reduction="none"`. With `shift` a
        position's loss is that of the next label, and the last one's is 0.

    Raises:
        ShapeError: shapes or widths that do not fit.
        UsageError: labels that are not integers or out of range, NaN logits (both found asynchronously on an
            accelerator), tensors on several devices, or options that do not go with the costs.
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
    """`emo_loss`, and what it is made of for each token: see `EMOParts`.

    Args:
        logits, labels, costs, options, token_weights, step: see `emo_loss`.
        entropy: among the parts, that of each token's probabilities: one more pass over each block.

    Raises:
        ShapeError, UsageError: see `emo_loss`.
    """
    return _emo_loss(logits, Arguments(labels, costs, options.at(step), token_weights, parts=True, entropy=entropy))


def _emo_loss(logits: Tensor, arguments: Arguments) -> EMOResult:
    arguments.check_kinds(logits=logits)
    check_plain(logits=logits)
    check_logits(logits)
    refuse_classes_second(logits, arguments.labels)
    width = logits.shape[-1]
    return logit_losses(logits, arguments, VocabShard(0, width, width))


def logit_losses(logits: Tensor, arguments: Arguments, shard: VocabShard) -> EMOResult:
    """The loss of logits over a whole vocabulary, or over the slice of it that `shard` says."""
    compact = logits.device.type == "cpu"
    call = prepare(arguments, logits.shape[:-1], shard, logits.dtype, compact, logits=logits)
    losses, parts = losses_of_logits(logits.reshape(-1, shard.size), call)
    what = "logits or token weights hold NaN or inf, or a row of logits nothing finite"
    check_finite(losses, arguments.options, what)
    return call.result(losses, parts)
