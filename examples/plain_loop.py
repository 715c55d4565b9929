"""A training loop in plain PyTorch with LinearEMOLoss, which never holds the logits of all tokens.

python examples/plain_loop.py
"""

import tiny
import torch
from torch import nn

from costbank.loss import LinearEMOLoss

torch.manual_seed(0)
bank = tiny.bank()
embed, mix, head = nn.Embedding(bank.size, 64), nn.GRU(64, 64, batch_first=True), nn.Linear(64, bank.size, bias=False)
optimizer = torch.optim.AdamW([*embed.parameters(), *mix.parameters(), *head.parameters()], lr=1e-2)

# With shift, labels equal the inputs, and position i predicts label i + 1.
# EMOLoss(bank, shift=True)(head(hidden), labels) is the same loss with full logits.
loss_of = LinearEMOLoss(bank, shift=True)

for step in range(61):
    labels = tiny.batch()
    hidden, _ = mix(embed(labels.clamp_min(0)))
    loss, parts = loss_of.with_parts(hidden, head.weight, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        tokens = (labels[:, 1:] >= 0).sum()
        ce, value, correct = (part.sum() / tokens for part in (parts.ce, parts.value, parts.correct))
        print(f"step {step}: loss {loss:.3f}, cross-entropy {ce:.3f}, objective {value:.3f}, accuracy {correct:.1%}")
