"""What TRL's SFTTrainer logs in its own `compute_loss`, for a loss that replaces it."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenCount", "is_sft"]


def is_sft(trainer: Any) -> bool:
    """Whether a trainer keeps metrics and counts tokens as SFTTrainer does."""
    return hasattr(trainer, "_metrics") and hasattr(trainer, "_total_train_tokens")


class TokenCount:
    """The number of tokens without padding since the last `log`, kept on the device so that nothing waits for it."""

    def __init__(self) -> None:
        self._count: Tensor | None = None

    def add(self, inputs: dict[str, Any]) -> None:
        mask, tokens = inputs.get("attention_mask"), inputs.get("input_ids", inputs.get("inputs_embeds"))
        if mask is not None:
            count = mask.sum()
        elif tokens is not None:
            # Packed rows, which have no mask, have no padding.
            count = torch.tensor(tokens.shape[0] * tokens.shape[1], device=tokens.device)
        else:
            return
        self._count = count if self._count is None else self._count + count

    def log(self, trainer: Any) -> None:
        """Add the tokens of all processes to the total, and put the total where SFTTrainer's `log` expects it."""
        if not is_sft(trainer):
            return
        if self._count is not None:
            tensor_parallel = getattr(trainer, "_tp_size", 1)
            trainer._total_train_tokens += int(trainer.accelerator.reduce(self._count, "sum")) // tensor_parallel
            self._count = None
        trainer._metrics["train" if trainer.model.training else "eval"]["num_tokens"] = [trainer._total_train_tokens]
