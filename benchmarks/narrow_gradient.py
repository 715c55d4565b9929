"""What it does to training if the gradient of the head is summed in bfloat16: `python -m benchmarks narrow_gradient`.

The same small decoder is trained on the bytes of the standard library's docstrings, with the gradient of the head's
weight summed over blocks in float32 (`weight_gradient="wide"`) and in bfloat16 (`"nearest"` and `"stochastic"`).
"""

import sysconfig
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.record import record
from benchmarks.study.docstrings import paragraphs
from costbank.loss import EMOOptions, linear_emo_loss

__all__ = ["run"]

_STEPS, _SEQUENCES, _LENGTH, _DIM, _BYTES = 200, 16, 64, 64, 256
_BLOCKS = (16, 256)


class Model(nn.Module):
    """A decoder of one layer over bytes, with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(_BYTES, _DIM), nn.Embedding(_LENGTH, _DIM)
        self.layer = nn.TransformerEncoderLayer(_DIM, 4, 4 * _DIM, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(_DIM)
        self.head = nn.Linear(_DIM, _BYTES, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        inputs = self.embedding(ids) + self.positions.weight
        mask = nn.Transformer.generate_square_subsequent_mask(_LENGTH)
        return self.norm(self.layer(inputs, mask, is_causal=True))


def run() -> None:
    text = "\n".join(paragraphs(Path(sysconfig.get_path("stdlib")))).encode()[:400_000]
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    for blocks in _BLOCKS:
        note = (
            f"bytes of docstrings, {_STEPS} steps of {_SEQUENCES * _LENGTH} tokens, decoder of 1 layer, bfloat16 head, "
            f"{blocks} blocks"
        )
        options = EMOOptions(objective="ce", chunk_rows=_SEQUENCES * _LENGTH // blocks)
        wide = _train(ids, options)
        for name in ("nearest", "stochastic"):
            losses, error = _train(ids, replace(options, weight_gradient=name))
            for measure, unit, value in (
                ("error of the weight's gradient, relative to its length", "ratio", error),
                ("largest difference of a step's loss from that of float32 sums", "nats",
                 (losses - wide[0]).abs().max().item()),
                ("loss of the last 50 steps over that of float32 sums", "ratio",
                 (losses[-50:].mean() / wide[0][-50:].mean()).item()),
            ):  # fmt: skip
                record("narrow_gradient", f"{name}: {measure}", unit, [value], "", ("torch",), note)


def _train(ids: Tensor, options: EMOOptions) -> tuple[Tensor, float]:
    """The loss of each step, and the mean error of the gradient of the weight relative to float32 sums."""
    torch.manual_seed(0)
    model, generator = Model(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses, errors = [], []
    for _ in range(_STEPS):
        starts = torch.randint(0, len(ids) - _LENGTH - 1, (_SEQUENCES, 1), generator=generator)
        batch = ids[starts + torch.arange(_LENGTH + 1)]
        hidden, weight = model(batch[:, :-1]).bfloat16(), model.head.weight.bfloat16()
        loss = linear_emo_loss(hidden, weight, batch[:, 1:], None, options)
        errors.append(_error(hidden, weight, batch[:, 1:], options))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), sum(errors) / len(errors)


def _error(hidden: Tensor, weight: Tensor, labels: Tensor, options: EMOOptions) -> float:
    weight = weight.detach().requires_grad_()
    ours, exact = (
        torch.autograd.grad(linear_emo_loss(hidden.detach(), weight, labels, None, one), weight)[0].double()
        for one in (options, replace(options, weight_gradient="wide"))
    )
    return ((ours - exact).norm() / exact.norm()).item()
