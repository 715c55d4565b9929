"""A loss as a function for a Trainer as it is, and the callback that pins checkpoints to a loss."""

from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerState

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, LinearEMOLoss, Schedule, emo_loss
from costbank.trainers.adapters import check_adapters
from costbank.trainers.agreement import shifts_labels
from costbank.trainers.decoder import DecoderInputs
from costbank.trainers.given import as_loss
from costbank.trainers.pins import PIN_KEY, check_pin, pin_of
from costbank.trainers.reduction import as_trained, check_ignore_index, check_smoothing, per_item, to_device
from costbank.trainers.weights import check_unseen

__all__ = ["Pinned", "compute_loss_func"]

# What a Trainer decides, whatever the options say.
_OF_TRAINER = ("reduction", "shift")


class Pinned(TrainerCallback):
    """Writes the pin of a loss into every checkpoint, and holds the loss against it when training is resumed."""

    def __init__(self, loss: EMOLoss | LinearEMOLoss) -> None:
        self.loss = loss

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:  # noqa: ARG002
        # The part of trainer_state.json for what callbacks keep; a resumed state has that of its checkpoint.
        kept: dict[str, Any] = state.stateful_callbacks  # pyright: ignore[reportAssignmentType] -- a dict by now
        if PIN_KEY in kept:
            check_pin(kept[PIN_KEY]["attributes"], self.loss, free=_OF_TRAINER)
        kept[PIN_KEY] = {"args": {}, "attributes": pin_of(self.loss)}


class _ComputeLoss(Pinned):
    """See `compute_loss_func`."""

    step: int | None = None
    shifts: bool | None = None
    _decoder: DecoderInputs | None = None

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        if labels is None:
            raise UsageError("the batch has no labels", "give a data collator that makes them")
        if self._decoder is not None:
            self._decoder.check()
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.shape[:-1] != labels.shape:
            raise ShapeError(
                f"logits of shape {list(logits.shape)} for labels of shape {list(labels.shape)}",
                "where prompt tuning lengthens the rows, take the EMOTrainerMixin, which knows by how much",
            )
        self.loss.fit(logits.shape[-1])
        to_device(self.loss, logits)
        if isinstance(self.loss.options.weight, Schedule) and self.step is None:
            raise UsageError(
                "the weight follows a schedule, and the step is not known",
                "give the same object to the Trainer twice: Trainer(compute_loss_func=f, callbacks=[f])",
            )
        # The model has capped its logits itself.
        shift = self.shifts if self.shifts is not None else _is_decoders(outputs)
        options = replace(as_trained(self.loss.options, num_items_in_batch, shift), softcap=None)
        loss = emo_loss(logits, labels.to(logits.device), self.loss.costs, options, step=self.step)
        return per_item(loss, num_items_in_batch)

    def on_init_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:  # noqa: ARG002
        check_smoothing(args)
        model = rest.get("model")
        check_adapters(model)
        self.shifts = shifts_labels(model, device=args.device)
        if self._decoder is not None:
            self._decoder.remove()
        self._decoder = DecoderInputs(model)
        self.step = state.global_step

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        super().on_train_begin(args, state, control, **rest)
        check_unseen(rest.get("train_dataloader"))
        if self._decoder is not None:
            self._decoder.training = True

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:  # noqa: ARG002
        if self._decoder is not None:
            self._decoder.training = False

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:  # noqa: ARG002
        self.step = state.global_step


def compute_loss_func(loss: EMOLoss | LinearEMOLoss | Bank) -> _ComputeLoss:
    """A function for `Trainer(compute_loss_func=f, callbacks=[f])`.

    As the callback that it also is, it knows the step for a weight that follows a schedule, and pins checkpoints to
    the loss's costs and options. It knows the model too: it shifts labels where the model does in its own loss, which
    it measures with eight tokens when the Trainer is made, and refuses batches of an encoder-decoder without
    `decoder_input_ids`, since the Trainer takes labels out before the model could make them. Without the callback it
    sees outputs alone and shifts labels of all but an encoder-decoder, which is wrong for masked language models, XLNet
    and BART's decoder.

    The sum over tokens is divided by the tokens of all accumulated batches, as the Trainer's own loss has it; `shift`
    and `reduction` of the options are ignored, and so are `softcap`, which the model has applied itself, and a
    model's auxiliary loss. The Trainer counts the tokens: of models that it takes for no language model, GPT-2 for one,
    it counts first labels as well, which nothing predicts, and the mean is that much smaller; of BART's decoder it
    leaves out first labels, which are predicted, and the mean is that much larger.

    A column `token_weights` does not reach it: a Trainer removes it, and where it is told to keep it, training is
    refused.

    Args:
        loss: a loss, which is moved to the logits' device at the first call; a bank stands for `EMOLoss(bank)`.

    Raises:
        UsageError: it is neither; `ignore_index` is not -100, by which a Trainer counts tokens; from the calls, a
            schedule without the callback; from the Trainer, an adapter with a loss of its own; from resuming, a
            checkpoint that was trained with other costs or options, or a batch without inputs of the decoder.
        ShapeError: from the calls, rows that prompt tuning has lengthened.
    """
    loss = as_loss(loss, "the loss", EMOLoss)
    check_ignore_index(loss)
    return _ComputeLoss(loss)


def _is_decoders(outputs: Any) -> bool:
    """Whether logits are those of the next token; an encoder-decoder is given its labels shifted already."""
    return not (isinstance(outputs, dict) and "encoder_last_hidden_state" in outputs)
