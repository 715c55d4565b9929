"""The mixin, and the function, with TRL's SFTTrainer."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from tests.trainers.conftest import TEXTS, llama
from tests.trainers.test_huggingface import assert_same, losses, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class EMOSFTTrainer(EMOTrainerMixin, SFTTrainer):
    pass


@pytest.fixture
def sft(arguments: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    def make(kind: Any, data: Dataset, *, config: dict[str, Any] | None = None, **more: Any) -> SFTTrainer:
        args = arguments(SFTConfig, **{"max_length": 64, "activation_checkpointing": False, **(config or {})})
        return kind(llama(), args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, **more)

    return make


WHOLE = Dataset.from_dict({"text": TEXTS})
COMPLETIONS = Dataset.from_dict({
    "prompt": [text.split(" sees ")[0] for text in TEXTS],
    "completion": [f" sees {text.split(' sees ')[1]}" for text in TEXTS],
})  # fmt: skip


@pytest.mark.parametrize("data", [WHOLE, COMPLETIONS], ids=["whole texts", "completions alone"])
@pytest.mark.parametrize("accumulated", [1, 4])
def test_the_mixin_trains_like_the_function(data: Dataset, accumulated: int, sft: Any, bank: Bank):
    config = {"per_device_train_batch_size": 8 // accumulated, "gradient_accumulation_steps": accumulated}
    mixed = sft(EMOSFTTrainer, data, config=config, emo=LinearEMOLoss(bank), emo_bank=bank)
    function = compute_loss_func(EMOLoss(bank))
    full = sft(SFTTrainer, data, compute_loss_func=function, callbacks=[function])
    assert_same(trained(mixed), trained(full))
    assert losses(mixed) == pytest.approx(losses(full), abs=1e-5)
    ours, theirs = (
        [line["mean_token_accuracy"] for line in trainer.state.log_history if "loss" in line]
        for trainer in (mixed, full)
    )
    if accumulated == 1:
        assert ours == pytest.approx(theirs, abs=1e-6)
    mine, other = mixed.evaluate(), full.evaluate()
    # With the function, eval_loss is the loss itself.
    assert mine["eval_emo_loss"] == pytest.approx(other["eval_loss"], abs=1e-3)
    assert {"eval_ce", "eval_objective_value", "eval_mean_token_accuracy"} <= mine.keys()


@pytest.mark.parametrize("config", [{}, {"padding_free": True, "max_length": None},
                                    {"packing": True, "max_length": 32}],
                         ids=["padded", "padding-free", "packed"])  # fmt: skip
@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
@pytest.mark.parametrize("data", [WHOLE, COMPLETIONS], ids=["whole texts", "completions alone"])
def test_its_own_metrics_are_logged_as_without_us(
    data: Dataset, emo: Any, config: dict[str, Any], sft: Any, bank: Bank
):
    # Cross-entropy alone, so that both runs train the same model.
    ours = sft(EMOSFTTrainer, data, config=config, emo=emo(bank, mixing="fixed", weight=0.0))
    theirs = sft(SFTTrainer, data, config=config)
    assert_same(trained(ours), trained(theirs), 2e-4)
    names = ("num_tokens", "entropy", "mean_token_accuracy")
    for one, other in zip(ours.state.log_history, theirs.state.log_history, strict=True):
        assert {name: value for name, value in one.items() if name in names} == pytest.approx(
            {name: value for name, value in other.items() if name in names}, abs=2e-3
        )
    mine, other = ours.evaluate(), theirs.evaluate()
    assert mine.keys() >= other.keys()
    assert mine["eval_num_tokens"] == other["eval_num_tokens"] > 100
    # TRL logs the mean of the batches' means.
    assert mine["eval_entropy"] == pytest.approx(other["eval_entropy"], abs=2e-2)


def test_tokens_are_counted_over_accumulated_batches_and_lines(sft: Any, bank: Bank):
    config = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "logging_steps": 2, "max_steps": 4}
    ours, theirs = sft(EMOSFTTrainer, WHOLE, config=config, emo=bank), sft(SFTTrainer, WHOLE, config=config)
    counts = []
    for trainer in (ours, theirs):
        trainer.train()
        counts.append([line["num_tokens"] for line in trainer.state.log_history if "loss" in line])
    assert counts[0] == counts[1]
    assert len(counts[0]) == 2


def test_entropies_at_another_temperature_are_not_the_models(sft: Any, bank: Bank):
    trainer = sft(EMOSFTTrainer, WHOLE, emo=LinearEMOLoss(bank, temperature=2.0))
    trainer.train()
    assert all("entropy" not in line for line in trainer.state.log_history)
    assert "num_tokens" in trainer.state.log_history[0]


def test_only_completions_are_trained(sft: Any, bank: Bank):
    trainer = sft(EMOSFTTrainer, COMPLETIONS, emo=bank)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == -100).sum() > (batch["attention_mask"] == 0).sum()
    ce = EMOLoss(bank, mixing="fixed", weight=0.0, shift=True)
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    trainer.compute_loss(trainer.model.train(), batch)
    assert trainer._emo_metrics[True].take(trainer.accelerator)["ce"] == pytest.approx(
        ce(logits, batch["labels"]).item(), abs=1e-5
    )


@pytest.mark.parametrize(
    "config",
    [{"packing": True, "max_length": 32}, {"padding_free": True, "max_length": None}],
    ids=["packing", "padding-free"],
)
def test_rows_may_hold_several_texts(config: dict[str, Any], sft: Any, bank: Bank):
    mixed = sft(EMOSFTTrainer, WHOLE, config=config, emo=LinearEMOLoss(bank))
    full = sft(EMOSFTTrainer, WHOLE, config=config, emo=EMOLoss(bank))
    assert_same(trained(mixed), trained(full))


def test_predictions_and_generation_are_the_models_own(sft: Any, bank: Bank):
    trainer = sft(EMOSFTTrainer, WHOLE, emo=bank)
    trainer.train()
    predicted = trainer.predict(trainer.eval_dataset)
    assert predicted.predictions.shape[-1] == 300
    generated = trainer.model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert generated.shape == (1, 6)


def test_another_loss_type_is_refused(sft: Any, bank: Bank):
    with pytest.raises(UsageError, match="loss_type='dft'"):
        sft(EMOSFTTrainer, WHOLE, config={"loss_type": "dft"}, emo=bank)
