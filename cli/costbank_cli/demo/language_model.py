"""A small causal language model, trained from scratch in several ways on the same batches, and evaluated."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from costbank.bank import Bank
from costbank.progress import Progress
from costbank.trainers.initialization import start_from_bank

__all__ = ["HeldOutPoint", "TokenLoss", "Training", "train_in_each_way"]

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of logits [batch, context, vocab] and labels [batch, context]."""

_DIM = 128
_LAYERS = 2
_HEADS = 4
_CONTEXT = 64
_BATCH = 16
_LEARNING_RATE = 5e-3
_POINTS = 4


@dataclass(frozen=True)
class Training:
    """A way to train: the loss, and the bank from whose vectors the embedding starts; None for random ones."""

    loss: TokenLoss
    start: Bank | None = None


@dataclass(frozen=True)
class HeldOutPoint:
    """Means over held-out tokens after `step` steps: cross-entropy in nats, and the share of correct predictions."""

    step: int
    cross_entropy: float
    accuracy: float


class _LanguageModel(nn.Module):
    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, _DIM)
        self.positions = nn.Embedding(_CONTEXT, _DIM)
        layer = nn.TransformerEncoderLayer(_DIM, _HEADS, 4 * _DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_DIM)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(_CONTEXT), persistent=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=_DIM**-0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens

    def forward(self, ids: Tensor) -> Tensor:
        hidden = (self.tokens(ids) + self.positions.weight) * _DIM**0.5
        hidden = self.layers(hidden, mask=self.mask, is_causal=True)
        return self.norm(hidden) @ self.tokens.weight.T


def train_in_each_way(
    ways: Mapping[str, Training],
    train_ids: Integer[np.ndarray, "tokens"],
    held_out_ids: Integer[np.ndarray, "held_out"],
    vocab: int,
    steps: int,
    progress: Progress,
    held_out_batches: int = 16,
) -> dict[str, list[HeldOutPoint]]:
    """Train one model in each way, on the same batches and for the same number of steps.

    All start from the same weights, except for the embedding of those that start from a bank.

    Returns:
        For each way, measurements on the same held-out tokens at four points of the training.
    """
    torch.manual_seed(0)
    start = _LanguageModel(vocab)
    held_out = list(_batches(held_out_ids, held_out_batches, seed=1))
    points = {}
    for name, way in ways.items():
        model = copy.deepcopy(start)
        if way.start is not None:
            start_from_bank(model, way.start)
        with progress.step(f"train a language model with {name}", steps, "steps") as shown:
            points[name] = list(_train(model, way.loss, train_ids, held_out, steps, shown.advance))
    return points


def _train(
    model: nn.Module,
    loss_of: TokenLoss,
    ids: Integer[np.ndarray, "tokens"],
    held_out: list[tuple[Tensor, Tensor]],
    steps: int,
    advance: Callable[[int], None],
) -> Iterator[HeldOutPoint]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    measured = {steps * (point + 1) // _POINTS for point in range(_POINTS)}
    for step, (inputs, labels) in enumerate(_batches(ids, steps, seed=0), 1):
        loss = loss_of(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        advance(1)
        if step in measured:
            yield _measured(model, held_out, step)


@torch.no_grad()
def _measured(model: nn.Module, held_out: list[tuple[Tensor, Tensor]], step: int) -> HeldOutPoint:
    nats, hits, tokens = 0.0, 0, 0
    for inputs, labels in held_out:
        logits = model(inputs)
        nats += cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
        hits += int((logits.argmax(-1) == labels).sum())
        tokens += labels.numel()
    return HeldOutPoint(step, nats / tokens, hits / tokens)


def _batches(ids: Integer[np.ndarray, "tokens"], count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        starts = random.integers(0, len(ids) - _CONTEXT - 1, _BATCH)
        window = torch.from_numpy(ids[starts[:, None] + np.arange(_CONTEXT + 1)].astype(np.int64))
        yield window[:, :-1], window[:, 1:]
