"""Measure what a trainer's model does to its logits, and how it computes its own loss."""

import logging
from typing import Any

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss import EMOOptions
from costbank.trainers.adapters import unwrap_peft
from costbank.trainers.auxiliary_loss import auxiliary_loss
from costbank.trainers.head_products import ProductHead, find_and_measure
from costbank.trainers.heads import ModelHead, find_head
from costbank.trainers.label_shift import shifts_labels
from costbank.trainers.labeled_batch import LabeledBatch
from costbank.trainers.learned_transform import check_learned, learned_parts, learned_transform
from costbank.trainers.logit_check import LogitCheck
from costbank.trainers.logit_transform import (
    LogitTransform,
    check_called_once,
    known_outputs,
    logits_of,
    parameters_after_head,
)
from costbank.trainers.own_loss import compare_own_loss
from costbank.trainers.own_loss_call import preserved_state

__all__ = ["ModelProbe"]

_LOG = logging.getLogger(__name__)
# The largest differences between equal logits, relative to the largest logit.
_FLOAT32_TOLERANCE, _MIXED_TOLERANCE = 1e-3, 3e-2
_SOFTCAP_TOLERANCE = 1e-2


class ModelProbe:
    """Measures, from a few batches, how a model computes logits and loss, and checks the logits while training.

    Attributes:
        transform: what the model does to its head's output; None until the linear form needs it.
        applied: the same in words; also what of it is learned, once a training step has shown that.
        shift: whether the model shifts labels. This follows from the kind of model until a batch shows it.
    """

    def __init__(self, model: Any, options: EMOOptions, *, check_loss: bool) -> None:
        self.transform: LogitTransform | None = None
        self.applied = ""
        self.shift = shifts_labels(model)
        self._options, self._check_loss = options, check_loss
        self._logit_check = LogitCheck()
        self._batches = 0
        self._has_auxiliary = self._warned_unverified = False
        # The head, if it is not a torch.nn.Linear.
        self._products: ProductHead | None = None
        # Whether a trained parameter comes after the head.
        self._is_learned, self._learned_parts = False, (False, False)
        # Which parameters were trainable in the last search for parameters after the head.
        self._searched_trainable: tuple[bool, ...] | None = None

    def needs_batch(self, *, linear: bool) -> bool:
        """Whether `measure` should be called with the next batch.

        These are the first batch and, until one shows whether labels are shifted, the 2nd, 4th, 8th and so on.

        Args:
            linear: whether the linear form is about to be computed.
        """
        if linear and self.transform is None:
            return True
        self._batches += self._check_loss
        return self._check_loss and self._batches & (self._batches - 1) == 0

    def has_measured(self, *, linear: bool) -> bool:
        """Whether a batch was measured, for the linear form if that is about to be computed."""
        return self.transform is not None if linear else self._batches > 0

    def measure(self, model: Any, unwrapped: Any, batch: LabeledBatch, *, linear: bool) -> None:
        """Measure with a batch, in a few calls of the model without gradient.

        Args:
            model: the model to call, with all wrappers.
            unwrapped: the model, with or without PEFT's wrapper.
            batch: the batch.
            linear: whether the linear form is about to be computed.

        Raises:
            UsageError: the linear form cannot use the head or what the model does to its output, or the model's own
                loss is not cross-entropy.
        """
        head_and_transform = None
        if linear:
            if self.transform is None:
                self.transform = self._measure_transform(unwrapped, batch)
            head = self.head(unwrapped)
            # The model's own loss is compared with products only by their logits.
            head_and_transform = None if isinstance(head, ProductHead) else (head, self.transform)
        if not self._check_loss:
            return
        facts = compare_own_loss(model, unwrapped, batch, head_and_transform, ignore_index=self._options.ignore_index)
        self._has_auxiliary = self._has_auxiliary or facts.auxiliary != 0.0
        if facts.shift is None:
            return
        self._check_loss = False
        if self.shift and not facts.shift:
            _LOG.warning(
                "%s does not shift labels in its own loss, so this loss does not shift them: position i predicts "
                "label i", type(unwrap_peft(unwrapped)).__name__,
            )  # fmt: skip
        self.shift = facts.shift

    def share(self, accelerator: Any) -> None:
        """Share what the batches of all processes have shown. All processes call it after `measure`.

        After that, all count tokens with the same shift, and all need the same batches.
        """
        if accelerator.num_processes == 1:
            return
        own = [not self._check_loss, self.shift, self._has_auxiliary]
        of_all = accelerator.gather(torch.tensor([own], device=accelerator.device)).tolist()
        self._has_auxiliary = any(auxiliary for *_, auxiliary in of_all)
        measured_shifts = [shift for measured, shift, _ in of_all if measured]
        if measured_shifts:
            self._check_loss, self.shift = False, measured_shifts[0]

    def head(self, unwrapped: Any) -> ModelHead:
        """The model's head, as it was found when the transform was measured.

        Raises:
            UsageError: the linear form cannot use it.
        """
        return find_head(unwrapped) if self._products is None else self._products

    def call_for_hidden_states(
        self, head: ModelHead, model: Any, inputs: dict[str, Any], *, mixed: bool
    ) -> tuple[Any, Tensor, LogitTransform]:
        """Call a model for the logits of the last position and its head's input at all positions, and compare the two.

        Args:
            head: the model's head.
            model: the model to call, with all wrappers.
            inputs: the model's inputs, without labels.
            mixed: whether the model runs under autocast.

        Returns:
            The outputs; the head's input, [batch, length, dim]; and what the model does to its head's output now.

        Raises:
            UsageError: the model does not call its head exactly once, parameters after the head do more than scale and
                shift its output, or, in the first batch, the transform does not give the logits.
        """
        assert self.transform is not None, "the transform is measured before the first batch"
        # A frozen parameter is in no graph, so the search is repeated if it becomes trainable.
        trainable = tuple(parameter.requires_grad for parameter in head.model.parameters())
        is_new = self._searched_trainable != trainable
        known = known_outputs(len(head.linear.weight)) if self._is_learned or is_new else None
        with (
            head.hidden_states(append=known) as calls,
            parameters_after_head(head) as parameters_between,
        ):
            outputs = model(**{**inputs, "use_cache": False})
        check_called_once(head, len(calls))
        logits, transform = logits_of(outputs), self.transform
        is_exact = logits.dtype == head.linear.weight.dtype == torch.float32 and not mixed
        parameters: list[Tensor] = []
        if is_new and logits.grad_fn is not None:
            self._searched_trainable = trainable
            parameters = parameters_between(logits, calls)
            self._is_learned = self._is_learned or bool(parameters)
        if known is not None:
            of_known, logits = logits[..., -len(known) :, :].flatten(0, -3)[0].float(), logits[..., : -len(known), :]
            known = known.to(logits.device, calls.outputs[0].dtype).float()
            if parameters:
                self._learned_parts = learned_parts(parameters, learned_transform(transform, known, of_known))
            if self._is_learned:
                transform = learned_transform(transform, known, of_known, learned=self._learned_parts)
            if parameters:
                check_learned(type(head.model).__name__, parameters, transform, known, of_known, exact=is_exact)
                self.applied = str(transform)
                _LOG.info("%s trains what it applies to its head's output: %s", type(head.model).__name__, self.applied)
        self._logit_check.add(
            head, transform, calls[0], logits, tolerance=_tolerance(exact=is_exact), all_tokens=is_new
        )
        if is_new:
            self._logit_check.check(type(head.model).__name__, transform)
        return outputs, calls[0], transform

    def auxiliary_loss(self, model: Any, outputs: Any) -> Tensor | None:
        """The sum of a model's auxiliary losses, each times the model's own coefficient; None if there are none.

        Raises:
            UsageError: the model's own loss had some, and these outputs have none.
        """
        loss = auxiliary_loss(model, outputs)
        if loss is None and self._has_auxiliary:
            raise UsageError(
                f"{type(model).__name__} computes its auxiliary loss only if it gets labels, but this loss calls it "
                "without labels",
                "set output_router_logits=False in its config; to train without the auxiliary loss, give "
                "emo_check_loss=False",
            )
        return loss

    def check_logits(self, unwrapped: Any, accelerator: Any) -> None:
        """Check the logits of the steps since the last call. Waits for the device.

        Raises:
            UsageError: the linear form did not compute the model's logits.
        """
        if self.transform is None:
            return
        name = type(unwrap_peft(unwrapped)).__name__
        self._logit_check.check(name, self.transform, accelerator)
        if not self._logit_check.verified and not self._warned_unverified:
            self._warned_unverified = True
            _LOG.warning(
                "all logits of %s are (nearly) equal so far, so they do not yet verify that the linear form computes "
                "them; the check continues", name,
            )  # fmt: skip

    def _measure_transform(self, unwrapped: Any, batch: LabeledBatch) -> LogitTransform:
        """Measure what the model does to its head's output, and compare a few positions with the model's own logits."""
        with preserved_state(unwrap_peft(unwrapped)):
            head, measured = find_and_measure(unwrapped, lambda: unwrapped(**{**batch.inputs, "use_cache": False}))
        self._products = head if isinstance(head, ProductHead) else None
        self.applied = str(measured.transform)
        name, transform = type(head.model).__name__, measured.transform
        self._check_softcap(head, transform)
        dtypes = {measured.logits.dtype, measured.output_dtype, head.linear.weight.dtype}
        self._logit_check.add(
            head, transform, measured.hidden, measured.logits,
            tolerance=_tolerance(exact=dtypes == {torch.float32}), all_tokens=True,
        )  # fmt: skip
        self._logit_check.check(name, transform)
        _LOG.info(
            "the linear form computes the logits of %s: hidden states times the head's weight, then %s (compared with "
            "the model's own logits at %d positions of the first batch)", name, transform, measured.hidden.shape[-2],
        )  # fmt: skip
        return transform

    def _check_softcap(self, head: ModelHead, transform: LogitTransform) -> None:
        ours, own = self._options.softcap, transform.softcap
        if ours is not None and (own is None or abs(ours - own) > _SOFTCAP_TOLERANCE * own):
            raise UsageError(
                f"softcap is {ours}, but that of {type(head.model).__name__} is {own}",
                "leave it out: what the model does to its logits is measured",
            )


def _tolerance(*, exact: bool) -> float:
    """The largest relative difference between equal logits: all in float32 (`exact`), or with 16-bit rounding."""
    return _FLOAT32_TOLERANCE if exact else _MIXED_TOLERANCE
