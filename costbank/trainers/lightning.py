"""The losses in a Lightning module."""

from typing import TYPE_CHECKING, Any

from costbank.errors import require

# Before the imports that need it: if it is missing, the error names the extra to install.
require("torch", "trainers")

import torch
from torch import Tensor

from costbank.loss import (
    EMOLoss,
    EMOOptions,
    EMOResult,
    LinearEMOLoss,
    SoftTargets,
    emo_loss_with_parts,
    linear_emo_loss_with_parts,
)
from costbank.trainers.arguments import check_loss
from costbank.trainers.checkpoint_pin import PIN_KEY, check_pin, make_pin
from costbank.trainers.reduction import plain_ce_options

if TYPE_CHECKING:
    from lightning import LightningModule as _Module
else:
    _Module = object

__all__ = ["EMOLightningMixin"]


class EMOLightningMixin(_Module):
    """`class Model(EMOLightningMixin, LightningModule)` with an `EMOLoss` or `LinearEMOLoss` among its modules.

    Checkpoints are pinned to the costs and options of each such loss. A checkpoint with others cannot be loaded. This
    class works with `lightning` and with `pytorch_lightning`, and imports neither.
    """

    def emo_step(
        self,
        loss: EMOLoss | LinearEMOLoss,
        *args: Tensor,
        prefix: str = "",
        sync_dist: bool | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Call a loss at the current training step, and log it with the means of its parts over tokens.

        Ignored tokens, and tokens of weight 0, are not counted. When Lightning averages over batches, as in an
        evaluation, each batch is weighted by its number of tokens, and its loss by the sum of their weights, so the
        result is the mean over all tokens.

        Args:
            loss: one of this module's losses.
            *args: the loss's arguments; labels are the last of them, or given by name.
            prefix: the prefix of the logged names `loss`, `ce`, `accuracy`, and `emd` (for the objectives `emo` and
                `delta`) or `objective_value`. While the module is not training, `ce` is plain cross-entropy, at
                temperature 1 and not smoothed, whatever the loss's options.
            sync_dist: log the means over all processes; by default if the module is not training.
            **kwargs: more arguments of the loss, such as `bias`.

        Returns:
            The loss, for `training_step` to return.

        Raises:
            UsageError: `loss` is not a loss, or the call of the loss raises this error.
        """
        loss = check_loss(loss, "the loss of emo_step", LinearEMOLoss)
        result = loss.with_parts(*args, step=self.global_step, **kwargs)
        labels = kwargs["labels"] if "labels" in kwargs else args[-1]
        weights = _effective_weights(labels, kwargs.get("token_weights"), loss.options, result.parts.ce)
        token_count, weight_sum = (weights != 0).sum(), weights.sum()
        ce = result.parts.ce if self.training else _plain_ce(loss, result, args, kwargs)
        parts = {"ce": ce, loss.options.value_name: result.parts.value, "accuracy": result.parts.correct}
        means = {prefix + name: part.sum() / token_count.clamp_min(1) for name, part in parts.items()}
        sync = not self.training if sync_dist is None else sync_dist
        # Batch sizes as tensors: Lightning multiplies and adds them without waiting for the device.
        self.log_dict(means, batch_size=token_count.float(), sync_dist=sync)  # pyright: ignore[reportArgumentType] -- an int
        value = result.loss.detach()
        if loss.options.reduction == "none":
            value = value.sum() / weight_sum.where(weight_sum != 0, torch.ones_like(weight_sum))
        elif loss.options.reduction == "sum":
            weight_sum = torch.ones_like(weight_sum)
        self.log(f"{prefix}loss", value, batch_size=weight_sum, sync_dist=sync)  # pyright: ignore[reportArgumentType]
        return result.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[PIN_KEY] = {name: make_pin(loss) for name, loss in self._emo_losses()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint was trained with these losses.

        Raises:
            UsageError: it was trained with other costs or options.
        """
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get(PIN_KEY, {})
        for name, loss in self._emo_losses():
            if name in saved:
                check_pin(saved[name], loss)

    def _emo_losses(self) -> list[tuple[str, EMOLoss | LinearEMOLoss]]:
        return [(name, part) for name, part in self.named_modules() if isinstance(part, EMOLoss | LinearEMOLoss)]


def _effective_weights(labels: Any, token_weights: Tensor | None, options: EMOOptions, like: Tensor) -> Tensor:
    """The weight of each token in the loss: 0 if its label is ignored, else its token weight, or 1."""
    is_soft = isinstance(labels, SoftTargets)
    counted = labels.probabilities.sum(dim=-1) > 0 if is_soft else labels != options.ignore_index
    weights = torch.ones_like(like) if token_weights is None else token_weights.to(like)
    weights = weights.masked_fill(~counted.to(like.device), 0.0)
    # With a shift, nothing predicts the first label of a row.
    return weights[..., 1:] if options.shift and not is_soft else weights


def _plain_ce(loss: EMOLoss | LinearEMOLoss, result: EMOResult, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The plain cross-entropy of each token, computed anew if the loss smooths labels or has a temperature."""
    options = plain_ce_options(loss.options)
    if options is None:
        return result.parts.ce
    is_linear = isinstance(loss, LinearEMOLoss)
    function: Any = linear_emo_loss_with_parts if is_linear else emo_loss_with_parts
    names = ("hidden", "weight", "labels") if is_linear else ("logits", "labels")
    with torch.no_grad():
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        return function(**arguments, costs=None, options=options).parts.ce
