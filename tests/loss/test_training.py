"""The linear loss in training: it gives the same training as the formula written directly, in bounded memory."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.loss import LinearEMOLoss

VOCAB, DIM, STEPS = 2_000, 48, 200


class Model(nn.Module):
    """A causal transformer of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, DIM)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids)
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return self.norm(hidden)


def naive(logits: Tensor, labels: Tensor, vectors: Tensor, mixing: str) -> Tensor:
    """The formula, written directly in float32, with all logits and autograd."""
    ce = nn.functional.cross_entropy(logits, labels, reduction="none")
    costs = (1 - vectors[labels] @ vectors.T).scatter(1, labels[:, None], 0.0)
    k = (torch.softmax(logits, dim=1) * costs).sum(1)
    if mixing == "emo2":
        return ((k / (ce + 1e-10)).detach() * ce + k).mean()
    return (0.5 * (ce + (ce / (k + 1e-10)).detach().clamp_max(3) * k)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["emo1_clamped", "emo2"])
def test_two_hundred_steps_follow_the_formula(news_bank: Bank, mixing: str):
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, VOCAB, (24,), generator=generator)
    losses = {}
    for kind in ("ours", "naive"):
        torch.manual_seed(1)
        model, loss_of = Model(), LinearEMOLoss(news_bank, mixing=mixing, chunk_rows=50)
        vectors = loss_of.costs.vectors
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        data = torch.Generator().manual_seed(2)
        seen = []
        for _ in range(STEPS):
            # Texts repeat a few words in a fixed cycle, so there is something to learn.
            starts = torch.randint(0, 24, (8, 1), generator=data)
            ids = words[(starts + torch.arange(17) * (1 + starts % 2)) % 24]
            hidden, labels = model(ids[:, :-1]), ids[:, 1:]
            if kind == "ours":
                loss = loss_of(hidden, model.head.weight, labels)
            else:
                loss = naive(model.head(hidden).flatten(0, 1), labels.flatten(), vectors, mixing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        losses[kind] = torch.tensor(seen)
    assert losses["ours"][-1] < losses["ours"][0] / 5
    # The tolerance is relative to the loss, plus a millionth of the initial loss.
    off = (losses["ours"] - losses["naive"]).abs()
    assert (off <= 1e-3 * losses["naive"] + 1e-6 * losses["naive"][0]).all()


MEMORY = """
import sys, torch
from pathlib import Path
from costbank.loss import DenseCosts, EMOOptions, linear_emo_loss
torch.set_num_threads(1)
def peak_mb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
n, vocab, dim = 2048, 16384, 64
hidden = torch.randn(n, dim, requires_grad=True)
weight = torch.randn(vocab, dim, requires_grad=True)
labels = torch.randint(0, vocab, (n,))
costs = DenseCosts(torch.nn.functional.normalize(torch.randn(vocab, dim), dim=1))
options = EMOOptions(chunk_rows=64, reduction=sys.argv[1])
linear_emo_loss(hidden[:1], weight, labels[:1], costs, options).sum().backward()
before = peak_mb()
if sys.argv[2] == "linear":
    linear_emo_loss(hidden, weight, labels, costs, options).sum().backward()
else:
    torch.nn.functional.cross_entropy(hidden @ weight.T, labels).backward()
print(peak_mb() - before)
"""


def _peak_mb(*given: str) -> float:
    answer = subprocess.run([sys.executable, "-c", MEMORY, *given], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return float(answer.stdout)


@pytest.mark.slow
def test_the_linear_form_never_holds_all_logits():
    """All logits are 134 MB; a block of 64 rows and its costs are 8."""
    for reduction in ("mean", "none"):
        assert _peak_mb(reduction, "linear") < 40
    assert _peak_mb("mean", "full") > 200
