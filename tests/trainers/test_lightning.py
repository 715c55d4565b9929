from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss, Schedule
from costbank.trainers.lightning import EMOLightningMixin
from tests.trainers.conftest import VOCAB, Texts

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Model(EMOLightningMixin, LightningModule):
    def __init__(self, loss: EMOLoss | LinearEMOLoss) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head, self.emo = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB), loss

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        hidden = self.embed(batch["input_ids"])
        if isinstance(self.emo, LinearEMOLoss):
            return self.emo_step(self.emo, hidden, self.head.weight, batch["labels"], bias=self.head.bias)
        return self.emo_step(self.emo, self.head(hidden), batch["labels"])

    def validation_step(self, batch: dict[str, Tensor], _index: int) -> None:
        self.training_step(batch, _index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fit(model: Model, texts: Texts, folder: Path, steps: int = 3, resume: Path | None = None) -> Trainer:
    seed_everything(3, verbose=False)
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(texts, batch_size=8, num_workers=0), ckpt_path=resume)
    return trainer


def parameters(model: Model) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_both_forms_train_alike_and_log_what_they_are_made_of(bank: Bank, texts: Texts, tmp_path: Path):
    options: dict[str, Any] = {"shift": True, "mixing": "fixed", "weight": Schedule(0.0, 1.0, steps=2)}
    full, linear = Model(EMOLoss(bank, **options)), Model(LinearEMOLoss(bank, **options))
    before = parameters(full)
    metrics = fit(full, texts, tmp_path).callback_metrics
    fit(linear, texts, tmp_path)
    torch.testing.assert_close(parameters(full), parameters(linear), atol=1e-5, rtol=0)
    assert (parameters(full) - before).abs().max() > 1e-3
    assert metrics["loss"].item() == pytest.approx((metrics["ce"] + metrics["emd"]).item(), abs=1e-5)
    assert 0 <= metrics["accuracy"] <= 1


def test_what_is_no_loss_is_named_with_what_to_give(bank: Bank):
    model = Model(EMOLoss(bank))
    for given, what in ((bank, "of type Bank"), (bank.costs("dense"), "of type DenseCosts"), (None, "missing")):
        with pytest.raises(UsageError, match=f"the loss of emo_step is {what}") as caught:
            model.emo_step(given, torch.zeros(1, VOCAB), torch.zeros(1, dtype=torch.long))
        assert "give LinearEMOLoss(" in caught.value.hint


def test_resuming_asks_for_the_same_bank_and_options(bank: Bank, other_bank: Bank, texts: Texts, tmp_path: Path):
    saved = tmp_path / "last.ckpt"
    fit(Model(EMOLoss(bank, shift=True)), texts, tmp_path, steps=2).save_checkpoint(saved)
    on = Model(EMOLoss(bank, shift=True, chunk_rows=7))
    assert fit(on, texts, tmp_path, resume=saved).global_step == 3
    with pytest.raises(UsageError, match=rf"{bank.id} dense, and this loss has tiny@{other_bank.id}"):
        fit(Model(EMOLoss(other_bank, shift=True)), texts, tmp_path, resume=saved)
    with pytest.raises(UsageError, match="shift=True, now False"):
        fit(Model(EMOLoss(bank)), texts, tmp_path, resume=saved)


def test_a_checkpoint_without_a_pin_is_taken(bank: Bank, texts: Texts, tmp_path: Path):
    saved = tmp_path / "last.ckpt"
    model = Model(EMOLoss(bank, shift=True))
    fit(model, texts, tmp_path, steps=2).save_checkpoint(saved)
    checkpoint = torch.load(saved, weights_only=True)
    del checkpoint["costbank"]
    torch.save(checkpoint, saved)
    assert fit(Model(EMOLoss(bank, shift=True)), texts, tmp_path, resume=saved).global_step == 3
