"""The loss `emo` of ms-swift: in ms-swift itself if it is installed, and always against its interface."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from costbank_cli.command_line import command_line

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss
from tests.loss.oracle import token_losses
from tests.trainers.conftest import TEXTS, VOCAB, llama, make_tokenizer
from tests.trainers.plain_loop import (
    RATE,
    STEPS,
    Recorder,
    grouped,
    logged_losses,
    plain_losses,
    record_training_steps,
    shifted,
)
from tests.trainers.recorded_processes import train_in_processes
from tests.trainers.stand_ins import framework, is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[bool]:
    with framework("swift") as real:
        yield real


@pytest.fixture(autouse=True)
def environment(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTBANK_BANK", f"{bank.path}/")
    for name in ("PRESET", "OBJECTIVE", "MIXING", "WEIGHT", "OPTIONS"):
        monkeypatch.delenv(f"COSTBANK_{name}", raising=False)


def trainer_of(tokenizer: Any, **template: Any) -> Any:
    return SimpleNamespace(template=SimpleNamespace(tokenizer=tokenizer, sequence_parallel_size=1, **template),
                           state=SimpleNamespace(global_step=0))  # fmt: skip


ARGS = SimpleNamespace(label_smoothing_factor=0.0, enable_dft_loss=False, enable_channel_loss=False)


def make(tokenizer: Any, args: Any = ARGS) -> Any:
    from costbank.trainers.ms_swift import SwiftEMOLoss

    return SwiftEMOLoss(args, trainer_of(tokenizer))


def test_the_command_prints_a_file_that_registers_the_loss():
    from swift.loss import loss_map

    path = Path(CliRunner().invoke(command_line, ["plugin-path", "ms-swift"]).stdout.strip())
    # ms-swift puts the folder on the import path, so no other module may be in it.
    assert [file.name for file in path.parent.glob("*.py")] == [path.name]
    loss_map.pop("emo", None)
    if is_installed("swift"):
        from swift.utils import import_external_file

        import_external_file(str(path))
        sys.path.remove(str(path.parent))
    else:
        exec(compile(path.read_text("utf-8"), str(path), "exec"), {})
    from costbank.trainers.ms_swift import SwiftEMOLoss

    assert loss_map["emo"] is SwiftEMOLoss


def test_the_value_is_the_definitions(bank: Bank, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COSTBANK_WEIGHT", "0.3")
    monkeypatch.setenv("COSTBANK_OPTIONS", '{"temperature": 2.0}')
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, VOCAB, generator=generator)
    labels = torch.randint(2, VOCAB, (2, 7), generator=generator)
    labels[:, :3] = -100
    loss = EMOLoss(bank, weight=0.3, temperature=2.0)
    each = token_losses(logits.flatten(0, 1), shifted(labels).flatten(), loss.costs, loss.options)
    ours, outputs = make(tokenizer), SimpleNamespace(logits=logits)
    assert ours(outputs, labels).item() == pytest.approx(float(each.sum()) / 8, abs=1e-5)
    assert ours(outputs, labels, num_items_in_batch=31).item() == pytest.approx(float(each.sum()) / 31, abs=1e-5)
    scale = torch.rand(14, generator=generator)
    scaled = ours(outputs, labels, num_items_in_batch=31, loss_scale=scale, trainer=None)
    assert scaled.item() == pytest.approx(float((each * scale).sum()) / 31, abs=1e-5)
    with pytest.raises(ShapeError, match="logits of shape"):
        ours(SimpleNamespace(logits=logits[:, :5]), labels)


def test_ten_steps_are_those_of_a_plain_loop(
    bank: Bank, tokenizer: Any, arguments: Any, texts: Any, capsys: pytest.CaptureFixture[str]
):
    model = llama()
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    args = arguments(max_steps=STEPS, learning_rate=RATE, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    trainer = tf.Trainer(model, args, train_dataset=texts, data_collator=recorder, compute_loss_func=make(tokenizer))
    trainer.train()
    plain = plain_losses(start, grouped(recorder.batches, 4), EMOLoss(bank))
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)
    assert f"the loss is in force in ms-swift: bank tiny@{bank.id}" in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused_when_the_trainer_is_made(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    from costbank.trainers.ms_swift import SwiftEMOLoss

    with pytest.raises(TokenizerError, match="ids differ"):
        make(make_tokenizer([text[::-1] for text in TEXTS]))
    for name, match in (("enable_dft_loss", "DFT"), ("enable_channel_loss", "channels"),
                        ("label_smoothing_factor", "label_smoothing")):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            make(tokenizer, SimpleNamespace(**{**vars(ARGS), name: 1}))
    parallel = trainer_of(tokenizer)
    parallel.template.sequence_parallel_size = 2
    with pytest.raises(UsageError, match="sequence parallelism"):
        SwiftEMOLoss(ARGS, parallel)
    monkeypatch.setenv("COSTBANK_OPTIONS", "{temperature")
    with pytest.raises(UsageError, match="COSTBANK_OPTIONS cannot be read"):
        make(tokenizer)
    monkeypatch.delenv("COSTBANK_BANK")
    with pytest.raises(UsageError, match="COSTBANK_BANK is not set"):
        make(tokenizer)


def write_run(folder: Path, tokenizer: Any, changes: dict[str, Any]) -> list[str]:
    """A model, a tokenizer, conversations, and the arguments of `swift sft`."""
    llama().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lines = []
    for number, text in enumerate(TEXTS):
        question, answer = text.split(" sees ")
        messages = [{"role": "user", "content": question},
                    {"role": "assistant", "content": " and ".join([answer] * (1 + number % 3)),
                     "loss_scale": [0.5 + number % 3]}]  # fmt: skip
        lines.append(json.dumps({"messages": messages}) + "\n")
    (folder / "data.jsonl").write_text("".join(lines))
    plugin = CliRunner().invoke(command_line, ["plugin-path", "ms-swift"]).stdout.strip()
    settings = {
        "model": folder / "model", "model_type": "llama", "template": "default", "tuner_type": "full",
        "dataset": folder / "data.jsonl", "output_dir": folder / "out", "external_plugins": plugin, "loss_type": "emo",
        "torch_dtype": "float32", "bf16": False, "fp16": False, "use_cpu": True, "attn_impl": "sdpa",
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": STEPS, "learning_rate": RATE,
        "optim": "sgd", "lr_scheduler_type": "constant", "warmup_ratio": 0, "weight_decay": 0, "max_grad_norm": 0,
        "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "split_dataset_ratio": 0, "dataset_num_proc": 1, "dataloader_num_workers": 0, "max_length": 256,
        "check_model": False, **changes,
    }  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


needs_swift = pytest.mark.skipif(not is_installed("swift"), reason="ms-swift is not installed")


@needs_swift
@pytest.mark.parametrize(
    "changes",
    [{}, {"is_binary_loss_scale": False}, {"padding_free": True}, {"packing": True, "gradient_accumulation_steps": 1}],
    ids=["padded", "scaled", "padding-free", "packed"],
)
def test_ms_swift_trains_with_it(
    changes: dict[str, Any], bank: Bank, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """What `swift sft` does."""
    from swift.arguments import SftArguments
    from swift.pipelines import sft_main

    def accept_any_attention(self: Any) -> None:
        self.padding_free = self.padding_free or self.packing

    # ms-swift asks for flash attention, which needs a GPU. PyTorch's attention also tells the texts of a row apart.
    monkeypatch.setattr(SftArguments, "_check_padding_free", accept_any_attention)
    monkeypatch.setenv("COSTBANK_WEIGHT", "0.3")
    batches, trainers = record_training_steps(monkeypatch)
    sft_main(write_run(tmp_path, tokenizer, changes))
    assert f"the loss is in force in ms-swift: bank tiny@{bank.id}" in capsys.readouterr().err
    assert all((batch["labels"] == -100).any() for batch in batches)
    assert all(("loss_scale" in batch) == ("is_binary_loss_scale" in changes) for batch in batches)
    assert all((len(batch["labels"]) == 1) == ("padding_free" in changes or "packing" in changes) for batch in batches)
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    plain = plain_losses(
        start, grouped(batches, changes.get("gradient_accumulation_steps", 2)), EMOLoss(bank, weight=0.3)
    )
    assert logged_losses(trainers[-1]) == pytest.approx(plain, abs=1e-4)


def run_swift_in_a_process(folder: Path) -> None:
    from swift.pipelines import sft_main

    sft_main(json.loads((folder / "arguments.json").read_text()))


@needs_swift
def test_ms_swift_trains_with_it_in_two_processes(
    bank: Bank, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COSTBANK_WEIGHT", "0.3")
    arguments = write_run(tmp_path, tokenizer, {"per_device_train_batch_size": 1, "ddp_backend": "gloo"})
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    steps, losses = train_in_processes(run_swift_in_a_process, tmp_path, 2)
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert losses == pytest.approx(plain_losses(start, steps, EMOLoss(bank, weight=0.3)), abs=1e-4)
