"""A small causal language model that takes EMO training steps from a bank."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.loss import EMOLoss
from costbank.progress import Progress

__all__ = ["TrainingPoint", "train_language_model"]

_DIM = 128
_LAYERS = 2
_HEADS = 4
_CONTEXT = 64
_BATCH = 16
_LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class TrainingPoint:
    """Means over a window of training steps, per token: cross-entropy in nats, expected cost, share of hits."""

    step: int
    cross_entropy: float
    cost: float
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

    def forward(self, ids: Tensor) -> Tensor:
        hidden = (self.tokens(ids) + self.positions.weight) * _DIM**0.5
        hidden = self.layers(hidden, mask=self.mask, is_causal=True)
        return self.norm(hidden) @ self.tokens.weight.T


def train_language_model(
    ids: np.ndarray, bank: Bank, steps: int, seconds: float, progress: Progress
) -> list[TrainingPoint]:
    """Train on a stream of token ids with the bank's EMO loss, for `steps` steps or `seconds` seconds at most.

    Returns:
        Four points along the way, or fewer where there were fewer steps.
    """
    torch.manual_seed(0)
    model = _LanguageModel(bank.size)
    loss_of = EMOLoss(bank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    seen = []
    until = time.monotonic() + seconds
    with progress.step("train a language model with EMOLoss", steps, "steps") as shown:
        for inputs, labels in _batches(ids, steps):
            result = loss_of(model(inputs), labels, parts=True)
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
            parts = result.parts
            seen.append([part.float().mean().item() for part in (parts.ce, parts.emd, parts.correct)])
            shown.advance(1)
            if time.monotonic() > until:
                break
    return [
        TrainingPoint(int(window[-1]) + 1, *np.mean([seen[i] for i in window], axis=0).tolist())
        for window in np.array_split(np.arange(len(seen)), min(4, len(seen)))
    ]


def _batches(ids: np.ndarray, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    random = np.random.default_rng(0)
    for _ in range(steps):
        starts = random.integers(0, len(ids) - _CONTEXT - 1, _BATCH)
        window = torch.from_numpy(ids[starts[:, None] + np.arange(_CONTEXT + 1)].astype(np.int64))
        yield window[:, :-1], window[:, 1:]
