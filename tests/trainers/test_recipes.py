"""The recipe for trainers in which the loss is a line of a script, as in nanochat."""

import copy

import pytest
import torch
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import ShapeError
from costbank.loss import EMOLoss, open_smoothing
from tests.loss.oracle import token_losses
from tests.trainers.conftest import VOCAB

SOFTCAP = 15.0


class GPT(nn.Module):
    """Calls as nanochat's GPT: `model(x)` gives logits after a softcap, `model(x, y)` a loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wte, self.lm_head = nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB)
        self.mix = nn.GRU(16, 16, batch_first=True)

    def forward(self, idx: Tensor, targets: Tensor | None = None, loss_reduction: str = "mean") -> Tensor:
        logits = SOFTCAP * torch.tanh(self.lm_head(self.mix(self.wte(idx))[0]) / SOFTCAP)
        if targets is None:
            return logits
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=loss_reduction
        )


def test_ten_steps_of_nanochats_loop(bank: Bank):
    generator = torch.Generator().manual_seed(1)
    data = torch.randint(2, VOCAB, (20, 3, 9), generator=generator)
    emo = EMOLoss(bank, ignore_index=-1)
    first = GPT()
    models, options, smoothing = (first, copy.deepcopy(first)), emo.options, open_smoothing(bank)
    losses: list[list[float]] = [[], []]
    for model, collected in zip(models, losses, strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for step in range(10):
            total = 0.0
            for micro_step in range(2):  # nanochat divides the loss by the number of accumulated batches
                rows = data[2 * step + micro_step]
                x, y = rows[:, :-1], rows[:, 1:].clone()
                y[0, :4] = -1
                if collected is losses[0]:
                    loss = emo(model(x), y)
                else:
                    each = token_losses(model(x).flatten(0, 1), y.flatten(), smoothing, options)
                    loss = each.sum() / (y != -1).sum()
                (loss / 2).backward()
                total += loss.item() / 2
            optimizer.step()
            optimizer.zero_grad()
            collected.append(total)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_padded_vocabulary_fits_and_another_one_is_refused(bank: Bank):
    emo = EMOLoss(bank, ignore_index=-1)
    labels = torch.tensor([[3, -1]])
    assert emo(torch.zeros(1, 2, VOCAB + 20), labels).item() > 0  # nanochat pads its vocabulary to a multiple of 64
    with pytest.raises(ShapeError, match="500 wide"):
        EMOLoss(bank, ignore_index=-1)(torch.zeros(1, 2, 500), labels)
