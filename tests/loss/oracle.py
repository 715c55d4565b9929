"""The EMO loss as its definition reads: float64, one token after the other, a whole cost matrix, autograd."""

import torch
from torch import Tensor


def cost_matrix(vectors: Tensor) -> Tensor:
    rows = vectors.double()
    costs = torch.empty(len(rows), len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        for t in range(len(rows)):
            costs[i, t] = 0.0 if i == t else 1.0 - (rows[i] * rows[t]).sum()
    return costs


def token_losses(
    logits: Tensor, labels: Tensor, vectors: Tensor, mixing: str, weight: float = 1.0, ignore_index: int = -100
) -> Tensor:
    costs = cost_matrix(vectors)
    losses = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label == ignore_index:
            losses.append(row.sum() * 0)
            continue
        log_p = torch.log_softmax(row, dim=0)
        ce = -log_p[label]
        k = (log_p.exp() * costs[:, label]).sum()
        ratio1, ratio2 = (ce / (k + 1e-10)).detach(), (k / (ce + 1e-10)).detach()
        losses.append(
            {
                "fixed": ce + weight * k,
                "emo1": (ce + ratio1 * k) / 2,
                "emo1_clamped": (ce + min(ratio1, torch.tensor(3.0, dtype=torch.float64)) * k) / 2,
                "emo2": ratio2 * ce + k,
            }[mixing]
        )
    return torch.stack(losses)
