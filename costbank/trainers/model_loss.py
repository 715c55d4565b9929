"""A loss as `model.loss_function` of transformers, which every trainer built on `model(…, labels=…)` uses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from costbank.errors import require

# Before the imports that need it: if it is missing, the error names the extra to install.
require("torch", "trainers")

from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, LinearEMOLoss, Schedule, emo_loss
from costbank.loss.arguments import eager
from costbank.trainers.arguments import as_loss, bank_if_named
from costbank.trainers.reduction import check_ignore_index, divide_by_items, move_loss, trainer_options

__all__ = ["EMOForCausalLMLoss", "check_has_logits", "emo_loss_function", "label_targets"]


class EMOForCausalLMLoss:
    """See `emo_loss_function`.

    Attributes:
        loss: the loss.
        bank: the bank that it was made from, or None.
        step: the training step, for a weight that follows a schedule; the callback sets it.
    """

    def __init__(self, loss: EMOLoss | LinearEMOLoss, bank: Bank | None = None, *, shift: bool = True) -> None:
        self.loss = loss
        self.bank = bank
        self.shift = shift
        self.step: int | None = None
        # unsloth compares the end of this name.
        self.__name__ = "EMOForCausalLMLoss" if shift else "EMOForMaskedLMLoss"
        self._gradient_arrived = False

    @eager
    def __call__(
        self,
        logits: Tensor,
        labels: Tensor | None = None,
        vocab_size: int | None = None,  # noqa: ARG002 -- the logits say it themselves
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **_others: Any,
    ) -> Tensor:
        """The loss of a batch, with the arguments of transformers' `ForCausalLMLoss`.

        Args:
            logits: [..., vocab].
            labels: [...], not shifted; not needed if `shift_labels` are given.
            vocab_size: not used.
            num_items_in_batch: what the sum over tokens is divided by; without it, the number of the batch's tokens.
            ignore_index: labels of this value are ignored.
            shift_labels: [...], labels that are already shifted.

        Raises:
            UsageError: logits or labels are missing, or the weight follows a schedule and the step is not known.
            ShapeError: there is not one label for each row of logits.
        """
        check_has_logits(logits)
        targets = label_targets(labels, shift_labels, self.shift, ignore_index)
        if targets.numel() != logits.shape[:-1].numel():
            raise ShapeError(
                f"logits of shape {list(logits.shape)} for labels of shape {list(targets.shape)}",
                "compute the logits of all positions: leave out logits_to_keep, and use no prompt tuning",
            )
        if isinstance(self.loss.options.weight, Schedule) and self.step is None:
            raise UsageError(
                "the weight follows a schedule, but the step is not known",
                "give the trainer EMOLossCallback(f) as a callback, with f this function",
            )
        rows = logits.reshape(-1, logits.shape[-1])
        self.loss.fit(rows.shape[-1])
        move_loss(self.loss, rows.device)
        options = trainer_options(self.loss.options, num_items_in_batch, shift=False)
        # The model has applied its softcap to these logits itself.
        options = replace(options, softcap=None, ignore_index=ignore_index)
        total = emo_loss(rows, targets.reshape(-1).to(rows.device), self.loss.costs, options, step=self.step)
        value = divide_by_items(total, num_items_in_batch)
        if value.requires_grad:
            value.register_hook(self._note_gradient)
        return value

    def __getstate__(self) -> dict[str, Any]:
        # A bank is a map of files, which cannot be pickled. A copy needs the costs alone.
        return {**self.__dict__, "bank": None}

    def take_gradient_arrived(self) -> bool:
        """Whether a backward pass has reached this loss since the last call of this method."""
        arrived, self._gradient_arrived = self._gradient_arrived, False
        return arrived

    def _note_gradient(self, _gradient: Tensor) -> None:
        self._gradient_arrived = True


def emo_loss_function(
    loss: EMOLoss | LinearEMOLoss | Bank | str | Path, *, shift: bool = True, **options: Any
) -> EMOForCausalLMLoss:
    """Make a function for a model of transformers: `model.loss_function = emo_loss_function(bank)`.

    The model then returns this loss wherever it is called with labels: in a Trainer, in a loop of accelerate, in any
    trainer built on these. It computes full logits, as with its own loss. Give a Trainer `EMOLossCallback(f)` as well,
    which checks the tokenizer and the model, and that gradients really come from this loss.

    The sum over tokens is divided by `num_items_in_batch` if the caller gives it, else by the number of tokens of the
    batch that are not ignored, as in the model's own loss. The options `shift`, `reduction`, `softcap` and
    `ignore_index` are ignored, because the caller or the model decides.

    Args:
        loss: a loss, or a bank for `EMOLoss(bank, …)`, also by its name, path or URL.
        shift: whether position i predicts label i + 1. Give False for a masked language model.
        **options: single options by name, or `preset=`; only with a bank.

    Raises:
        CostbankError: the bank of a name, path or URL cannot be opened; see `open_bank`.
        UsageError: `loss` is neither a loss nor a bank, an option is invalid, or there are options for a finished loss.
    """
    loss = bank_if_named(loss)
    bank = loss if isinstance(loss, Bank) else None
    if bank is not None:
        made: EMOLoss | LinearEMOLoss = EMOLoss(bank, **options)
    else:
        made = as_loss(loss, "the loss", EMOLoss)
        if options:
            raise UsageError(
                f"the options {', '.join(options)} were given with a loss, which has its own",
                "give the options to the loss: EMOLoss(bank, …), or give the bank instead of the loss",
            )
    check_ignore_index(made)
    return EMOForCausalLMLoss(made, bank, shift=shift)


def check_has_logits(logits: Any) -> None:
    """Check that there are logits.

    Raises:
        UsageError: they are missing, empty, or something that stands for logits that were not computed.
    """
    if isinstance(logits, Tensor) and logits.ndim and logits.numel():
        return
    if isinstance(logits, Tensor):
        what = f"the logits are empty, of shape {list(logits.shape)}"
    else:
        what = "the model gave no logits" + ("" if logits is None else f", but {_kind(logits)}")
    raise UsageError(
        what,
        "turn off fused losses, which skip the logits (use_liger_kernel, fused or cut cross-entropy); with unsloth, "
        "set UNSLOTH_RETURN_LOGITS=1 in the environment before training",
    )


def _kind(value: Any) -> str:
    return f"an object of class {type(value).__name__}"


def label_targets(labels: Tensor | None, shift_labels: Tensor | None, shift: bool, ignore_index: int) -> Tensor:
    """The label of each row of logits.

    Args:
        labels: [...], not shifted.
        shift_labels: [...], labels that are already shifted, if any.
        shift: whether position i predicts label i + 1.
        ignore_index: the label of positions that predict nothing.

    Raises:
        UsageError: there are no labels.
    """
    if shift_labels is not None:
        return shift_labels
    if labels is None:
        raise UsageError("the batch has no labels", "use a data collator that makes them")
    if not shift:
        return labels
    return nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
