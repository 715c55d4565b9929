"""The running proof that the linear form computes the model's own logits, from those of one position in every step."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.heads import FULL_LOGITS, Head, block_logits
from costbank.trainers.logits import LogitForm

__all__ = ["Proof"]

_BLOCK = 4096
# Logits whose spread is less than this times what rounding may change prove nothing.
_INFORMATIVE = 3.0


class Proof:
    """Differences between the model's logits and the linear form's since they were last read, kept on the device.

    A difference counts as a part of the largest logit of its block. Where the logits of a block are all (nearly) equal,
    as those of a head that begins as zeros, it proves nothing and is not counted.

    Attributes:
        proved: whether an informative batch has been seen.
    """

    def __init__(self) -> None:
        self.proved = False
        self._next = 0
        self._worst: Tensor | None = None
        self._rounding = 0.0

    def add(
        self,
        head: Head,
        form: LogitForm,
        hidden: Float[Tensor, "*batch length dim"],
        logits: Float[Tensor, "*batch last vocab"],
        *,
        rounding: float,
        whole: bool = False,
    ) -> None:
        """Compare the logits of the last position for a block of tokens: the next one at every call.

        Nothing waits for the device.

        Args:
            head: of the model.
            form: of its logits.
            hidden: the head's inputs, of all positions.
            logits: the model's, of the last position.
            rounding: the largest difference that rounding explains, as a part of the largest logit.
            whole: compare all tokens and not only a block.

        Raises:
            UsageError: there are not as many logits as the form has.
        """
        if logits.shape[-1] != form.width:
            raise UsageError(
                f"{type(head.model).__name__} gives {logits.shape[-1]:,} logits, and {form.width:,} before",
                FULL_LOGITS,
            )
        last = hidden[..., -1:, :].detach()
        starts = range(0, form.width, _BLOCK) if whole else (self._next,)
        self._rounding = max(self._rounding, rounding)
        with torch.no_grad():
            for start in starts:
                tokens = slice(start, min(start + _BLOCK, form.width))
                expected = form.apply(block_logits(head.linear, last, tokens), tokens)
                found = _compare(expected, logits[..., tokens].to(expected.device).float(), rounding)
                self._worst = found if self._worst is None else torch.maximum(self._worst, found)
        if not whole:
            self._next = self._next + _BLOCK if self._next + _BLOCK < form.width else 0

    def check(self, name: str, accelerator: Any = None) -> None:
        """Wait for the device, and check what has been compared since the last call.

        Args:
            name: of the model, for the error.
            accelerator: where given, the worst difference of all its processes counts.

        Raises:
            UsageError: the logits differ by more than rounding explains.
        """
        if self._worst is None:
            return
        worst = self._worst[None] if accelerator is None else accelerator.gather(self._worst[None])
        difference, informative = worst.amax(dim=0).tolist()
        self._worst = None
        if not difference <= self._rounding:
            raise UsageError(
                f"the logits of {name} are not its hidden states times its head's weight: they differ by up to "
                f"{difference:.2g} of the largest, where rounding explains {self._rounding:.2g}",
                f"the model does something more to them; {FULL_LOGITS}",
            )
        self.proved = self.proved or bool(informative)


def _compare(expected: Tensor, actual: Tensor, rounding: float) -> Float[Tensor, "two"]:
    """The largest difference as a part of the largest logit, 0 where nothing is proved; and 1 where something is."""
    masked = expected.isneginf() | (actual <= torch.finfo(torch.float16).min)
    expected, actual = expected.masked_fill(masked, 0.0), actual.masked_fill(masked, 0.0)
    size = torch.maximum(expected.abs().amax(), actual.abs().amax())
    spread = torch.maximum(*((side.amax(dim=-1) - side.amin(dim=-1)).amax() for side in (expected, actual)))
    # False where logits are not finite: the loss says so itself.
    informative = (spread > _INFORMATIVE * rounding * size) & size.isfinite()
    difference = (actual - expected).abs().amax() / size.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.stack([difference.where(informative, torch.zeros_like(size)), informative.float()])
