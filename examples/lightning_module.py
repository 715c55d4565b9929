"""A Lightning module with the loss: a mixin calls and logs it, and pins checkpoints to the bank.

python examples/lightning_module.py
"""

import tempfile

import tiny
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from costbank import Bank
from costbank.loss import LinearEMOLoss
from costbank.trainers.lightning import EMOLightningMixin


class Model(EMOLightningMixin, LightningModule):
    """A small recurrent language model."""

    def __init__(self, bank: Bank, dim: int = 64) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(bank.size, dim), nn.GRU(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, bank.size)
        self.loss = LinearEMOLoss(bank, shift=True)

    def training_step(self, labels: Tensor) -> Tensor:
        hidden, _ = self.mix(self.embed(labels.clamp_min(0)))
        return self.emo_step(self.loss, hidden, self.head.weight, labels, bias=self.head.bias)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Print(Callback):
    """Prints the logged metrics every twenty steps."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step % 20 == 0:
            print(trainer.global_step, {name: round(float(value), 4) for name, value in trainer.logged_metrics.items()})


torch.manual_seed(0)
bank = tiny.bank()
trainer = Trainer(
    max_steps=60, accelerator="cpu", logger=False, callbacks=[Print()], enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=tempfile.mkdtemp(), log_every_n_steps=20,
)  # fmt: skip
trainer.fit(Model(bank), torch.utils.data.DataLoader(list(tiny.batch(960)), batch_size=16))
