import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from costbank import open_bank
from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss, Schedule, open_costs
from costbank.trainers.lightning import EMOLightningMixin
from tests.loss.processes import free_port, run_processes
from tests.trainers.conftest import TEXTS, VOCAB, Texts, make_tokenizer

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
    assert metrics["loss"].item() == pytest.approx((metrics["ce"] + metrics["objective_value"]).item(), abs=1e-5)
    assert 0 <= metrics["accuracy"] <= 1


def test_a_wrong_emo_argument_is_refused_with_a_hint(bank: Bank):
    model = Model(EMOLoss(bank))
    for given, what in ((bank, "of type Bank"), (open_costs(bank, "dense"), "of type DenseCosts"), (None, "missing")):
        with pytest.raises(UsageError, match=f"the loss of emo_step is {what}") as caught:
            model.emo_step(given, torch.zeros(1, VOCAB), torch.zeros(1, dtype=torch.long))
        assert "give LinearEMOLoss(" in caught.value.hint


class Validated(Model):
    """Evaluates with the batch's token weights, if it has any."""

    def validation_step(self, batch: dict[str, Tensor], _index: int) -> None:
        hidden = self.embed(batch["input_ids"])
        extra: dict[str, Any] = {"token_weights": batch["weights"]} if "weights" in batch else {}
        if isinstance(self.emo, LinearEMOLoss):
            extra["bias"] = self.head.bias
            self.emo_step(self.emo, hidden, self.head.weight, batch["labels"], prefix="val_", **extra)
        else:
            self.emo_step(self.emo, self.head(hidden), labels=batch["labels"], prefix="val_", **extra)


class Weighted(Texts):
    """Batches with different numbers of tokens; some weights are 0."""

    weighted = True

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row = dict(super().__getitem__(i))
        if i < 8:
            row["labels"] = row["labels"].clone()
            row["labels"][4:] = -100
        if self.weighted:
            row["weights"] = (torch.arange(len(row["labels"])) % 3 * (1 + i % 5)).float()
        return row


def validated(model: Model, texts: Texts, folder: Path, size: int = 8, **settings: Any) -> dict[str, float]:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False, **{"devices": 1, **settings},
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(texts, batch_size=size, num_workers=0)
    return dict(trainer.validate(model, loader, verbose=False)[0])


def by_hand(model: Model, texts: Texts, bank: Bank) -> dict[str, float]:
    """Means over all next labels whose weight is not 0, in float64, without blocks, batches or costbank's losses."""
    kappa = 1 - torch.from_numpy(bank.matrix()).double() @ torch.from_numpy(bank.matrix()).double().T
    kappa.fill_diagonal_(0.0)
    sums = torch.zeros(6, dtype=torch.float64)
    for i in range(len(texts)):
        row = texts[i]
        weights = row["weights"][1:].double() if "weights" in row else torch.ones(len(row["labels"]) - 1).double()
        kept = (row["labels"][1:] != -100) & (weights != 0)
        labels, weights = row["labels"][1:][kept], weights[kept]
        with torch.no_grad():
            logits = model.head(model.embed(row["input_ids"]))[:-1][kept].double()
        ce = nn.functional.cross_entropy(logits, labels, reduction="none")
        emd = (logits.softmax(-1) * kappa[labels]).sum(-1)
        sums += torch.stack([ce.sum(), emd.sum(), (logits.argmax(-1) == labels).sum(), (weights * (ce + emd)).sum(),
                             weights.sum(), kept.sum()])  # fmt: skip
    ce, emd, correct, loss, total, tokens = sums.tolist()
    return {"val_ce": ce / tokens, "val_emd": emd / tokens, "val_accuracy": correct / tokens, "val_loss": loss / total}


@pytest.mark.parametrize("kind", [EMOLoss, LinearEMOLoss])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_evaluation_logs_means_over_all_tokens(
    kind: Any, reduction: str, weighted: bool, bank: Bank, tokenizer: Any, tmp_path: Path
):
    texts = Weighted(tokenizer)
    texts.weighted = weighted
    model = Validated(kind(bank, shift=True, objective="emo", mixing="fixed", reduction=reduction))
    expected = by_hand(model, texts, bank)
    for size in (8, 24, 5):
        assert validated(model, texts, tmp_path, size) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [EMOLoss, LinearEMOLoss])
@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.2}, {"temperature": 2.0}, {"z_loss": 0.1}, {"softcap": 0.5, "temperature": 0.5}],
    ids=str,
)  # fmt: skip
def test_the_cross_entropy_of_an_evaluation_is_plain(
    kind: Any, options: dict[str, Any], bank: Bank, tokenizer: Any, tmp_path: Path
):
    texts, model = Weighted(tokenizer), Validated(kind(bank, shift=True, objective="emo", mixing="fixed", **options))
    own = validated(model, texts, tmp_path)
    capped: Callable[[Tensor], Tensor] = lambda z: 0.5 * torch.tanh(z / 0.5) if "softcap" in options else z  # noqa: E731
    model.head = nn.Sequential(model.head, Applied(capped))
    expected = by_hand(model, texts, bank)
    assert own["val_ce"] == pytest.approx(expected["val_ce"], abs=1e-5)
    assert own["val_accuracy"] == pytest.approx(expected["val_accuracy"], abs=1e-5)
    assert abs(own["val_loss"] - expected["val_loss"]) > 1e-3


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)


def test_training_logs_the_cross_entropy_that_the_loss_is_made_of(bank: Bank, texts: Texts, tmp_path: Path):
    model = Model(EMOLoss(bank, shift=True, objective="emo", mixing="fixed", label_smoothing=0.2))
    metrics = fit(model, texts, tmp_path).callback_metrics
    assert metrics["loss"].item() == pytest.approx((metrics["ce"] + metrics["emd"]).item(), abs=1e-5)


def _validate(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "GROUP_RANK": "0",
                       "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "validate",
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})  # fmt: skip
    torch.set_num_threads(1)
    texts = Weighted(make_tokenizer(TEXTS))
    model = Validated(LinearEMOLoss(open_bank(bank_path), shift=True, objective="emo", mixing="fixed"))
    metrics = validated(model, texts, Path(out), 4, devices=processes, strategy="ddp")
    torch.save(metrics, f"{out}/metrics-{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)


def test_processes_log_the_means_over_all_their_tokens(bank: Bank, tokenizer: Any, tmp_path: Path):
    run_processes(_validate, (2, free_port(), f"{bank.path}/", str(tmp_path)), 2)
    expected = by_hand(Validated(EMOLoss(bank)), Weighted(tokenizer), bank)
    for rank in range(2):
        assert torch.load(tmp_path / f"metrics-{rank}.pt") == pytest.approx(expected, abs=1e-5)


def test_resuming_asks_for_the_same_bank_and_options(bank: Bank, other_bank: Bank, texts: Texts, tmp_path: Path):
    saved = tmp_path / "last.ckpt"
    fit(Model(EMOLoss(bank, shift=True)), texts, tmp_path, steps=2).save_checkpoint(saved)
    on = Model(EMOLoss(bank, shift=True, chunk_rows=7))
    assert fit(on, texts, tmp_path, resume=saved).global_step == 3
    with pytest.raises(UsageError, match=rf"{bank.id} smoothing over .*, but this loss has tiny@{other_bank.id}"):
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
