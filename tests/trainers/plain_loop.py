"""A training loop without any trainer, on the batches that a trainer had: what each trainer's losses must equal."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import transformers as tf
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


def record_training_steps(monkeypatch: Any) -> tuple[list[dict[str, Tensor]], list[Any]]:
    """Record what each trainer built on transformers' Trainer trains on from now on.

    Returns:
        A list of the batches, which grows as they are trained on, and one of the trainer of each batch.
    """
    batches: list[dict[str, Tensor]] = []
    trainers: list[Any] = []
    step = tf.Trainer.training_step

    def recorded(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        batches.append({name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)})
        trainers.append(self)
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(tf.Trainer, "training_step", recorded)
    return batches, trainers


def shifted(labels: Tensor) -> Tensor:
    return torch.cat([labels[..., 1:], torch.full_like(labels[..., :1], -100)], dim=-1)


def plain_losses(
    model: Any,
    steps: Sequence[Sequence[dict[str, Tensor]]],
    loss: EMOLoss,
    *,
    rate: float = RATE,
    means_of_batches: bool = False,
) -> list[float]:
    """Train with gradient descent, and return the loss of each step: the mean over the tokens of its batches.

    The losses of tokens are multiplied by the batch's `loss_scale`, if it has one. With `means_of_batches`, a step's
    loss is the mean of its batches' means.
    """
    sum_of = EMOLoss(loss.costs, loss.options, reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()

    def part(batch: Any, batches: Sequence[Any]) -> Tensor:
        counts = [int((each["labels"][:, 1:] != -100).sum()) for each in ([batch] if means_of_batches else batches)]
        count = counts[0] * len(batches) if means_of_batches else sum(counts)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
        # With a cache, transformers does not tell the texts of a row apart by their positions.
        logits = model(**inputs, use_cache=False).logits
        weights = torch.roll(batch["loss_scale"], -1, -1).float() if "loss_scale" in batch else None
        return sum_of(logits, shifted(batch["labels"]), token_weights=weights) / count

    return descend(optimizer, steps, part)


def descend(
    optimizer: torch.optim.Optimizer, steps: Iterable[Sequence[Any]], part: Callable[[Any, Sequence[Any]], Tensor]
) -> list[float]:
    """The loss of each step: the sum of its batches' parts. `part` gets a batch, and all batches of its step."""
    losses = []
    for batches in steps:
        total = 0.0
        for batch in batches:
            value = part(batch, batches)
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
