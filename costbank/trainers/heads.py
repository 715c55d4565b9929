"""The language-model head of a Hugging Face model: its weight, and a proof that logits are hidden · weightᵀ + bias."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.trainers.adapters import base_of, in_use

__all__ = ["Head", "find_head"]

_INSTEAD = "give emo=EMOLoss(bank), which takes the model's own logits"


@dataclass(frozen=True)
class Head:
    """Where the logits of a model come from.

    Attributes:
        model: the model itself, whatever wraps it.
        backbone: the part of it whose output the head takes.
        linear: the head.
        softcap: of the logits, from the model's config; None where there is none.
    """

    model: Any
    backbone: nn.Module
    linear: nn.Linear
    softcap: float | None

    @contextmanager
    def hidden_states(self) -> Iterator[list[Float[Tensor, "batch length dim"]]]:
        """A list that gets the backbone's last hidden states when the model is called within.

        A hook that is there for one call; no forward is replaced.
        """
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _arguments: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output.last_hidden_state)

        handle = self.backbone.register_forward_hook(catch)
        try:
            yield caught
        finally:
            handle.remove()

    def prove(
        self,
        logits: Float[Tensor, "batch last vocab"],
        hidden: Float[Tensor, "batch length dim"],
        *,
        rounding: float,
    ) -> None:
        """Check that the model's logits are softcap(hidden · weightᵀ + bias) and nothing more.

        Args:
            logits: the model's, of the last positions.
            hidden: as `hidden_states` caught them.
            rounding: the largest difference to allow, as a part of the largest logit.

        Raises:
            UsageError: they are not, as where a model scales its logits.
        """
        name = type(self.model).__name__
        with torch.no_grad():
            bias = None if self.linear.bias is None else self.linear.bias.float()
            last = hidden[:, -logits.shape[1] :].to(self.linear.weight.device).float()
            expected = nn.functional.linear(last, self.linear.weight.float(), bias)
            if self.softcap is not None:
                expected = self.softcap * torch.tanh(expected / self.softcap)
            if expected.shape != logits.shape:
                raise UsageError(
                    f"{name} gives logits of shape {list(logits.shape)} where its head makes {list(expected.shape)}",
                    _INSTEAD,
                )
            actual = logits.to(expected.device).float()
            difference = ((actual - expected).abs().max() / actual.abs().max().clamp_min(1e-6)).item()
        if not difference <= rounding:
            raise UsageError(
                f"the logits of {name} are not its hidden states times its head's weight: they differ by up to "
                f"{difference:.2g} of the largest, where rounding explains {rounding:.2g}",
                f"the model does something more to them; {_INSTEAD}",
            )


def find_head(model: Any) -> Head:
    """Find the head of a causal language model; PEFT's wrapping is looked through.

    A head that PEFT trains whole (`modules_to_save`) is the active adapter's copy.

    Raises:
        UsageError: the model cannot leave out logits, has no head that is a whole `torch.nn.Linear`, has one that an
            adapter changes, or shows no backbone.
    """
    model = base_of(model)
    name = type(model).__name__
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise UsageError(f"{name} has no logits_to_keep, and so makes the logits of all tokens", _INSTEAD)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    head = None if head is None else in_use(head)
    # An adapter's layer holds the weight that it adapts, and would be left out silently: an adapter begins as zeros,
    # and the proof of the first batch would not see it.
    if hasattr(head, "base_layer") or type(head).__module__.startswith("peft."):
        raise UsageError(
            f"the head of {name} is adapted by PEFT's {type(head).__module__}.{type(head).__name__}, and is no longer "
            "one weight",
            "keep the adapter off the head (target_modules, target_parameters and trainable_token_indices without it, "
            f"and ensure_weight_tying=False), train it whole with modules_to_save, or {_INSTEAD}",
        )
    if not isinstance(head, nn.Linear):
        raise UsageError(f"the head of {name} is {type(head).__name__} and no torch.nn.Linear", _INSTEAD)
    weight = head.weight
    if hasattr(weight, "placements") or weight.ndim != 2 or not weight.numel() or not weight.is_floating_point():
        raise UsageError(
            f"the head of {name} is sharded or quantized: its weight is {weight.dtype} of shape {list(weight.shape)}"
            f"{', a DTensor' if hasattr(weight, 'placements') else ''}",
            f"keep the head whole, or {_INSTEAD}",
        )
    backbone = getattr(model, "base_model", model)
    if backbone is model:
        raise UsageError(f"{name} does not say which part of it is the backbone (base_model)", _INSTEAD)
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return Head(model, backbone, head, softcap)
