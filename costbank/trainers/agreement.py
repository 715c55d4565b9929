"""What a trainer knows of its model: the form of its logits, whether it shifts labels, and the proof of both."""

import logging
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import EMOOptions
from costbank.trainers.adapters import base_of
from costbank.trainers.auxiliary import auxiliary_loss
from costbank.trainers.heads import FULL_LOGITS, Head, find_head
from costbank.trainers.logits import LogitForm, check_calls, learned_after, logits_of, measure_form
from costbank.trainers.ownloss import Batch, compare_own_loss, measured_shift, same_state
from costbank.trainers.proof import Proof

__all__ = ["Agreement", "shifts_labels"]

_LOG = logging.getLogger(__name__)
_EXACT, _MIXED = 1e-3, 3e-2


def shifts_labels(model: Any, device: Any = None) -> bool:
    """Whether a model shifts labels in its own loss.

    Args:
        model: a model, as PEFT may wrap it.
        device: where it is measured, if all of the model is there; else it is what the model says of itself: an
            encoder-decoder and a masked language model do not.
    """
    if device is not None and all(parameter.device.type == device.type for parameter in model.parameters()):
        measured = measured_shift(model)
        if measured is not None:
            return measured
    model = base_of(model)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    return getattr(model, "loss_type", None) != "ForMaskedLM"


class Agreement:
    """How the logits of a model and its loss are computed, learned from batches and proved while training.

    Attributes:
        form: of the logits, once a linear loss has asked for it.
        shift: whether the model shifts labels; what it says of itself until a batch has shown it.
    """

    def __init__(self, model: Any, options: EMOOptions, *, check_loss: bool) -> None:
        self.form: LogitForm | None = None
        self.shift = shifts_labels(model)
        self._options, self._check_loss = options, check_loss
        self._proof = Proof()
        self._batches = 0
        self._warned = self._auxiliary = False
        # Which parameters were trained when what stands behind the head was last looked at.
        self._looked_behind: tuple[bool, ...] | None = None

    def wants(self, *, linear: bool) -> bool:
        """Whether to learn from the next batch: the first, and where that did not tell, the 2nd, 4th, 8th and so on.

        Args:
            linear: whether the linear form is about to be computed.
        """
        if linear and self.form is None:
            return True
        self._batches += self._check_loss
        return self._check_loss and self._batches & (self._batches - 1) == 0

    def has_begun(self, *, linear: bool) -> bool:
        """Whether it has learned from a batch already, for the linear form where that is about to be computed."""
        return self.form is not None if linear else self._batches > 0

    def learn(self, model: Any, unwrapped: Any, batch: Batch, *, linear: bool) -> None:
        """Learn from a batch, with two calls of the model without gradient.

        Args:
            model: as it is called, whatever wraps it.
            unwrapped: the model, as PEFT may wrap it.
            batch: the batch.
            linear: whether the linear form is about to be computed.

        Raises:
            UsageError: the head cannot be used by the linear form, something else is done to logits, or the model's own
                loss is another one.
        """
        measured = None
        if linear:
            head = find_head(unwrapped)
            if self.form is None:
                with same_state(head.model):
                    self.form = measure_form(head, lambda: unwrapped(**{**batch.inputs, "use_cache": False}))
                self._check_softcap(head)
                _LOG.info("between its head and its logits %s applies %s", type(head.model).__name__, self.form)
            measured = (head, self.form)
        if not self._check_loss:
            return
        own = compare_own_loss(model, unwrapped, batch, measured, ignore_index=self._options.ignore_index)
        self._auxiliary = self._auxiliary or own.auxiliary != 0.0
        if own.shift is None:
            return
        self._check_loss = False
        if own.shift < self.shift:
            _LOG.warning(
                "%s does not shift labels in its own loss, and neither does this one: position i predicts label i",
                type(base_of(unwrapped)).__name__,
            )
        self.shift = own.shift

    def share(self, accelerator: Any) -> None:
        """Take over what the batches of other processes have shown, after `learn`, which all have called.

        All then count tokens by the same shift, and none learns from a batch that the others do not learn from.
        """
        if accelerator.num_processes == 1:
            return
        own = [not self._check_loss, self.shift, self._auxiliary]
        known = accelerator.gather(torch.tensor([own], device=accelerator.device)).tolist()
        self._auxiliary = any(auxiliary for *_, auxiliary in known)
        shifts = [shift for sure, shift, _ in known if sure]
        if shifts:
            self._check_loss, self.shift = False, shifts[0]

    def hidden_of(self, head: Head, model: Any, inputs: dict[str, Any], *, mixed: bool) -> tuple[Any, Tensor]:
        """Call a model for the logits of the last position and the head's inputs of all, and prove the form by them.

        Args:
            head: of the model.
            model: as it is called.
            inputs: of the model, without labels.
            mixed: whether autocast rounds.

        Raises:
            UsageError: the model calls its head more or less often than once, a parameter stands between head and
                logits, or, for the first batch, the form is not that of the logits.
        """
        assert self.form is not None, "the form is measured before the first batch"
        with head.hidden_states() as caught, learned_after(head) as learned:
            outputs = model(**{**inputs, "use_cache": False})
        check_calls(head, len(caught))
        # A parameter that was frozen then, and is trained now, was not seen.
        trained = tuple(parameter.requires_grad for parameter in head.model.parameters())
        logits, first = logits_of(outputs), self._looked_behind != trained
        if first and logits.grad_fn is not None:
            self._looked_behind = trained
            shapes = learned(logits)
            if shapes:
                raise UsageError(
                    f"{type(head.model).__name__} applies learned parameters of shape {shapes} to its head's output",
                    FULL_LOGITS,
                )
        exact = logits.dtype == head.linear.weight.dtype == torch.float32 and not mixed
        self._proof.add(head, self.form, caught[0], logits, rounding=_EXACT if exact else _MIXED, whole=first)
        if first:
            self._proof.check(type(head.model).__name__)
        return outputs, caught[0]

    def auxiliary_loss(self, model: Any, outputs: Any) -> Tensor | None:
        """The auxiliary losses among a model's outputs, weighed as the model weighs them; None where there are none.

        Raises:
            UsageError: the model's own loss had some, and these outputs have none.
        """
        loss = auxiliary_loss(model, outputs)
        if loss is None and self._auxiliary:
            raise UsageError(
                f"{type(model).__name__} computes its auxiliary loss with labels alone, and this loss calls it without "
                "labels",
                "set output_router_logits=False in its config; to train without the auxiliary loss nevertheless, give "
                "emo_check_loss=False",
            )
        return loss

    def check(self, unwrapped: Any, accelerator: Any) -> None:
        """Read the proof of the steps since the last call; the device is waited for.

        Raises:
            UsageError: the linear form has not computed the model's logits.
        """
        name = type(base_of(unwrapped)).__name__
        self._proof.check(name, accelerator)
        if self.form is not None and not self._proof.proved and not self._warned:
            self._warned = True
            _LOG.warning(
                "all logits of %s are (nearly) equal so far, so it is not proved yet that the linear form computes "
                "them; the proof goes on", name,
            )  # fmt: skip

    def _check_softcap(self, head: Head) -> None:
        assert self.form is not None
        asked, own = self._options.softcap, self.form.softcap
        if asked is not None and (own is None or abs(asked - own) > 1e-2 * own):
            raise UsageError(
                f"softcap is {asked}, and that of {type(head.model).__name__} is {own}",
                "leave it out: what the model does to its logits is measured",
            )
