"""The callback in LLaMA-Factory's own training."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss
from costbank.trainers.model_loss_callback import EMOLossCallback
from tests.trainers.conftest import TEXTS, llama
from tests.trainers.plain_loop import RATE, STEPS, grouped, logged_losses, plain_losses, record_training_steps
from tests.trainers.recorded_processes import train_in_processes
from tests.trainers.stand_ins import is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.skipif(not is_installed("llamafactory"), reason="llamafactory is not installed"),
]


def settings(folder: Path, tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """A model, a tokenizer, texts, and the settings for LLaMA-Factory."""
    llama().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = []
    for number, text in enumerate(TEXTS):
        question, answer = text.split(" sees ")
        rows.append({"instruction": question, "input": "", "output": " and ".join([answer] * (1 + number % 3))})
    (folder / "texts.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"texts": {"file_name": "texts.json"}}))
    return {
        "model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True, "finetuning_type": "full",
        "dataset": "texts", "dataset_dir": str(folder), "template": "default", "cutoff_len": 256,
        "output_dir": str(folder / "out"), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "max_steps": STEPS, "learning_rate": RATE, "optim": "sgd", "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "bf16": False, "fp16": False,
        "flash_attn": "sdpa", "disable_gradient_checkpointing": True, "dataloader_num_workers": 0,
        "preprocessing_num_workers": 1, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{}, {"packing": True, "neat_packing": True, "gradient_accumulation_steps": 1}],
    ids=["padded", "packed"],
)
def test_llamafactory_trains_with_it(
    changes: dict[str, Any], bank: Bank, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    from llamafactory.train.tuner import run_exp

    batches, trainers = record_training_steps(monkeypatch)
    run_exp(settings(tmp_path, tokenizer, **changes), callbacks=[EMOLossCallback(bank, place="LLaMA-Factory")])
    assert f"the loss is in force in LLaMA-Factory: bank tiny@{bank.id}" in capsys.readouterr().err
    assert all((batch["labels"] == -100).any() for batch in batches)
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    plain = plain_losses(start, grouped(batches, changes.get("gradient_accumulation_steps", 2)), EMOLoss(bank))
    assert logged_losses(trainers[-1]) == pytest.approx(plain, abs=1e-4)


def run_llamafactory_in_a_process(folder: Path) -> None:
    from llamafactory.train.tuner import run_exp

    written = json.loads((folder / "settings.json").read_text())
    run_exp(written, callbacks=[EMOLossCallback((folder / "bank").read_text())])


def test_llamafactory_trains_with_it_in_two_processes(bank: Bank, tokenizer: Any, tmp_path: Path):
    written = settings(tmp_path, tokenizer, per_device_train_batch_size=1, ddp_backend="gloo")
    (tmp_path / "settings.json").write_text(json.dumps(written))
    (tmp_path / "bank").write_text(f"{bank.path}/")
    steps, losses = train_in_processes(run_llamafactory_in_a_process, tmp_path, 2)
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert losses == pytest.approx(plain_losses(start, steps, EMOLoss(bank)), abs=1e-4)


@pytest.mark.parametrize("setting", ["use_dft_loss", "use_eaft_loss", "use_asft_loss"])
def test_its_other_losses_are_refused_in_the_first_step(
    setting: str, bank: Bank, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from llamafactory.train.tuner import run_exp

    _, trainers = record_training_steps(monkeypatch)
    with pytest.raises(UsageError, match="step 1 was trained with another loss"):
        run_exp(settings(tmp_path, tokenizer, **{setting: True}), callbacks=[EMOLossCallback(bank)])
    assert trainers[-1].state.global_step == 0
