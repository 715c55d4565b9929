"""What TRL's SFTTrainer logs of its own, for a loss that takes the place of its `compute_loss`."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenCount", "is_sft"]


def is_sft(trainer: Any) -> bool:
    """Whether a trainer keeps metrics and counts tokens as SFTTrainer does."""
    return hasattr(trainer, "_metrics") and hasattr(trainer, "_total_train_tokens")


class TokenCount:
    """Tokens trained on since they were last logged, padding left out, kept on the device: nothing waits for it."""

    def __init__(self) -> None:
        self._count: Tensor | None = None

    def add(self, inputs: dict[str, Any]) -> None:
        mask, tokens = inputs.get("attention_mask"), inputs.get("input_ids", inputs.get("inputs_embeds"))
        if mask is not None:
            count = mask.sum()
        elif tokens is not None:
            # Rows that hold several texts have no padding.
            count = torch.tensor(tokens.shape[0] * tokens.shape[1], device=tokens.device)
        else:
            return
        self._count = count if self._count is None else self._count + count

    def log(self, trainer: Any) -> None:
        """Put the number of all tokens so far, over all processes, where SFTTrainer's `log` looks for it."""
        if not is_sft(trainer):
            return
        if self._count is not None:
            tensor_parallel = getattr(trainer, "_tp_size", 1)
            trainer._total_train_tokens += int(trainer.accelerator.reduce(self._count, "sum")) // tensor_parallel
            self._count = None
        trainer._metrics["train" if trainer.model.training else "eval"]["num_tokens"] = [trainer._total_train_tokens]
