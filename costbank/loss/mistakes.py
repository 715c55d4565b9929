"""Common mistakes in calls of a loss, and what to pass instead."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs
from costbank.loss.engine.targets import SoftTargets

__all__ = ["check_kinds", "like_costs", "refuse_classes_second", "refuse_other_shapes"]

_OPTIONAL = ("bias", "token_weights")
_OUTPUTS = {"logits": ("logits",), "hidden": ("last_hidden_state", "hidden_states")}
"""The names of an argument in the output of a model."""


def check_kinds(costs: Any, **arguments: Any) -> None:
    """Check that costs are `Costs`, and that all other arguments are tensors (labels can be soft targets).

    Raises:
        UsageError: an argument has another type; the hint says what to pass instead.
    """
    for name, value in arguments.items():
        if isinstance(value, Tensor) or (value is None and name in _OPTIONAL):
            continue
        if not (name == "labels" and isinstance(value, SoftTargets)):
            raise UsageError(*_not_a_tensor(name, value))
    if costs is not None and not isinstance(costs, Costs):
        raise UsageError(f"costs are of type {type(costs).__name__}", f"give {like_costs(costs, 'open_costs({})')}")


def like_costs(value: Any, opened: str) -> str:
    """Code that makes costs from an argument that is not costs.

    Args:
        value: the argument.
        opened: code that makes costs from a bank; `{}` is the bank.
    """
    if isinstance(value, str | Path):
        return opened.format(f"open_bank({str(value)!r})")
    if isinstance(value, Bank):
        return f"{opened.format('bank')}, or use EMOLoss(bank, objective='emo')"
    if isinstance(value, Tensor):
        return "DenseCosts(rows)"
    return f"{opened.format('open_bank(name)')}, open_costs(bank, form) or DenseCosts(rows)"


def refuse_classes_second(logits: Tensor, labels: Any) -> None:
    """Refuse logits with the vocabulary as the second dimension, as in `F.cross_entropy`.

    Raises:
        ShapeError: the vocabulary is the second dimension.
    """
    if not isinstance(labels, Tensor) or logits.ndim < 3 or labels.shape == logits.shape[:-1]:
        return
    if labels.shape == logits.shape[:1] + logits.shape[2:]:
        raise ShapeError(
            f"logits of shape {list(logits.shape)} for labels of shape {list(labels.shape)}: the vocabulary is the "
            "second dimension, as in F.cross_entropy",
            "give logits [..., vocab]: logits.movedim(1, -1)",
        )


def refuse_other_shapes(hidden: Tensor, weight: Tensor, costs: Costs | None, labels: Any = None) -> None:
    """Refuse hidden states and a weight that are likely something else.

    Args:
        hidden, weight, labels: the arguments of the loss.
        costs: the costs of the loss. They may have another number of tokens than the weight has rows.

    Raises:
        ShapeError: they are swapped, the weight is transposed, or the hidden states are logits.
    """
    shapes = f"hidden states of shape {list(hidden.shape)} with a weight of shape {list(weight.shape)}"
    vocab = None if costs is None else costs.vocab_size
    if weight.dtype in (torch.int64, torch.int32):
        raise ShapeError(f"the weight is {weight.dtype} of shape {list(weight.shape)}", _ORDER)
    other_rows = weight.ndim != 2 or (vocab not in (None, len(weight)) and len(hidden) == vocab)
    if hidden.ndim == 2 and isinstance(labels, Tensor):
        other_rows = other_rows or len(hidden) != labels.numel() == len(weight)
    if hidden.ndim == 2 and weight.ndim and hidden.shape[-1] == weight.shape[-1] and other_rows:
        raise ShapeError(f"{shapes}: these look swapped", _ORDER)
    if weight.ndim == 2 and hidden.ndim and hidden.shape[-1] != weight.shape[1] and hidden.shape[-1] == len(weight):
        if vocab is not None and abs(weight.shape[1] - vocab) < abs(len(weight) - vocab):
            raise ShapeError(f"{shapes}: the weight looks transposed", "give it as [vocab, dim], as in nn.Linear")
        raise ShapeError(
            f"{shapes}: these look like logits",
            "give logits to EMOLoss or emo_loss; the linear loss takes the head's inputs, [..., dim]",
        )


_ORDER = "give hidden states [..., dim], then the head's weight [vocab, dim], then labels"


def _not_a_tensor(name: str, value: Any) -> tuple[str, str]:
    """The message and the hint for a value that is not a tensor."""
    verb = "are" if name.endswith("s") and name != "bias" else "is"
    message = f"{name} {verb} of type {type(value).__name__}, not a tensor"
    if value is None:
        missing = " and of the linear losses (hidden, head.weight, labels)" if name == "labels" else ""
        return f"{name} {verb} missing", f"the arguments of EMOLoss and emo_loss are (logits, labels){missing}"
    if isinstance(value, nn.Module):
        if name in ("weight", "bias"):
            more = ", and bias=head.bias if it has one" if name == "weight" else ""
            return message, f"pass its tensor: head.{name}{more}"
        return message, f"pass the output of the model: model(…).{_OUTPUTS.get(name, ('logits',))[0]}"
    for part in _OUTPUTS.get(name, ()):
        inside = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        if inside is not None:
            last = "" if isinstance(inside, Tensor) else "[-1]"
            named = f".{part}" if hasattr(value, part) else f"[{part!r}]"
            return message, f"pass its tensor: {named}{last}"
    if isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
        return message, f"pass one of its tensors, such as {name}[0]"
    if type(value).__module__ == "numpy":
        return message, f"pass torch.from_numpy({name})"
    numbers = isinstance(value, tuple | list | int | float)
    return message, f"pass torch.tensor({name})" if numbers else "pass a torch.Tensor"
