"""A `metric_for_best_model` that names a part of the loss, and the Trainer's warning about it before training."""

import logging
from typing import Any

import pytest
import transformers as tf

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin
from tests.trainers.conftest import SMALL, VOCAB, llama

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class EMOTrainer(EMOTrainerMixin, tf.Trainer):
    pass


class EMOSeq2SeqTrainer(EMOTrainerMixin, tf.Seq2SeqTrainer):
    pass


@pytest.mark.parametrize(
    ("metric", "greater", "warned"),
    [("ce", None, True), ("eval_ce", None, True), ("objective_value", None, True),
     ("eval_dev_ce", None, True),
     ("eval_emo_loss", True, True), ("eval_emo_loss", None, False), ("eval_ce", False, False),
     ("eval_mean_token_accuracy", None, False), ("eval_rouge", None, False), ("eval_loss", None, False)],
)  # fmt: skip
def test_a_metric_of_ours_that_would_keep_the_worst_checkpoint_is_named(
    bank: Bank, arguments: Any, caplog: Any, metric: str, greater: bool | None, warned: bool
):
    args = arguments(metric_for_best_model=metric, greater_is_better=greater)
    with caplog.at_level(logging.WARNING, "costbank"):
        EMOTrainer(llama(), args, emo=bank)
    assert (f"metric_for_best_model='{metric}' is better when smaller" in caplog.text) == warned


def test_a_metric_of_another_objective_is_refused(bank: Bank, arguments: Any):
    with pytest.raises(UsageError, match="'eval_emd', which this loss does not log") as caught:
        EMOTrainer(llama(), arguments(metric_for_best_model="eval_emd"), emo=bank)
    assert "eval_objective_value" in caught.value.hint
    published = LinearEMOLoss(bank, preset="published")
    with pytest.raises(UsageError, match="'eval_objective_value', which") as caught:
        EMOTrainer(llama(), arguments(metric_for_best_model="eval_objective_value"), emo=published)
    assert "eval_emd" in caught.value.hint
    EMOTrainer(llama(), arguments(metric_for_best_model="eval_emd"), emo=published)


@pytest.mark.parametrize(("generate", "warned"), [(True, True), (False, False)])
def test_evaluations_that_generate_have_no_parts_and_a_trainer_says_so(
    bank: Bank, tmp_path: Any, caplog: Any, generate: bool, warned: bool
):
    model = tf.T5ForConditionalGeneration(tf.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
    ))  # fmt: skip
    data = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [8, 9, 1]}] * 2
    args = tf.Seq2SeqTrainingArguments(
        str(tmp_path), predict_with_generate=generate, metric_for_best_model="eval_emo_loss", report_to=[],
        use_cpu=True, disable_tqdm=True, generation_max_length=4, dataloader_pin_memory=False,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "costbank"):
        trainer: Any = EMOSeq2SeqTrainer(model, args, eval_dataset=data, compute_metrics=lambda _: {}, emo=bank)
    assert ("do not compute this loss or its parts" in caplog.text) == warned
    assert ("eval_emo_loss" in trainer.evaluate()) != warned


def test_auxiliary_losses_of_accumulated_batches_are_averaged(bank: Bank, arguments: Any):
    def logged(batch: int, accumulated: int) -> float:
        tf.set_seed(1)
        model = tf.MixtralForCausalLM(tf.MixtralConfig(
            **SMALL, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.5,
        ))  # fmt: skip
        data = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 4
        args = arguments(
            max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated, logging_steps=1
        )
        trainer = EMOTrainer(model, args, train_dataset=data, emo=bank)
        trainer.train()
        return next(line["loss"] for line in trainer.state.log_history if "loss" in line)

    # All rows are equal, so the auxiliary loss of four batches is that of one batch of all rows.
    assert logged(1, 4) == pytest.approx(logged(4, 1), rel=1e-4)
