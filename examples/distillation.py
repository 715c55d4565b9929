"""A student learns a teacher's eight likeliest tokens at each position, by their costs, without whole logits.

python examples/distillation.py
"""

import tiny
import torch
from torch import nn

from costbank.loss import LinearEMOLoss, SoftTargets

torch.manual_seed(0)
bank = tiny.bank()
# The debiased bound of the distance, which is 0 where the student equals its teacher, added to the cross-entropy.
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
    # A position whose probabilities are all 0 is ignored.
    targets = SoftTargets(top.values.masked_fill(padding, 0.0), top.indices)
    loss, parts = loss_of.with_parts(student(ids), student.head.weight, targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        tokens = (labels >= 0).sum()
        print(f"step {step}: loss {loss:.3f}, away {parts.value.sum() / tokens:.4f}, "
              f"same likeliest token {parts.correct.sum() / tokens:.1%}")  # fmt: skip
