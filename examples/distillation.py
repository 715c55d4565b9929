"""Distillation: a student learns its teacher's eight most likely tokens at each position, without full logits.

python examples/distillation.py
"""

import tiny
import torch
from torch import nn

from costbank.loss import LinearEMOLoss, SoftTargets

torch.manual_seed(0)
bank = tiny.bank()
# `kernel` is 0 if the student equals its teacher. It is added to the cross-entropy.
loss_of = LinearEMOLoss(bank, objective="kernel", mixing="fixed", weight=5.0)


class Model(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(bank.size, dim), nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, bank.size, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.mix(self.embed(ids))[0]


teacher, student = Model(64), Model(24)
hard = LinearEMOLoss(bank, shift=True)
optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
for _ in range(60):
    labels = tiny.batch()
    hard(teacher(labels.clamp_min(0)), teacher.head.weight, labels).backward()
    optimizer.step()
    optimizer.zero_grad()

optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
for step in range(81):
    labels = tiny.batch()
    ids, padding = labels.clamp_min(0), (labels < 0)[..., None]
    with torch.no_grad():
        top = teacher.head(teacher(ids)).softmax(-1).topk(8)
    # Positions with only probabilities of 0 are ignored.
    targets = SoftTargets(top.values.masked_fill(padding, 0.0), top.indices)
    loss, parts = loss_of.with_parts(student(ids), student.head.weight, targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        tokens = (labels >= 0).sum()
        print(f"step {step}: loss {loss:.3f}, kernel distance {parts.value.sum() / tokens:.4f}, "
              f"same most likely token {parts.correct.sum() / tokens:.1%}")  # fmt: skip
