"""Two processes under DistributedDataParallel train and evaluate like one process on the batches of both."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import multiprocessing, nn
from transformers import Trainer, TrainingArguments

from costbank import open_bank
from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.model_loss_callback import EMOLossCallback
from tests.loss.processes import free_port
from tests.trainers.conftest import SMALL, TEXTS, VOCAB, Texts, gpt2, llama, make_tokenizer
from tests.warm import WarmPython

PARTS = ("emo_loss", "ce", "objective_value", "mean_token_accuracy")


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


def arguments(rank: int, processes: int, port: int, out: str, **changes: Any) -> TrainingArguments:
    """Arguments for two steps of plain gradient descent in one of several processes."""
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


def train(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    """Two steps of two accumulated batches, each with 4 rows over all processes."""
    args = arguments(rank, processes, port, out, gradient_accumulation_steps=2)
    bank, texts = open_bank(bank_path), Texts(make_tokenizer(TEXTS))
    function = compute_loss_func(EMOLoss(bank))
    trainers = {
        "tied": EMOTrainer(gpt2(), args, train_dataset=texts, emo=LinearEMOLoss(bank)),
        "untied": EMOTrainer(llama(), args, train_dataset=texts, emo=LinearEMOLoss(bank)),
        "function": Trainer(llama(), args, train_dataset=texts, compute_loss_func=function, callbacks=[function]),
        "model": Trainer(llama(), args, train_dataset=texts, callbacks=[EMOLossCallback(bank)]),
    }
    for name, trainer in trainers.items():
        trainer.train()
        if rank == 0:
            lines = [
                {key: line[key] for key in ("loss", "ce", "objective_value", "mean_token_accuracy") if key in line}
                for line in trainer.state.log_history[:2]
            ]
            torch.save((dict(trainer.model.state_dict()), lines), f"{out}/{name}-{processes}.pt")


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
    """Multiplies its logits by a parameter, and also returns its hidden states."""

    def __init__(self, config: Any, factor: float | torch.Tensor = 0.5) -> None:
        super().__init__(config)
        self.factor = nn.Parameter(torch.as_tensor(factor))

    def forward(self, *arguments: Any, labels: Any = None, **named: Any) -> Any:
        outputs = super().forward(*arguments, **named, output_hidden_states=True)
        outputs.logits = outputs.logits * self.factor
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


def scaled(factor: float | torch.Tensor = 0.5) -> Scaled:
    torch.manual_seed(1)
    return Scaled(tf.LlamaConfig(**SMALL), factor)


SEVERAL = {"scaled": scaled, "t5": t5, "mixtral": mixtral, "hidden states": hidden_states, "lora": lora}


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
        EMOTrainer(scaled(torch.ones(VOCAB)), args, train_dataset=texts, emo=bank).train()
        message = "no error"
    except UsageError as error:
        message = str(error)
    (Path(out) / f"scaled-{rank}").write_text(message)


def evaluate(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    """Evaluations whose last batch has 3 or 1 rows instead of 4 over all processes, or whose only batch is partial."""
    args = arguments(rank, processes, port, out, per_device_eval_batch_size=4 // processes)
    bank, tokenizer = open_bank(bank_path), make_tokenizer(TEXTS)
    evaluated: dict[str, Any] = {}
    losses = {"linear": LinearEMOLoss(bank), "full": EMOLoss(bank), "soft": EMOLoss(bank, temperature=2.0)}
    for size in (1, 3, 5, 7, 8):
        texts = Texts(tokenizer, size)
        for name, emo in losses.items():
            metrics = EMOTrainer(llama(), args, eval_dataset=texts, emo=emo).evaluate()
            evaluated[f"{name} {size}"] = {part: metrics[f"eval_{part}"] for part in PARTS}
            evaluated[f"{name} {size} loss"] = {"loss": metrics["eval_loss"]}
            plain = Trainer(llama(), args, eval_dataset=texts).evaluate()
            evaluated[f"plain {size} loss"] = {"loss": plain["eval_loss"]}
    if rank == 0:
        torch.save(evaluated, f"{out}/evaluated-{processes}.pt")


def count_in_the_dark(rank: int, processes: int, port: int, bank_path: str, out: str) -> None:
    """All labels of one process are ignored in the first step."""
    args = arguments(rank, processes, port, out)
    bank, texts = open_bank(bank_path), Texts(make_tokenizer(TEXTS))
    model = tf.XLNetLMHeadModel(tf.XLNetConfig(vocab_size=VOCAB, d_model=16, n_layer=1, n_head=2, d_inner=16))
    trainer = EMOTrainer(model, args, train_dataset=texts, emo=LinearEMOLoss(bank))
    batch = {"input_ids": texts.ids[:2], "labels": texts.ids[:2] if rank else torch.full_like(texts.ids[:2], -100)}
    trainer.model_wrapped = trainer.accelerator.prepare(model)
    _, count = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    (Path(out) / f"dark-{rank}").write_text(f"{int(count)} of {texts.ids[:2].numel()}, {trainer._emo_probe.shift}")


# The last one ends with errors.
FUNCTIONS = {1: (train, evaluate), 2: (train, evaluate, count_in_the_dark, train_several_outputs)}
"""What is run on each number of processes, one after the other."""


def run_all(rank: int, processes: int, *arguments: Any) -> None:
    for function in FUNCTIONS[processes]:
        function(rank, processes, *arguments)
    if processes > 1:
        torch.distributed.barrier()
        # A normal exit would still tear down models and the process group, whose threads can deadlock.
        os._exit(0)


def start(bank_path: str, out: str) -> None:
    """Run the functions in forks of this process."""
    for processes in FUNCTIONS:
        multiprocessing.start_processes(
            run_all, (processes, free_port(), bank_path, out), nprocs=processes, start_method="fork"
        )


@pytest.fixture(scope="module")
def results(bank: Bank, warm: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what all functions saved."""
    out = tmp_path_factory.mktemp("results")
    code = f"from tests.trainers.test_processes import start; start({f'{bank.path}/'!r}, {str(out)!r})"
    done = warm.run(code, out / "program")
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_train_as_one(results: Path):
    for name in ("tied", "untied", "function", "model"):
        (one, one_lines), (two, two_lines) = (torch.load(results / f"{name}-{n}.pt") for n in (1, 2))
        for key in one:
            torch.testing.assert_close(one[key], two[key], atol=1e-6, rtol=0)
        for line, other in zip(one_lines, two_lines, strict=True):
            assert len(line) == (1 if name in ("function", "model") else 4)
            for key, value in line.items():
                assert abs(value - other[key]) < 1e-5


def test_models_with_several_outputs_train_in_the_linear_form(results: Path):
    """DistributedDataParallel joins all outputs in one node of the autograd graph. Learned parameters between head and
    logits are still detected, and no others. One scale is trained, and one for each token is refused."""
    for name in SEVERAL:
        linear, full = (torch.load(results / f"{name}-{emo.__name__}.pt") for emo in (LinearEMOLoss, EMOLoss))
        for key in full:
            torch.testing.assert_close(linear[key], full[key], atol=1e-5, rtol=0)
    assert abs(float(torch.load(results / "scaled-LinearEMOLoss.pt")["factor"]) - 0.5) > 1e-4
    for rank in range(2):
        assert "learned parameters of shape [[300]] to its head's output" in (results / f"scaled-{rank}").read_text()


def test_two_processes_evaluate_each_row_once(results: Path):
    one, two = (torch.load(results / f"evaluated-{n}.pt") for n in (1, 2))
    for name, parts in one.items():
        if not name.endswith("loss"):
            assert parts == pytest.approx(two[name], abs=1e-5), name
    # The loss is the mean of the batches' means, as in the Trainer.
    for evaluated in (one, two):
        for name, parts in evaluated.items():
            if name.endswith("loss"):
                assert parts == pytest.approx(evaluated[f"plain {name.split()[1]} loss"], abs=1e-5), name


def test_processes_agree_on_the_shift_that_one_of_them_has_seen(results: Path):
    count = Texts(make_tokenizer(TEXTS)).ids[:2].numel()
    for rank in range(2):
        assert (results / f"dark-{rank}").read_text() == f"{count} of {count}, False"
