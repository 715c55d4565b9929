"""A loss as a function for a Trainer as it is, and the callback that pins checkpoints to a loss."""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

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

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        # The part of trainer_state.json for what callbacks keep; a resumed state has that of its checkpoint.
        kept: dict[str, Any] = state.stateful_callbacks  # pyright: ignore[reportAssignmentType] -- a dict by now
        if PIN_KEY in kept:
            check_pin(kept[PIN_KEY]["attributes"], self.loss, free=_OF_TRAINER)
        kept[PIN_KEY] = {"args": {}, "attributes": pin_of(self.loss)}


@dataclass
class _Known:
    """What the function knows of a Trainer's model."""

    shift: bool
    step: int
    decoder: DecoderInputs


class _ComputeLoss(Pinned):
    """See `compute_loss_func`."""

    def __init__(self, loss: EMOLoss | LinearEMOLoss) -> None:
        super().__init__(loss)
        # By model: one function may be given to several Trainers.
        self._models: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
        self._trained: _Known | None = None

    @property
    def shifts(self) -> bool | None:
        """Whether the model shifts labels in its own loss; None without the callback.

        Raises:
            UsageError: the function was given to several Trainers, whose models differ in that, and none is training.
        """
        known = [self._trained] if self._trained is not None else list(self._models.values())
        if len({one.shift for one in known}) > 1:
            raise UsageError(
                "the function was given to several Trainers, and the labels of one model are shifted and those of "
                "another are not",
                "make a function for each: compute_loss_func(loss)",
            )
        return known[0].shift if known else None

    @property
    def step(self) -> int | None:
        """The step of training; None without the callback."""
        known = [self._trained] if self._trained is not None else list(self._models.values())
        return known[-1].step if known else None

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        if labels is None:
            raise UsageError("the batch has no labels", "give a data collator that makes them")
        for known in self._models.values():
            known.decoder.check()
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
        shift = _is_decoders(outputs) if self.shifts is None else self.shifts
        options = replace(as_trained(self.loss.options, num_items_in_batch, shift), softcap=None)
        loss = emo_loss(logits, labels.to(logits.device), self.loss.costs, options, step=self.step)
        return per_item(loss, num_items_in_batch)

    def on_init_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        check_smoothing(args)
        self._learn(rest.get("model"), args, state).decoder.watch()

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        super().on_train_begin(args, state, control, **rest)
        check_unseen(rest.get("train_dataloader"))
        model = rest.get("model")
        known = self._models.get(model) if model is not None else None
        # Of one that `model_init` makes there is another for each training.
        self._trained = self._learn(model, args, state) if known is None else known

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._trained is not None:
            self._trained.step = state.global_step
            self._trained.decoder.watch()

    def on_substep_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._trained is not None:
            self._trained.decoder.watch()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        # An evaluation may follow.
        if self._trained is not None:
            self._trained.decoder.watch()

    def on_prediction_step(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        known = self._models.get(rest.get("model"))
        if known is not None:
            known.decoder.watch()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        known = self._models.get(rest.get("model"))
        if known is not None and known is not self._trained:
            known.decoder.remove()

    def on_predict(self, args: Any, state: TrainerState, control: Any, metrics: Any, **rest: Any) -> None:
        self.on_evaluate(args, state, control, **rest)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._trained is not None:
            self._trained.step = state.global_step
            self._trained.decoder.remove()
        self._trained = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None, "_trained": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _models=WeakKeyDictionary())

    def _learn(self, model: Any, args: Any, state: TrainerState) -> _Known:
        """Learn how a model's own loss takes labels."""
        check_adapters(model)
        if model in self._models:
            self._models[model].decoder.remove()
        known = _Known(shifts_labels(model, device=args.device), state.global_step, DecoderInputs(model))
        self._models[model] = known
        return known


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

    Several Trainers may have the same function; where their models differ in how labels are shifted, it refuses to
    evaluate after they were made, since nothing says which of them is evaluated. The hook by which it sees the inputs
    of an encoder-decoder is taken off when training ends.

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
