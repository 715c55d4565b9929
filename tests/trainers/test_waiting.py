"""Overhead of a training step: it does not wait for the device, and the first batch takes bounded memory."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

import costbank
from costbank.bank import Bank
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin
from tests.trainers.conftest import llama
from tests.warm import WarmPython

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# Each of these methods waits for the accelerator.
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
ROOT = Path(costbank.__file__).parent


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


def reader() -> str | None:
    """The costbank module that reads a tensor; None if another library reads it."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            return f"{path.parent.name}/{path.name}:{frame.f_lineno}"
        if not path.is_relative_to(Path(torch.__file__).parent):
            return None
        frame = frame.f_back
    return None


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_a_step_waits_for_no_device(emo: Any, bank: Bank, arguments: Any, texts: Any, monkeypatch: pytest.MonkeyPatch):
    """The trainers read tensors only on the first batch and for log lines; reads by the loss are not counted."""
    steps: list[list[str]] = []
    logged: list[str] = []
    reads: list[str] | None = None
    for name in READS:
        real = getattr(torch.Tensor, name)

        def read(*given: Any, _real: Any = real, _name: str = name, **named: Any) -> Any:
            if reads is not None and (by := reader()) is not None and by.startswith("trainers/"):
                reads.append(f"{_name} in {by}")
            return _real(*given, **named)

        monkeypatch.setattr(torch.Tensor, name, read)

    class Watched(EMOTrainer):
        def training_step(self, *given: Any, **named: Any) -> Any:
            nonlocal reads
            reads = []
            loss = super().training_step(*given, **named)
            steps.append(reads)
            reads = None
            return loss

        def get_batch_samples(self, *given: Any, **named: Any) -> Any:
            nonlocal reads
            reads = []
            batches = super().get_batch_samples(*given, **named)
            steps.append(reads)
            reads = None
            return batches

        def log(self, *given: Any, **named: Any) -> None:
            nonlocal reads
            reads = logged
            super().log(*given, **named)
            reads = None

    Watched(llama(), arguments(max_steps=6, logging_steps=3), train_dataset=texts, emo=emo(bank)).train()
    assert len(steps) == 12
    # The first batch must be read; otherwise this test detects nothing.
    assert steps[0]
    assert steps[2:] == [[]] * 10
    assert logged


MEMORY = """
import resource, tempfile
import torch, transformers as tf
from costbank.loss import DenseCosts, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin

class EMOTrainer(EMOTrainerMixin, tf.Trainer):
    pass

torch.manual_seed(0)
model = tf.LlamaForCausalLM(tf.LlamaConfig(
    vocab_size=32_000, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
    max_position_embeddings=1024, tie_word_embeddings=True)).train()
costs = DenseCosts(torch.nn.functional.normalize(torch.randn(32_000, 4), dim=-1))
arguments = tf.TrainingArguments(output_dir=tempfile.mkdtemp(), use_cpu=True, report_to=[])
peaks = []
for rows, length in ((1, 8), (8, 512)):
    trainer = EMOTrainer(model, arguments, emo=LinearEMOLoss(costs))
    ids = torch.randint(32_000, (rows, length))
    trainer._measure(model, [{"input_ids": ids, "labels": ids}], True)
    assert not trainer._emo_probe.needs_batch(linear=True)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


def test_the_first_batch_is_compared_in_bounded_memory(warm: WarmPython, tmp_path: Path):
    """The logits of 8 × 512 tokens and 32,000 ids take 512 MB, and the model's own loss needs three times as much."""
    done = warm.run(MEMORY, tmp_path / "program")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 400_000
