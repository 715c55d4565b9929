"""A training loop without any trainer, on the batches that a trainer had: what each trainer's losses must equal."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from costbank.loss import EMOLoss

STEPS = 10
RATE = 0.5


class Recorder:
    """A collator that keeps a copy of each batch that another one makes."""

    def __init__(self, collator: Callable[[Any], dict[str, Any]]) -> None:
        self.collator = collator
        self.batches: list[dict[str, Any]] = []

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        batch = self.collator(*arguments, **named)
        self.batches.append({name: copy.deepcopy(value) for name, value in batch.items()})
        return batch


def shifted(labels: Tensor) -> Tensor:
    return torch.cat([labels[..., 1:], torch.full_like(labels[..., :1], -100)], dim=-1)


def plain_losses(
    model: Any, steps: Sequence[Sequence[dict[str, Tensor]]], loss: EMOLoss, *, rate: float = RATE
) -> list[float]:
    """Train with gradient descent, and return the loss of each step: the mean over the tokens of its batches."""
    sum_of = EMOLoss(loss.costs, loss.options, reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()
    losses = []
    for batches in steps:
        count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask")}
            if "position_ids" in batch:
                inputs["position_ids"] = batch["position_ids"]
            logits = model(**inputs).logits
            value = sum_of(logits, shifted(batch["labels"])) / count
            value.backward()
            total += value.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def grouped(batches: Sequence[Any], size: int = 1, steps: int = STEPS) -> list[list[Any]]:
    """The batches of each step. A trainer may have read more batches than it trained on."""
    return [list(batches[i * size : (i + 1) * size]) for i in range(steps)]


def logged_losses(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def batch_pairs(texts: Any, rows: int = 4, steps: int = STEPS) -> list[list[dict[str, Tensor]]]:
    """Two batches for each step, over and over the same six."""
    blocks = [slice(start, start + rows) for start in range(0, 6 * rows, rows)]
    batches = [{"input_ids": texts.ids[b], "attention_mask": texts.mask[b], "labels": texts.labels[b]} for b in blocks]
    return [[batches[(2 * i) % 6], batches[(2 * i + 1) % 6]] for i in range(steps)]
