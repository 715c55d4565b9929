"""The loss `emo` of ms-swift. `costbank plugin-path ms-swift` prints the file for its `--external_plugins`."""

import json
import os
from typing import TYPE_CHECKING, Any

from costbank.errors import require
from costbank.trainers.frameworks import require_framework

# Before the imports that need them: if one is missing, the error says what to install.
require("torch", "trainers")
require_framework("swift.loss", "ms-swift")

import torch
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.trainers.in_force import announce
from costbank.trainers.loss_settings import loss_from_settings, required_bank
from costbank.trainers.model_loss import check_has_logits, label_targets
from costbank.trainers.reduction import check_label_smoothing, divide_by_items
from costbank.trainers.split_logits import loss_sum

if TYPE_CHECKING:
    _BaseLoss: Any = object
    loss_map: dict[str, Any]
else:
    from swift.loss import BaseLoss as _BaseLoss
    from swift.loss import loss_map

__all__ = ["SwiftEMOLoss", "register"]

_REFUSED = {
    "enable_dft_loss": "DFT weights the cross-entropy, which this loss replaces",
    "enable_channel_loss": "it logs the cross-entropy of channels, which would not be this loss",
}


class SwiftEMOLoss(_BaseLoss):
    """A loss for `--loss_type emo`, with its settings in environment variables, because ms-swift gives a loss none.

    `COSTBANK_BANK` is the name, path or URL of the bank. `COSTBANK_PRESET`, `COSTBANK_OBJECTIVE`, `COSTBANK_MIXING`
    and `COSTBANK_WEIGHT` are options of `EMOLoss`; `COSTBANK_OPTIONS` is JSON with further ones. `--loss_scale`
    multiplies the losses of tokens, as it does for cross-entropy.

    Raises:
        UsageError: `COSTBANK_BANK` is not set, a setting is invalid, or training is with Megatron, sequence
            parallelism, `--enable_dft_loss`, `--enable_channel_loss` or label smoothing.
        TokenizerError: the tokenizer is not the bank's.
        CostbankError: the bank cannot be opened.
    """

    def __init__(self, args: Any, trainer: Any) -> None:
        super().__init__(args, trainer)
        _check_arguments(args, trainer, self.is_megatron)
        bank = required_bank(os.environ.get("COSTBANK_BANK"), "the environment variable COSTBANK_BANK")
        self.emo = loss_from_settings(bank, "COSTBANK_BANK", trainer.template.tokenizer, **_settings())
        announce(self.emo, "ms-swift")

    def __call__(
        self,
        outputs: Any,
        labels: Tensor,
        *,
        num_items_in_batch: Tensor | int | None = None,
        loss_scale: Tensor | None = None,
        **_others: Any,
    ) -> Tensor:
        """The loss of a batch, whose labels are not shifted.

        Args:
            outputs: the model's outputs, with `logits` [batch, length, vocab].
            labels: [batch, length].
            num_items_in_batch: what the sum over tokens is divided by; without it, the number of labels.
            loss_scale: a factor for each token's loss, shifted and flat, as ms-swift gives it.

        Raises:
            UsageError, ShapeError: see `emo_loss`.
        """
        logits = outputs.logits
        check_has_logits(logits)
        targets = label_targets(labels, None, True, -100)
        if targets.shape != logits.shape[:-1]:
            raise ShapeError(
                f"logits of shape {list(logits.shape)} for labels of shape {list(labels.shape)}",
                "turn off what lengthens or shortens the rows of logits, such as prompt tuning",
            )
        weights = None if loss_scale is None else loss_scale.reshape(-1).to(logits.device, torch.float32)
        step = self.trainer.state.global_step
        total = loss_sum(self.emo, logits, targets, token_weights=weights, step=step)
        count = (targets != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return divide_by_items(total, count)


def register() -> None:
    """Add `emo` to ms-swift's table of losses."""
    loss_map["emo"] = SwiftEMOLoss


def _settings() -> dict[str, Any]:
    """The options in environment variables.

    Raises:
        UsageError: a variable cannot be read.
    """
    settings: dict[str, Any] = {
        name: os.environ.get(f"COSTBANK_{name.upper()}") or None for name in ("preset", "objective", "mixing")
    }
    try:
        weight, more = os.environ.get("COSTBANK_WEIGHT"), os.environ.get("COSTBANK_OPTIONS")
        settings["weight"] = float(weight) if weight else None
        settings["options"] = json.loads(more) if more else None
    except ValueError as error:
        raise UsageError(
            f"COSTBANK_WEIGHT or COSTBANK_OPTIONS cannot be read: {error}",
            """set COSTBANK_WEIGHT to a number, and COSTBANK_OPTIONS to JSON such as '{"temperature": 2.0}'""",
        ) from error
    return settings


def _check_arguments(args: Any, trainer: Any, is_megatron: bool) -> None:
    """Refuse ways of training in which this loss would be wrong, or not used.

    Raises:
        UsageError: see above.
    """
    check_label_smoothing(args)
    for name, reason in _REFUSED.items():
        if getattr(args, name, False):
            raise UsageError(f"--{name} cannot be combined with --loss_type emo: {reason}", f"leave out --{name}")
    if is_megatron or trainer.template.sequence_parallel_size > 1:
        what = "Megatron" if is_megatron else "sequence parallelism"
        raise UsageError(f"--loss_type emo does not support {what}", "train without it")
