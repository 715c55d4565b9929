"""A loss as a function for an unchanged Trainer, and the callback that pins checkpoints to their loss."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor
from transformers import TrainerCallback, TrainerState

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, LinearEMOLoss, Schedule, emo_loss
from costbank.trainers.adapters import check_adapters
from costbank.trainers.arguments import as_loss
from costbank.trainers.checkpoint_pin import PIN_KEY, check_pin, make_pin
from costbank.trainers.decoder_inputs import DecoderInputCheck
from costbank.trainers.label_shift import shifts_labels
from costbank.trainers.reduction import (
    check_ignore_index,
    check_label_smoothing,
    divide_by_items,
    move_loss,
    trainer_options,
)
from costbank.trainers.token_weights import refuse_token_weights

__all__ = ["PinCallback", "compute_loss_func"]

# Options that the Trainer sets, whatever the loss has.
_TRAINER_OPTIONS = ("reduction", "shift")


class PinCallback(TrainerCallback):
    """Writes the pin of a loss into every checkpoint, and checks it when training is resumed."""

    def __init__(self, loss: EMOLoss | LinearEMOLoss) -> None:
        self.loss = loss

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        # Callbacks keep their state here, in trainer_state.json. In a resumed run it is the checkpoint's.
        saved: dict[str, Any] = state.stateful_callbacks  # pyright: ignore[reportAssignmentType] -- a dict by now
        if PIN_KEY in saved:
            check_pin(saved[PIN_KEY]["attributes"], self.loss, may_change=_TRAINER_OPTIONS)
        saved[PIN_KEY] = {"args": {}, "attributes": make_pin(self.loss)}


@dataclass
class _ModelState:
    """What the function knows about one Trainer's model."""

    shift: bool
    step: int
    decoder: DecoderInputCheck


class ComputeLoss(PinCallback):
    """See `compute_loss_func`."""

    def __init__(self, loss: EMOLoss | LinearEMOLoss) -> None:
        super().__init__(loss)
        # One function may be given to several Trainers.
        self._models: WeakKeyDictionary[Any, _ModelState] = WeakKeyDictionary()
        self._in_training: _ModelState | None = None

    @property
    def shifts(self) -> bool | None:
        """Whether the model shifts labels in its own loss; None if the function is not a callback of the Trainer.

        Raises:
            UsageError: several Trainers have this function, only some of the models shift labels, and none is training.
        """
        states = self._current_states()
        if len({state.shift for state in states}) > 1:
            raise UsageError(
                "the function was given to several Trainers, and some of their models shift labels while others do not",
                "make a function for each Trainer: compute_loss_func(loss)",
            )
        return states[0].shift if states else None

    @property
    def step(self) -> int | None:
        """The training step; None if the function is not a callback of the Trainer."""
        states = self._current_states()
        return states[-1].step if states else None

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        if labels is None:
            raise UsageError("the batch has no labels", "use a data collator that makes them")
        for state in self._models.values():
            state.decoder.check()
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.shape[:-1] != labels.shape:
            raise ShapeError(
                f"logits of shape {list(logits.shape)} for labels of shape {list(labels.shape)}",
                "if prompt tuning lengthens the rows, use the EMOTrainerMixin, which knows by how much",
            )
        self.loss.fit(logits.shape[-1])
        move_loss(self.loss, logits.device)
        if isinstance(self.loss.options.weight, Schedule) and self.step is None:
            raise UsageError(
                "the weight follows a schedule, but the step is not known",
                "give the same object to the Trainer twice: Trainer(compute_loss_func=f, callbacks=[f])",
            )
        shift = _predicts_next_token(outputs) if self.shifts is None else self.shifts
        # The model has applied its softcap to these logits itself.
        options = replace(trainer_options(self.loss.options, num_items_in_batch, shift), softcap=None)
        loss = emo_loss(logits, labels.to(logits.device), self.loss.costs, options, step=self.step)
        return divide_by_items(loss, num_items_in_batch)

    def on_init_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        check_label_smoothing(args)
        self._add_model(rest.get("model"), args, state).decoder.install()

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        super().on_train_begin(args, state, control, **rest)
        refuse_token_weights(rest.get("train_dataloader"))
        model = rest.get("model")
        known = self._models.get(model) if model is not None else None
        # With `model_init`, each training has a new model.
        self._in_training = self._add_model(model, args, state) if known is None else known

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._in_training is not None:
            self._in_training.step = state.global_step
            self._in_training.decoder.install()

    def on_substep_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._in_training is not None:
            self._in_training.decoder.install()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        # An evaluation may follow.
        if self._in_training is not None:
            self._in_training.decoder.install()

    def on_prediction_step(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        known = self._models.get(rest.get("model"))
        if known is not None:
            known.decoder.install()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        known = self._models.get(rest.get("model"))
        if known is not None and known is not self._in_training:
            known.decoder.remove()

    def on_predict(self, args: Any, state: TrainerState, control: Any, metrics: Any, **rest: Any) -> None:
        self.on_evaluate(args, state, control, **rest)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        if self._in_training is not None:
            self._in_training.step = state.global_step
            self._in_training.decoder.remove()
        self._in_training = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None, "_in_training": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _models=WeakKeyDictionary())

    def _current_states(self) -> list[_ModelState]:
        """The state of the model in training, else of all models."""
        return list(self._models.values()) if self._in_training is None else [self._in_training]

    def _add_model(self, model: Any, args: Any, state: TrainerState) -> _ModelState:
        """Find out whether a model's own loss shifts labels, and store that."""
        check_adapters(model)
        if model in self._models:
            self._models[model].decoder.remove()
        shift = shifts_labels(model, device=args.device)
        self._models[model] = _ModelState(shift, state.global_step, DecoderInputCheck(model))
        return self._models[model]


def compute_loss_func(loss: EMOLoss | LinearEMOLoss | Bank | str | Path) -> ComputeLoss:
    """Make a function for `Trainer(compute_loss_func=f, callbacks=[f])`.

    The function is also a callback. As a callback it knows the step, for a weight that follows a schedule, and pins
    checkpoints to the costs and options of the loss. It also knows the model: it shifts labels if the model's own loss
    does, which it measures with eight tokens when the Trainer is made. It also refuses batches of an encoder-decoder
    without `decoder_input_ids`, because the Trainer removes the labels from which the model would make them. Without
    the callback it sees only outputs, and shifts the labels of every model except an encoder-decoder, which is wrong
    for masked language models, XLNet and BART's decoder.

    The sum over tokens is divided by the number of tokens of all accumulated batches, as in the Trainer's own loss.
    The options `shift` and `reduction` are ignored. So is `softcap`, because the model has applied it already, and so
    is a model's auxiliary loss. The Trainer counts the tokens. For models that it does not recognize as causal
    language models, such as GPT-2, it also counts first labels, which are not predicted, so the mean is smaller. For
    BART's decoder it leaves out first labels, which are predicted, so the mean is larger.

    Several Trainers may share the function. If their models shift labels differently, evaluations outside of training
    are refused, because a call does not say to which Trainer it belongs. The hook that checks the inputs of an
    encoder-decoder is removed when training ends.

    A column `token_weights` does not reach the function: a Trainer removes it. If the Trainer is set to keep it,
    training is refused.

    Args:
        loss: a loss, which the first call moves to the logits' device, or a bank for `EMOLoss(bank)`, also by
            its name, path or URL.

    Raises:
        CostbankError: the bank of a name, path or URL cannot be opened; see `open_bank`.
        UsageError: `loss` is neither a loss nor a bank, or its `ignore_index` is not -100, the label that a Trainer
            does not count. In calls: a schedule without the callback. From the Trainer: an adapter with a loss of its
            own, a resumed checkpoint with other costs or options, or a batch without decoder inputs.
        ShapeError: in calls, rows that prompt tuning has lengthened.
    """
    loss = as_loss(loss, "the loss", EMOLoss)
    check_ignore_index(loss)
    return ComputeLoss(loss)


def _predicts_next_token(outputs: Any) -> bool:
    """Whether position i predicts label i + 1: true except for an encoder-decoder, which gets shifted inputs."""
    return not (isinstance(outputs, dict) and "encoder_last_hidden_state" in outputs)
