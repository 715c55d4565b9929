"""The losses in a Lightning module."""

from typing import TYPE_CHECKING, Any

from costbank.errors import require

# Before the imports that need it: where it is missing, the error names the extra to install.
require("torch", "trainers")

from torch import Tensor

from costbank.loss import EMOLoss, LinearEMOLoss, SoftTargets
from costbank.trainers.given import check_loss
from costbank.trainers.pins import PIN_KEY, check_pin, pin_of

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

    def emo_step(self, loss: EMOLoss | LinearEMOLoss, *args: Tensor, prefix: str = "", **kwargs: Any) -> Tensor:
        """Call a loss at the current step of training, and log it with the means of its parts over tokens.

        Args:
            loss: one of this module's losses.
            *args: what it is called with; labels come last, or by name.
            prefix: of the names that are logged: `loss`, `ce`, `emd` and `accuracy`.
            **kwargs: others of the call, such as `bias`.

        Returns:
            The loss, to be returned from `training_step`.
        """
        loss = check_loss(loss, "the loss of emo_step", LinearEMOLoss)
        result = loss(*args, step=self.global_step, parts=True, **kwargs)
        options, labels = loss.options, kwargs["labels"] if "labels" in kwargs else args[-1]
        if isinstance(labels, SoftTargets):
            kept = labels.probabilities.sum(dim=-1) > 0
        else:
            kept = (labels[..., 1:] if options.shift else labels) != options.ignore_index
        tokens = kept.sum().clamp_min(1)
        parts = {"ce": result.parts.ce, "emd": result.parts.emd, "accuracy": result.parts.correct}
        means = {name: part.sum() / tokens for name, part in parts.items()}
        logged = {"loss": result.loss.detach().mean(), **means}
        self.log_dict({prefix + name: value for name, value in logged.items()}, batch_size=len(kept))
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
