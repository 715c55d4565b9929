"""A model's own loss of a batch, held against cross-entropy as our losses have it: shift, masks, auxiliary losses."""

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.loss import EMOOptions, emo_loss, linear_emo_loss
from costbank.trainers.adapters import base_of, virtual_tokens
from costbank.trainers.auxiliary import auxiliary_loss, own_factors
from costbank.trainers.heads import Head, cut_inputs, output_module
from costbank.trainers.logits import LogitForm, logits_of

__all__ = ["Batch", "OwnLoss", "compare_own_loss", "measured_shift", "same_state"]

_LOG = logging.getLogger(__name__)
# The most logits that are made at once, in numbers: 64 MB of float32.
_MOST_LOGITS = 1 << 24
_EXACT, _ROUNDED = 1e-3, 1e-2


@dataclass(frozen=True)
class Batch:
    """A batch as a Trainer has it.

    Attributes:
        inputs: of the model, without labels.
        labels: [batch, length].
        shifted: labels that are shifted already, where the collator gives them as well.
        came: the inputs as the collator gave them, where the decoder's have been made from labels since.
    """

    inputs: dict[str, Any]
    labels: Tensor
    shifted: Tensor | None = None
    came: dict[str, Any] | None = None


@dataclass(frozen=True)
class OwnLoss:
    """What a batch has shown of a model's own loss.

    Attributes:
        shift: whether position i predicts label i + 1; None where the batch does not tell, as where all logits are
            equal, where its labels are given shifted, or where the model has no loss.
        auxiliary: what the model has added to its cross-entropy.
    """

    shift: bool | None = None
    auxiliary: float = 0.0


@dataclass(frozen=True)
class _Called:
    """Outputs with the model's own loss, labels as long as its logits, and the head's inputs where they are known."""

    outputs: dict[str, Any]
    labels: Tensor
    shifted: Tensor | None
    hidden: Tensor | None

    @property
    def targets(self) -> Tensor:
        return self.labels if self.shifted is None else self.shifted


@contextmanager
def same_state(model: nn.Module) -> Iterator[None]:
    """Put back random states and buffers that calling a model changes."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    # Models of speech draw the masks of SpecAugment from NumPy.
    others = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the state that models draw from
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=sorted(devices, key=str), device_type=_kind(devices)):
        yield
    random.setstate(others[0])
    np.random.set_state(others[1])  # noqa: NPY002 -- the state that models draw from
    with torch.no_grad():
        for buffer, version, before in buffers:
            if buffer._version != version:
                buffer.copy_(before)


def compare_own_loss(
    model: Any, unwrapped: Any, batch: Batch, linear: tuple[Head, LogitForm] | None, *, ignore_index: int
) -> OwnLoss:
    """Hold a model's own loss of a batch against cross-entropy as our losses compute it.

    The model is called once, with labels and without gradient. Of large batches it makes the logits of a part of one
    row. Its own loss is held against the cross-entropy of its logits, and against that of the linear form.

    Args:
        model: as it is called, whatever wraps it.
        unwrapped: the model, as PEFT may wrap it.
        batch: a batch.
        linear: the head and the form of the logits, where the linear form is trained with.
        ignore_index: of labels.

    Raises:
        UsageError: they differ, with labels shifted and without; the numbers are named.
    """
    base, virtual = base_of(unwrapped), virtual_tokens(unwrapped)
    called = _call(model, base, batch, virtual, ignore_index)
    losses = None if called is None else _losses(base, called, ignore_index)
    if called is not None and batch.came is not None:
        _check_decoder(model, base, batch, called, ignore_index)
    if called is None or losses is None:
        return OwnLoss()
    if len(losses.near()) == len(losses.ours) == 2:
        # Logits that say too little, as those of a model that begins; numbers in the place of the head's output say it.
        known = _call(model, base, batch, virtual, ignore_index, known=True)
        losses = (None if known is None else _losses(base, known, ignore_index)) or losses
    if not losses.near():
        raise _differs(base, losses.own, losses.ours, losses.extra)
    if len(losses.near()) == 2:
        return OwnLoss()
    (shift,) = losses.near()
    if linear is not None and called.hidden is not None:
        own = float(called.outputs["loss"].float().mean()) - losses.extra
        _check_linear(*linear, called.hidden, called.targets, own, shift, ignore_index)
    return OwnLoss(shift if called.shifted is None else None, losses.extra)


def measured_shift(model: Any) -> bool | None:
    """Whether a model shifts labels in its own loss, measured without a batch: of token ids that say nothing.

    The model is called once, without gradient, with eight tokens; known numbers are put in the place of its head's
    output, so that it does not matter what its weights are.

    Args:
        model: a model, as PEFT may wrap it.

    Returns:
        None where that does not tell, as of models that take something else than token ids, or whose loss is more than
        cross-entropy.
    """
    base, virtual = base_of(model), virtual_tokens(model)
    try:
        embedding = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # a model without such an embedding, or none at all
        return None
    rows = getattr(getattr(embedding, "weight", None), "shape", [0])[0]
    module = output_module(base)
    width = min(rows, getattr(getattr(module, "weight", None), "shape", [rows])[0])
    if width < 2 or getattr(base, "main_input_name", None) != "input_ids" or module is None:
        return None
    device = next(base.parameters()).device
    ids = torch.randint(width, (1, 8), generator=torch.Generator().manual_seed(0)).to(device)
    called = _call(model, base, Batch({"input_ids": ids}, ids), virtual, -100, known=True, quiet=True)
    losses = None if called is None else _losses(base, called, -100)
    near = [] if losses is None else losses.near()
    return near[0] if len(near) == 1 else None


@dataclass(frozen=True)
class _Losses:
    """A model's own loss of a batch, and ours with labels shifted and not, `extra` from auxiliary losses included."""

    own: float
    ours: dict[bool, float]
    extra: float
    rounding: float

    def near(self) -> list[bool]:
        """Which of ours is the model's own."""
        bound = self.rounding * max(1.0, abs(self.own))
        return [shift for shift, value in self.ours.items() if abs(value - self.own) <= bound]


def _losses(base: Any, called: _Called, ignore_index: int) -> _Losses | None:
    """The losses of a batch; None where the model has none of its own, or where they cannot be compared."""
    own, logits = called.outputs.get("loss"), logits_of(called.outputs)
    if not isinstance(own, Tensor):
        _LOG.warning("%s returns no loss of its own, so this loss is not held against it", type(base).__name__)
        return None
    if logits.shape[:-1] != called.targets.shape:
        return None
    extra = auxiliary_loss(base, called.outputs)
    extra = 0.0 if extra is None else float(extra)

    def entropy(shift: bool) -> float:
        options = EMOOptions(objective="ce", shift=shift, ignore_index=ignore_index, nan_logits="pass")
        return float(emo_loss(logits, called.targets.to(logits.device), None, options)) + extra

    own = float(own.float().mean())
    ours = {shift: entropy(shift) for shift in ((True, False) if called.shifted is None else (False,))}
    if own != own or not all(value == value for value in ours.values()):
        return None
    return _Losses(own, ours, extra, _EXACT if logits.dtype == torch.float32 else _ROUNDED)


def _call(
    model: Any, base: Any, batch: Batch, virtual: int, ignore_index: int, *, known: bool = False, quiet: bool = False
) -> _Called | None:
    """Call a model with labels; with `known` numbers in the place of its head's output. None where that fails."""
    caught: list[Tensor] = []
    labels, shifted, module = batch.labels, batch.shifted, output_module(base)
    width = getattr(getattr(module, "weight", None), "shape", [1 << 17])[0]
    rows = positions = slice(None)
    if labels.numel() * width > _MOST_LOGITS:
        if module is None or virtual:
            _LOG.warning("the batch is too large to hold this loss against %s's own", type(base).__name__)
            return None
        rows, positions = _window(labels, max(2, _MOST_LOGITS // width), ignore_index)
        labels, shifted = labels[rows, positions], None if shifted is None else shifted[rows, positions]

    def cut(hidden: Tensor) -> Tensor:
        caught.append(hidden[rows, positions] if hidden.ndim == 3 else hidden)
        return caught[-1]

    given = {**batch.inputs, "labels": labels, **({} if shifted is None else {"shift_labels": shifted})}
    try:
        with ExitStack() as stack:
            stack.enter_context(same_state(base))
            stack.enter_context(torch.no_grad())
            if module is not None:
                stack.enter_context(cut_inputs(module, cut))
            if module is not None and known:
                stack.callback(module.register_forward_hook(_known).remove)
            outputs = model(**given)
    except (torch.OutOfMemoryError, UsageError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        # Some losses cannot be computed of a part of a row; others do not take labels.
        _LOG.log(
            logging.DEBUG if quiet else logging.WARNING,
            "%s's own loss of the first batch raises %s (%s), so this loss is not held against it",
            type(base).__name__, type(error).__name__, error,
        )  # fmt: skip
        return None
    if not isinstance(outputs, dict):
        return None
    labels = nn.functional.pad(labels, (virtual, 0), value=ignore_index)
    return _Called(outputs, labels, shifted, caught[0] if len(caught) == 1 else None)


def _check_decoder(model: Any, base: Any, batch: Batch, called: _Called, ignore_index: int) -> None:
    """Check the decoder's inputs that we made: with those that the model makes itself the head gets the same.

    Raises:
        UsageError: it does not, where there are labels.
    """
    module, caught = output_module(base), []
    if module is None or batch.came is None or called.hidden is None:
        return

    def cut(hidden: Tensor) -> Tensor:
        caught.append(hidden)
        # Enough for the head; the loss of so few logits may raise, and is not looked at.
        return hidden[..., -1:, :]

    with suppress(RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError), ExitStack() as stack:
        stack.enter_context(same_state(base))
        stack.enter_context(torch.no_grad())
        stack.enter_context(cut_inputs(module, cut))
        model(**{**batch.came, "labels": batch.labels})
    if len(caught) != 1 or caught[0].shape[:-1] != batch.labels.shape:
        return
    ours, labels, own = called.hidden, called.labels, caught[0]
    if ours.shape != own.shape:
        rows, positions = _window(batch.labels, ours.shape[1], ignore_index)
        own = own[rows, positions]
    if ours.shape != own.shape or ours.shape[:-1] != labels.shape:
        return
    kept = (labels != ignore_index).to(own.device)
    ours, own = ours[kept].float(), own[kept].float()
    bound = _EXACT if called.hidden.dtype == torch.float32 else 3 * _ROUNDED
    if own.numel() and float((ours - own).abs().max()) > bound * max(1.0, float(own.abs().max())):
        raise UsageError(
            f"{type(base).__name__} makes other inputs of its decoder from labels than this loss makes for it",
            "give a data collator that makes decoder_input_ids, and decoder_attention_mask where the model takes it; "
            "to train nevertheless, give emo_check_loss=False",
        )


def _known(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """Numbers in the place of a head's output that no two positions share."""
    if not isinstance(output, Tensor):
        return output
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.device, output.dtype)


def _window(labels: Tensor, length: int, ignore_index: int) -> tuple[slice, slice]:
    """The row with the most labels, and the part of it with the most."""
    kept = (labels != ignore_index).long()
    row = int(kept.sum(dim=1).argmax())
    sums = nn.functional.pad(kept[row].cumsum(0), (1, 0))
    length = min(length, labels.shape[1])
    start = int((sums[length:] - sums[: len(sums) - length]).argmax())
    return slice(row, row + 1), slice(start, start + length)


def _check_linear(
    head: Head, form: LogitForm, hidden: Tensor, labels: Tensor, own: float, shift: bool, ignore_index: int
) -> None:
    weight = form.weight(head.linear)
    options = form.options(EMOOptions(objective="ce", shift=shift, ignore_index=ignore_index, nan_logits="pass"))
    with torch.no_grad():
        bias = form.bias(head.linear)
        loss = linear_emo_loss(
            hidden.to(weight.device, weight.dtype), weight, labels.to(weight.device), None, options, bias=bias
        )
    rounding = _EXACT if hidden.dtype == weight.dtype == torch.float32 else 3 * _ROUNDED
    if abs(float(loss) - own) > rounding * max(1.0, abs(own)):
        raise _differs(head.model, own, {shift: float(loss)}, 0.0)


def _differs(model: Any, own: float, ours: dict[bool, float], extra: float) -> UsageError:
    name, factors = type(model).__name__, own_factors(model)
    shown = "; ".join(f"{value:.5g} with labels {'' if shift else 'not '}shifted" for shift, value in ours.items())
    added = f", auxiliary losses of {extra:.3g} included" if extra else ""
    set_to = ", ".join(f"{key}={value}" for key, value in factors.items())
    return UsageError(
        f"{name}'s own loss of the first batch is {own:.5g}, and cross-entropy as this loss computes it is "
        f"{shown}{added}",
        "the model's loss is more than the cross-entropy of its logits"
        + (f" (its config has {set_to}: set to 0 what it adds)" if set_to else "")
        + "; to leave that out and train with this loss nevertheless, give emo_check_loss=False",
    )


def _kind(devices: set[torch.device]) -> str:
    return next(iter(devices)).type if devices else "cuda"
