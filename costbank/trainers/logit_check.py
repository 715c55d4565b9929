"""A check, on the first batch and in every training step, that the linear form computes the model's own logits."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.heads import FULL_LOGITS, ModelHead, head_output
from costbank.trainers.logit_transform import LogitTransform

__all__ = ["LogitCheck"]

_BLOCK_TOKENS = 4096
# Logits whose spread is less than this many times the error of rounding verify nothing.
_LEAST_SPREAD = 3.0


class LogitCheck:
    """Compares the model's logits with the linear form's, and keeps the largest difference on the device.

    Differences are relative to the largest logit of a block of tokens. A block is skipped if its logits are all
    (nearly) equal, such as those of a head that starts at zero: they would be equal for any hidden states.

    Attributes:
        verified: whether any compared logits were not all equal.
    """

    def __init__(self) -> None:
        self.verified = False
        self._next_token = 0
        self._worst: Tensor | None = None
        self._tolerance = 0.0

    def add(
        self,
        head: ModelHead,
        transform: LogitTransform,
        hidden: Float[Tensor, "*batch length dim"],
        logits: Float[Tensor, "*batch last vocab"],
        *,
        tolerance: float,
        all_tokens: bool = False,
    ) -> None:
        """Compare the logits of the last positions for the next block of tokens, without waiting for the device.

        Args:
            head: the model's head.
            transform: what the model does to its output.
            hidden: the head's input, at all positions or at those of the logits.
            logits: the model's logits, at the last position or the last few.
            tolerance: the largest relative difference that rounding explains.
            all_tokens: compare all tokens, not just one block.

        Raises:
            UsageError: the number of logits has changed.
        """
        if logits.shape[-1] != transform.width:
            raise UsageError(
                f"{type(head.model).__name__} returns {logits.shape[-1]:,} logits, but before it returned "
                f"{transform.width:,}",
                FULL_LOGITS,
            )
        last = hidden[..., -logits.shape[-2] :, :].detach()
        starts = range(0, transform.width, _BLOCK_TOKENS) if all_tokens else (self._next_token,)
        self._tolerance = max(self._tolerance, tolerance)
        with torch.no_grad():
            for start in starts:
                tokens = slice(start, min(start + _BLOCK_TOKENS, transform.width))
                expected = transform.apply(head_output(head.linear, last, tokens), tokens)
                result = _compare(expected, logits[..., tokens].to(expected.device).float(), tolerance)
                self._worst = result if self._worst is None else torch.maximum(self._worst, result)
        if not all_tokens:
            stop = self._next_token + _BLOCK_TOKENS
            self._next_token = stop if stop < transform.width else 0

    def check(self, name: str, transform: LogitTransform, accelerator: Any = None) -> None:
        """Wait for the device, and check the differences since the last call.

        Args:
            name, transform: the model's name, and what it does to its head's output, for the error.
            accelerator: if given, the largest difference of all its processes counts.

        Raises:
            UsageError: the logits differ by more than rounding explains.
        """
        if self._worst is None:
            return
        worst = self._worst[None] if accelerator is None else accelerator.gather(self._worst[None])
        difference, informative = worst.amax(dim=0).tolist()
        self._worst = None
        if not difference <= self._tolerance:
            raise UsageError(
                f"the logits of {name} are not its hidden states times its head's weight (applied after that: "
                f"{transform}): they differ by up to {difference:.2g} of the largest, but rounding explains only "
                f"{self._tolerance:.2g}",
                f"the model does something else to its logits; {FULL_LOGITS}",
            )
        self.verified = self.verified or bool(informative)


def _compare(expected: Tensor, actual: Tensor, tolerance: float) -> Float[Tensor, "two"]:
    """The largest relative difference, and 1 for logits that can show one; 0 and 0 for logits that are all equal."""
    masked = expected.isneginf() | (actual <= torch.finfo(torch.float16).min)
    expected, actual = expected.masked_fill(masked, 0.0), actual.masked_fill(masked, 0.0)
    largest = torch.maximum(expected.abs().amax(), actual.abs().amax())
    spread = torch.maximum(*((logits.amax(dim=-1) - logits.amin(dim=-1)).amax() for logits in (expected, actual)))
    # False if logits are not finite: the loss raises an error for these.
    informative = (spread > _LEAST_SPREAD * tolerance * largest) & largest.isfinite()
    difference = (actual - expected).abs().amax() / largest.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.stack([difference.where(informative, torch.zeros_like(largest)), informative.float()])
