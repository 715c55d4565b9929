"""Train with the published loss, the PyPI package EMOLoss, with the costs of a bank.

    pip install EMOLoss 'costbank[build,train]'
    python examples/published_emoloss.py

The published code divides each row by its length. Tokens without a vector have rows of zeros, and one such row makes
the whole loss NaN. `missing="own-axis"` gives each of these tokens a direction of its own.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from costbank import Bank, build, build_config
from costbank.loss import DenseCosts, EMOOptions, emo_loss
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.train import train_sentencepiece

try:
    from emo.loss import EMOLoss
except ModuleNotFoundError:
    sys.exit("This example needs the package EMOLoss: pip install EMOLoss")

TEXT = """\
The gardener waters the roses early, and the gardeners watering the beds sing quietly.
A painter paints the garden; painting roses quickly, she painted the quiet bed of water.
Early singers sing early songs, and quieter singers sing the songs of the garden.
The waters of the river rise quickly, rising water quietly covers the early paintings.
"""
STEPS = 60


def tiny_bank(folder: Path) -> tuple[Bank, torch.Tensor]:
    """A bank of the spelling of 400 tokens, and the ids of the text. Use a bank of your model or corpus instead."""
    text = folder / "text.txt"
    text.write_text(TEXT)
    model = train_sentencepiece([text], folder / "tiny.model", vocab_size=400, model_type="bpe")
    bank = build(build_config(source="spelling", tokenizer=model, name="tiny", store=folder / "store"))
    ids, _ = load_tokenizer(model).encode([TEXT])
    return bank, torch.from_numpy(ids).long()


def main() -> None:
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        bank, ids = tiny_bank(Path(folder))
        cost_embedding = bank.matrix("torch", missing="own-axis")
        rows = bank.matrix("torch")
    print(f"{bank.size} tokens, {int((~rows.any(dim=1)).sum())} of them without a vector")

    labels = ids[None]
    model = torch.nn.Sequential(torch.nn.Embedding(bank.size, 32), torch.nn.Linear(32, bank.size))
    with torch.no_grad():
        print(f"published loss with rows of zeros: {EMOLoss(model(labels), labels, rows).item()}")

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(STEPS + 1):
        # The published loss shifts the labels itself: position i predicts token i + 1.
        loss = EMOLoss(model(labels), labels, cost_embedding, mode=1)
        if step % 20 == 0:
            print(f"step {step:3}: published loss {loss.item():.4f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        logits = model(labels)
        theirs = EMOLoss(logits, labels, cost_embedding, mode=1).item()
        ours = emo_loss(
            logits[:, :-1], labels[:, 1:], DenseCosts(cost_embedding), EMOOptions(mixing="emo1_clamped")
        ).item()
    print(f"costbank.loss: {ours:.6f}, difference {abs(ours - theirs):.1e}")


if __name__ == "__main__":
    main()
