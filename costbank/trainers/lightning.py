"""The losses in a Lightning module."""

from typing import TYPE_CHECKING, Any

from costbank.errors import require

# Before the imports that need it: where it is missing, the error names the extra to install.
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
from costbank.trainers.given import check_loss
from costbank.trainers.pins import PIN_KEY, check_pin, pin_of
from costbank.trainers.reduction import plain_options

if TYPE_CHECKING:
    from lightning import LightningModule as _Module
else:
    _Module = object

__all__ = ["EMOLightningMixin"]


class EMOLightningMixin(_Module):
    """`class Model(EMOLightningMixin, LightningModule)` with an `EMOLoss` or `LinearEMOLoss` among its modules.

    Checkpoints are pinned to the costs and options of each such loss, and refuse others when they are loaded. Works
    with `lightning` and with `pytorch_lightning`, and imports neither.
    """

    def emo_step(
        self,
        loss: EMOLoss | LinearEMOLoss,
        *args: Tensor,
        prefix: str = "",
        sync_dist: bool | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Call a loss at the current step of training, and log it with the means of its parts over tokens.

        Tokens that are ignored, or have a weight of 0, are not counted. Where Lightning averages over batches, as in an
        evaluation, each counts by its tokens, and the loss by their weights, so that the result is the mean over all.

        Args:
            loss: one of this module's losses.
            *args: what it is called with; labels come last, or by name.
            prefix: of the names that are logged: `loss`, `ce`, `emd` and `accuracy`. While the module is not training,
                `ce` is the plain cross-entropy: at a temperature of 1 and not smoothed, whatever the loss's options.
            sync_dist: log the means over all processes; by default where the module is not training.
            **kwargs: others of the call, such as `bias`.

        Returns:
            The loss, to be returned from `training_step`.

        Raises:
            UsageError: `loss` is not a loss, or as calling it raises.
        """
        loss = check_loss(loss, "the loss of emo_step", LinearEMOLoss)
        result = loss.with_parts(*args, step=self.global_step, **kwargs)
        labels = kwargs["labels"] if "labels" in kwargs else args[-1]
        weights = _counted_weights(labels, kwargs.get("token_weights"), loss.options, result.parts.ce)
        counted = (weights != 0).sum()
        ce = result.parts.ce if self.training else _plain_ce(loss, result, args, kwargs)
        parts = {"ce": ce, "emd": result.parts.value, "accuracy": result.parts.correct}
        means = {prefix + name: part.sum() / counted.clamp_min(1) for name, part in parts.items()}
        sync = not self.training if sync_dist is None else sync_dist
        # Tensors, which the device need not be waited for: Lightning multiplies and adds them.
        self.log_dict(means, batch_size=counted.float(), sync_dist=sync)  # pyright: ignore[reportArgumentType] -- an int
        value, total = result.loss.detach(), weights.sum()
        if loss.options.reduction == "none":
            value = value.sum() / total.where(total != 0, torch.ones_like(total))
        elif loss.options.reduction == "sum":
            total = torch.ones_like(total)
        self.log(f"{prefix}loss", value, batch_size=total, sync_dist=sync)  # pyright: ignore[reportArgumentType]
        return result.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[PIN_KEY] = {name: pin_of(loss) for name, loss in self._emo_losses()}

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


def _counted_weights(labels: Any, token_weights: Tensor | None, options: EMOOptions, like: Tensor) -> Tensor:
    """What each token counts for in the loss: 0 where its label is ignored, its weight, or 1."""
    soft = isinstance(labels, SoftTargets)
    kept = labels.probabilities.sum(dim=-1) > 0 if soft else labels != options.ignore_index
    weights = torch.ones_like(like) if token_weights is None else token_weights.to(like)
    weights = weights.masked_fill(~kept.to(like.device), 0.0)
    # The first label of a row is predicted by nothing.
    return weights[..., 1:] if options.shift and not soft else weights


def _plain_ce(loss: EMOLoss | LinearEMOLoss, result: EMOResult, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The cross-entropy of each token, computed again where that of the loss is another."""
    options = plain_options(loss.options)
    if options is None:
        return result.parts.ce
    function: Any = linear_emo_loss_with_parts if isinstance(loss, LinearEMOLoss) else emo_loss_with_parts
    names = ("hidden", "weight", "labels") if isinstance(loss, LinearEMOLoss) else ("logits", "labels")
    with torch.no_grad():
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return function(**given, costs=None, options=options).parts.ce
