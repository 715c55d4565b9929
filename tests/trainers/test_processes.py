"""Two processes under DistributedDataParallel train as one does on the batches of both."""

import os
import socket
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from costbank import open_bank
from costbank.bank import Bank
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from tests.loss.processes import spawn
from tests.trainers.conftest import TEXTS, Texts, gpt2, llama, make_tokenizer


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


def train(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    """Two steps of two accumulated batches, of 4 rows in all processes together."""
    if processes > 1:
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})  # fmt: skip
    torch.set_num_threads(1)
    bank, texts = open_bank(bank_path), Texts(make_tokenizer(TEXTS))
    args = TrainingArguments(
        out, max_steps=2, per_device_train_batch_size=4 // processes, gradient_accumulation_steps=2, optim="sgd",
        learning_rate=0.5, lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True, seed=5, dataloader_pin_memory=False,
        ddp_backend="gloo" if processes > 1 else None,
    )  # fmt: skip
    function = compute_loss_func(EMOLoss(bank))
    trainers = {
        "tied": EMOTrainer(gpt2(), args, train_dataset=texts, emo=LinearEMOLoss(bank)),
        "untied": EMOTrainer(llama(), args, train_dataset=texts, emo=LinearEMOLoss(bank)),
        "function": Trainer(llama(), args, train_dataset=texts, compute_loss_func=function, callbacks=[function]),
    }
    for name, trainer in trainers.items():
        trainer.train()
        if rank == 0:
            lines = [
                {key: line[key] for key in ("loss", "ce", "emd", "mean_token_accuracy") if key in line}
                for line in trainer.state.log_history[:2]
            ]
            torch.save((dict(trainer.model.state_dict()), lines), f"{out}/{name}-{processes}.pt")
    if processes > 1:
        torch.distributed.barrier()
        # All is saved. What is left is to take apart models and their process group, whose threads may then wait for
        # each other for ever.
        os._exit(0)


def test_two_processes_train_as_one(bank: Bank, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for processes in (1, 2):
        spawn(train, (processes, port, f"{bank.path}/", str(tmp_path)), processes)
    for name in ("tied", "untied", "function"):
        (one, one_lines), (two, two_lines) = (torch.load(tmp_path / f"{name}-{n}.pt") for n in (1, 2))
        for key in one:
            torch.testing.assert_close(one[key], two[key], atol=1e-6, rtol=0)
        for line, other in zip(one_lines, two_lines, strict=True):
            assert len(line) == (1 if name == "function" else 4)
            for key, value in line.items():
                assert abs(value - other[key]) < 1e-5
