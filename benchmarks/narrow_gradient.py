"""What it does to training if the gradient of the head is summed in bfloat16: `python -m benchmarks narrow_gradient`.

The same small model is trained twice on the bytes of the standard library's docstrings, with the gradient of the head's
weight summed over 16 blocks in float32 and in bfloat16 (`narrow_weight_gradient`).
"""

import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.record import record
from benchmarks.study.docstrings import paragraphs
from costbank.loss import EMOOptions, linear_emo_loss

__all__ = ["run"]

_STEPS, _SEQUENCES, _LENGTH, _DIM, _BYTES = 300, 16, 64, 64, 256
_BLOCKS = 16


class Model(nn.Module):
    """A recurrent model of bytes with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_BYTES, _DIM)
        self.layer = nn.GRU(_DIM, _DIM, batch_first=True)
        self.head = nn.Linear(_DIM, _BYTES, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.embedding(ids))[0]


def run() -> None:
    text = "\n".join(paragraphs(Path(sysconfig.get_path("stdlib")))).encode()[:400_000]
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    wide, narrow = (_losses(ids, is_narrow) for is_narrow in (False, True))
    note = f"bytes of docstrings, {_STEPS} steps of {_SEQUENCES * _LENGTH} tokens, bfloat16, {_BLOCKS} blocks"
    difference = (narrow - wide).abs()
    record(
        "narrow_gradient",
        "largest difference of a step's loss",
        "nats",
        [difference.max().item()],
        "",
        ("torch",),
        note,
    )
    last = [losses[-50:].mean().item() for losses in (wide, narrow)]
    record("narrow_gradient", "loss of the last 50 steps, bfloat16 sums / float32 sums", "ratio", [last[1] / last[0]],
           "", ("torch",), note)  # fmt: skip


def _losses(ids: Tensor, is_narrow: bool) -> Tensor:
    torch.manual_seed(0)
    model, generator = Model(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    chunk_rows = _SEQUENCES * _LENGTH // _BLOCKS
    options = EMOOptions(objective="ce", chunk_rows=chunk_rows, narrow_weight_gradient=is_narrow)
    losses = []
    for _ in range(_STEPS):
        starts = torch.randint(0, len(ids) - _LENGTH - 1, (_SEQUENCES, 1), generator=generator)
        batch = ids[starts + torch.arange(_LENGTH + 1)]
        hidden, weight = model(batch[:, :-1]).bfloat16(), model.head.weight.bfloat16()
        loss = linear_emo_loss(hidden, weight, batch[:, 1:], None, options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)
