"""The mixin on a CUDA device in bfloat16: the loss is checked against the model's own, and evaluations need little
memory.

Skipped, with a reason, without such a device.
"""

from typing import Any

import pytest
import torch
import transformers as tf

from costbank.loss import DenseCosts, EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
VOCAB, LENGTH, DIM = 32_000, 512, 256
SIZES = {"vocab_size": VOCAB, "hidden_size": DIM, "intermediate_size": 512, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": LENGTH,
         "pad_token_id": 0}  # fmt: skip
MODELS = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES)),
    "gemma 2, softcap": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(**SIZES, head_dim=64, final_logit_softcapping=30.0)
    ),
    "granite, scale": lambda: tf.GraniteForCausalLM(tf.GraniteConfig(**SIZES, logits_scaling=8.0)),
    "cohere, scale, head of zeros": lambda: zero_head(
        tf.CohereForCausalLM(tf.CohereConfig(**SIZES, logit_scale=0.0625, tie_word_embeddings=False))
    ),
}


class EMOTrainer(EMOTrainerMixin, tf.Trainer):
    pass


def zero_head(model: Any) -> Any:
    torch.nn.init.zeros_(model.lm_head.weight)
    return model


def costs() -> DenseCosts:
    generator = torch.Generator().manual_seed(3)
    return DenseCosts(torch.nn.functional.normalize(torch.randn(VOCAB, 64, generator=generator), dim=1))


def rows(count: int) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(1, VOCAB, (count, LENGTH), generator=torch.Generator().manual_seed(4))
    labels = ids.clone()
    for row, kept in enumerate(labels):
        kept[: 1 + 37 * (row % 5)] = -100
    return [{"input_ids": a, "labels": b} for a, b in zip(ids, labels, strict=True)]


def trainer(model: Any, loss: Any, folder: Any, **changes: Any) -> EMOTrainer:
    data = rows(64)
    arguments = tf.TrainingArguments(
        output_dir=str(folder), max_steps=12, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        per_device_eval_batch_size=64, learning_rate=1e-3, logging_steps=1, bf16=True, save_strategy="no", report_to=[],
        disable_tqdm=True, seed=5, **changes,
    )  # fmt: skip
    return EMOTrainer(model, arguments, train_dataset=data, eval_dataset=data, emo=loss)


@pytest.mark.parametrize("name", MODELS)
def test_the_linear_form_trains_as_the_models_own_logits(name: str, tmp_path: Any):
    logged = {}
    for form in (LinearEMOLoss, EMOLoss):
        torch.manual_seed(1)
        emo_trainer = trainer(MODELS[name](), form(costs()), tmp_path / form.__name__)
        emo_trainer.train()
        logged[form] = [line for line in emo_trainer.state.log_history if "loss" in line]
    linear, full = logged[LinearEMOLoss], logged[EMOLoss]
    assert len(linear) == len(full) == 12
    for ours, own in zip(linear, full, strict=True):
        assert ours["loss"] == pytest.approx(own["loss"], rel=5e-3)
        assert ours["ce"] == pytest.approx(own["ce"], rel=5e-3)
        assert ours["emd"] == pytest.approx(own["emd"], rel=2e-2)
    # The models learned something, so the comparison covers more than their initial state.
    assert linear[-1]["ce"] < linear[0]["ce"]


def test_evaluation_for_the_loss_alone_takes_a_part_of_the_memory_of_all_logits(tmp_path: Any):
    logits = 64 * LENGTH * VOCAB * 4
    grown, value = {}, {}
    for form in (LinearEMOLoss, EMOLoss):
        torch.manual_seed(1)
        emo_trainer = trainer(MODELS["llama"](), form(costs()), tmp_path / form.__name__)
        emo_trainer.evaluate()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value[form] = emo_trainer.evaluate()["eval_loss"]
        grown[form] = (torch.cuda.max_memory_allocated() - before) / logits
    assert value[LinearEMOLoss] == pytest.approx(value[EMOLoss], rel=1e-3)
    assert grown[EMOLoss] > 0.5
    # Three buffers, each for a block of 2,048 of the 32,768 tokens.
    assert grown[LinearEMOLoss] < 0.3, grown


@pytest.mark.parametrize("form", [LinearEMOLoss, EMOLoss])
def test_a_step_under_autocast_has_gradients_as_in_float32(form: Any, tmp_path: Any):
    gradients = {}
    batch = {name: torch.stack([row[name] for row in rows(4)]).cuda() for name in ("input_ids", "labels")}
    for bf16 in (True, False):
        torch.manual_seed(1)
        emo_trainer = trainer(MODELS["llama"](), form(costs()), tmp_path / str(bf16))
        with emo_trainer.compute_loss_context_manager() if bf16 else torch.autocast("cuda", enabled=False):
            loss = emo_trainer.compute_loss(emo_trainer.model.cuda().train(), batch)
        loss.backward()
        gradients[bf16] = emo_trainer.model.lm_head.weight.grad.double()
    off = (gradients[True] - gradients[False]).norm() / gradients[False].norm()
    assert off < 5e-2, off
