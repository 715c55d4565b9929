"""Evaluations with the mixin: several datasets, the best checkpoint, predictions, and memory."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    XLNetConfig,
    XLNetLMHeadModel,
)

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin
from tests.trainers.conftest import SMALL, VOCAB, Texts, llama
from tests.warm import WarmPython

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning"),
]
PARTS = ("loss", "emo_loss", "ce", "objective_value", "mean_token_accuracy")

MEMORY = """
import tempfile, torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from costbank.loss import DenseCosts, EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin

class EMOTrainer(EMOTrainerMixin, Trainer):
    pass

VOCAB, LENGTH, BATCH = 16384, 128, 48
model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=LENGTH))
costs = DenseCosts(torch.nn.functional.normalize(torch.randn(VOCAB, 8), dim=1))
data = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, VOCAB, (BATCH, LENGTH))]
args = TrainingArguments(tempfile.mkdtemp(), per_device_eval_batch_size=BATCH, use_cpu=True, report_to=[],
                         disable_tqdm=True, dataloader_pin_memory=False)
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
# The smaller peak comes first, because peaks never fall.
for name, loss in (("linear", LinearEMOLoss), ("full", EMOLoss)):
    trainer = EMOTrainer(model, args, eval_dataset=data, emo=loss(costs))
    before = peak()
    trainer.evaluate()
    print("grown", name, (peak() - before) * 1024 / (VOCAB * LENGTH * BATCH * 4))
"""


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_evaluation_for_the_loss_alone_takes_a_part_of_the_memory_of_all_logits(warm: WarmPython, tmp_path: Path):
    done = warm.run(MEMORY, tmp_path / "program")
    assert done.returncode == 0, done.stderr
    # In units of the size of all logits in float32.
    linear, full = (float(done.stdout.rpartition(f"grown {form} ")[2].split()[0]) for form in ("linear", "full"))
    assert linear < 0.3
    assert linear + full > 0.7


def test_the_best_checkpoint_is_found_by_every_metric(bank: Bank, arguments: Any, texts: Any):
    for metric, greater in (("loss", False), ("emo_loss", False), ("eval_objective_value", True)):
        args = arguments(
            eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
            metric_for_best_model=metric, greater_is_better=greater, max_steps=3,
        )  # fmt: skip
        trainer = EMOTrainer(llama(), args, train_dataset=texts, eval_dataset=texts, emo=bank)
        trainer.train()
        name = f"eval_{metric.removeprefix('eval_')}"
        values = [line[name] for line in trainer.state.log_history if name in line]
        assert len(values) == 3
        best = (max if greater else min)(values)
        assert trainer.state.best_metric == pytest.approx(best, abs=1e-7)
        # The loaded weights are those of the best step.
        assert trainer.evaluate()[name] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_several_datasets_are_evaluated_each_for_itself(emo: Any, bank: Bank, arguments: Any, tokenizer: Any):
    parts = {"long": Texts(tokenizer, 24), "short": Texts(tokenizer, 7)}
    together = EMOTrainer(llama(), arguments(), eval_dataset=parts, emo=emo(bank)).evaluate()
    for name, data in parts.items():
        alone = EMOTrainer(llama(), arguments(), eval_dataset=data, emo=emo(bank)).evaluate()
        for part in PARTS:
            assert together[f"eval_{name}_{part}"] == pytest.approx(alone[f"eval_{part}"], abs=1e-6)


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_predictions_have_the_metrics_of_an_evaluation(emo: Any, bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(llama(), arguments(), eval_dataset=texts, emo=emo(bank))
    predicted, evaluated = trainer.predict(texts), trainer.evaluate()
    for part in PARTS:
        assert predicted.metrics[f"test_{part}"] == pytest.approx(evaluated[f"eval_{part}"], abs=1e-5)
    with torch.no_grad():
        logits = trainer.model(input_ids=texts.ids, attention_mask=texts.mask).logits
    torch.testing.assert_close(torch.tensor(predicted.predictions), logits, rtol=0, atol=1e-5)
    # A later training would log only its own tokens.
    assert trainer._emo_metrics[False].take(trainer.accelerator) == {}


class Halves(TrainerCallback):
    """Halves the logits after the first step."""

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **more: Any) -> None:
        more["model"].factor = 0.5


class Late(LlamaForCausalLM):
    factor = 1.0

    def forward(self, *arguments: Any, labels: Any = None, **named: Any) -> Any:
        outputs = super().forward(*arguments, **named)
        outputs.logits = outputs.logits * self.factor
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


def late() -> Late:
    torch.manual_seed(1)
    return Late(LlamaConfig(**SMALL))


@pytest.mark.parametrize(
    ("settings", "step"),
    [({}, 3), ({"eval_strategy": "steps", "eval_steps": 2}, 2), ({"save_strategy": "steps", "save_steps": 2}, 2)],
    ids=["end", "evaluation", "checkpoint"],
)
def test_the_proof_is_read_however_seldom_a_run_logs(
    settings: Any, step: int, bank: Bank, arguments: Any, texts: Any, tmp_path: Path
):
    args = arguments(remove_unused_columns=False, logging_steps=500, **settings)
    trainer = EMOTrainer(late(), args, train_dataset=texts, eval_dataset=texts, emo=bank, callbacks=[Halves()])
    with pytest.raises(UsageError, match=r"differ by up to 0\.5 of the largest"):
        trainer.train()
    assert trainer.state.global_step == step
    assert not [*tmp_path.glob("out/checkpoint-*")]
    assert not [line for line in trainer.state.log_history if "eval_loss" in line]


def test_the_proof_of_an_evaluation_alone_is_read(bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(late(), arguments(remove_unused_columns=False), eval_dataset=texts, emo=bank)
    trainer.evaluate()
    trainer.model.factor = 0.5
    with pytest.raises(UsageError, match=r"differ by up to 0\.5 of the largest"):
        trainer.evaluate()


BART = {"vocab_size": VOCAB, "d_model": 16, "decoder_layers": 1, "decoder_ffn_dim": 16, "decoder_attention_heads": 2,
        "dropout": 0.0, "max_position_embeddings": 64, "pad_token_id": 0, "init_std": 0.5}  # fmt: skip
UNSHIFTED = {
    "xlnet": lambda: XLNetLMHeadModel(XLNetConfig(vocab_size=VOCAB, d_model=16, n_layer=1, n_head=2, d_inner=16,
                                                  dropout=0.0, initializer_range=0.5)),
    "bart, decoder": lambda: BartForCausalLM(BartConfig(**BART)),
    "llama": llama,
}  # fmt: skip


def accuracy(predictions: Any) -> dict[str, float]:
    return {"rows": float(len(predictions.label_ids))}


@pytest.mark.parametrize("make", UNSHIFTED.values(), ids=UNSHIFTED.keys())
@pytest.mark.parametrize("more", [{}, {"compute_metrics": accuracy}], ids=["loss alone", "predictions"])
@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_the_first_evaluation_is_that_of_a_plain_trainer(
    make: Any, more: Any, emo: Any, bank: Bank, arguments: Any, texts: Any
):
    def fresh() -> Any:
        torch.manual_seed(1)
        return make()

    args = arguments(per_device_eval_batch_size=4)
    plain = Trainer(fresh(), args, eval_dataset=texts, **more).evaluate()["eval_loss"]
    trainer = EMOTrainer(fresh(), args, train_dataset=texts, eval_dataset=texts, emo=emo(bank), **more)
    for _ in range(2):
        assert trainer.evaluate()["eval_loss"] == pytest.approx(plain, abs=1e-5)
    assert trainer.predict(texts).metrics["test_loss"] == pytest.approx(plain, abs=1e-5)
    starts = EMOTrainer(
        fresh(), arguments(per_device_eval_batch_size=4, eval_strategy="steps", eval_steps=3, eval_on_start=True),
        train_dataset=texts, eval_dataset=texts, emo=emo(bank), **more,
    )  # fmt: skip
    starts.train()
    lines = [line["eval_loss"] for line in starts.state.log_history if "eval_loss" in line]
    assert lines[0] == pytest.approx(plain, abs=1e-5)


def test_a_batch_that_does_not_tell_leaves_the_count_to_the_next(bank: Bank, arguments: Any, texts: Any):
    """All labels of the first of two accumulated batches are ignored; the second shows how to count tokens."""
    torch.manual_seed(1)
    trainer = EMOTrainer(UNSHIFTED["xlnet"](), arguments(), train_dataset=texts, emo=LinearEMOLoss(bank))
    second = {"input_ids": texts.ids[:4], "attention_mask": texts.mask[:4], "labels": texts.ids[:4]}
    batches, count = trainer.get_batch_samples(
        iter([{**second, "labels": torch.full_like(texts.ids[:4], -100)}, second]), 2, torch.device("cpu")
    )
    assert len(batches) == 2
    assert int(count) == texts.ids[:4].numel()
