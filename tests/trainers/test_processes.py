"""Two processes under DistributedDataParallel train and evaluate as one does on the batches of both."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch import nn
from transformers import Trainer, TrainingArguments

from costbank import open_bank
from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from tests.loss.processes import spawn
from tests.trainers.conftest import SMALL, TEXTS, VOCAB, Texts, gpt2, llama, make_tokenizer


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


def arguments(rank: int, processes: int, port: int, out: str, **changes: Any) -> TrainingArguments:
    """Arguments for a process, which joins the others, of two steps with plain gradient descent."""
    if processes > 1:
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})  # fmt: skip
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "max_steps": 2, "per_device_train_batch_size": 4 // processes, "optim": "sgd", "learning_rate": 0.5,
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 5, "dataloader_pin_memory": False,
        "ddp_backend": "gloo" if processes > 1 else None,
    }  # fmt: skip
    return TrainingArguments(out, **{**settings, **changes})


def leave(processes: int) -> None:
    """End a process that has saved all."""
    if processes > 1:
        torch.distributed.barrier()
        # What is left is to take apart models and their process group, whose threads may then wait for each other for
        # ever.
        os._exit(0)


def run(function: Callable[..., None], bank: Bank, out: Path, counts: tuple[int, ...]) -> None:
    """Run a function in each of these numbers of processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for processes in counts:
        spawn(function, (processes, port, f"{bank.path}/", str(out)), processes)


def train(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    """Two steps of two accumulated batches, of 4 rows in all processes together."""
    args = arguments(rank, processes, port, out, gradient_accumulation_steps=2)
    bank, texts = open_bank(bank_path), Texts(make_tokenizer(TEXTS))
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
    leave(processes)


def test_two_processes_train_as_one(bank: Bank, tmp_path: Path):
    run(train, bank, tmp_path, (1, 2))
    for name in ("tied", "untied", "function"):
        (one, one_lines), (two, two_lines) = (torch.load(tmp_path / f"{name}-{n}.pt") for n in (1, 2))
        for key in one:
            torch.testing.assert_close(one[key], two[key], atol=1e-6, rtol=0)
        for line, other in zip(one_lines, two_lines, strict=True):
            assert len(line) == (1 if name == "function" else 4)
            for key, value in line.items():
                assert abs(value - other[key]) < 1e-5


def t5() -> Any:
    torch.manual_seed(1)
    return tf.T5ForConditionalGeneration(tf.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
        dropout_rate=0.0,
    ))  # fmt: skip


def mixtral() -> Any:
    torch.manual_seed(1)
    return tf.MixtralForCausalLM(tf.MixtralConfig(
        **SMALL, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.5
    ))  # fmt: skip


def hidden_states() -> Any:
    model = llama()
    model.config.output_hidden_states = True
    return model


def lora() -> Any:
    import peft

    return peft.get_peft_model(hidden_states(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))


class Scaled(tf.LlamaForCausalLM):
    """Multiplies its logits with a parameter, and gives its hidden states as well."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, *arguments: Any, labels: Any = None, **named: Any) -> Any:
        outputs = super().forward(*arguments, **named, output_hidden_states=True)
        outputs.logits = outputs.logits * self.factor
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


SEVERAL = {"t5": t5, "mixtral": mixtral, "hidden states": hidden_states, "lora": lora}


def train_several_outputs(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    args = arguments(rank, processes, port, out, remove_unused_columns=False)
    bank, texts = open_bank(bank_path), Texts(make_tokenizer(TEXTS))
    for name, make in SEVERAL.items():
        for emo in (LinearEMOLoss, EMOLoss):
            trainer = EMOTrainer(make(), args, train_dataset=texts, emo=emo(bank))
            trainer.train()
            if rank == 0:
                torch.save(dict(trainer.model.state_dict()), f"{out}/{name}-{emo.__name__}.pt")
    try:
        EMOTrainer(Scaled(tf.LlamaConfig(**SMALL)), args, train_dataset=texts, emo=bank).train()
        said = "nothing"
    except UsageError as error:
        said = str(error)
    (Path(out) / f"scaled-{rank}").write_text(said)
    leave(processes)


def test_models_with_several_outputs_train_in_the_linear_form(bank: Bank, tmp_path: Path):
    """DistributedDataParallel joins all outputs in one node of the gradient's graph; what is learned between head and
    logits is found all the same, and nothing else is taken for it."""
    run(train_several_outputs, bank, tmp_path, (2,))
    for name in SEVERAL:
        linear, full = (torch.load(tmp_path / f"{name}-{emo.__name__}.pt") for emo in (LinearEMOLoss, EMOLoss))
        for key in full:
            torch.testing.assert_close(linear[key], full[key], atol=1e-5, rtol=0)
    for rank in range(2):
        assert "learned parameters of shape [[]] to its head's output" in (tmp_path / f"scaled-{rank}").read_text()
