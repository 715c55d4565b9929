"""Hugging Face's Trainer in two ways: with a loss function, and with a mixin that avoids full logits.

python examples/huggingface_trainer.py
"""

import tempfile

import tiny
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss, Schedule
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func


class EMOTrainer(EMOTrainerMixin, Trainer):
    """A Trainer that takes `emo=`."""


def model() -> GPT2LMHeadModel:
    set_seed(0)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=bank.size, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
    ))  # fmt: skip


bank = tiny.bank()
labels = tiny.batch(512)
texts = [{"input_ids": row.clamp_min(0), "attention_mask": (row >= 0).long(), "labels": row} for row in labels]
arguments = TrainingArguments(
    tempfile.mkdtemp(), max_steps=30, per_device_train_batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-2,
    logging_steps=10, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
)  # fmt: skip

# The share of the labels that goes to similar tokens falls to 0 with the step, which the function gets as a callback.
options = EMOOptions.preset("recommended", weight=Schedule(0.2, 0.0, steps=30))

print("compute_loss_func:")
function = compute_loss_func(EMOLoss(bank, options))
Trainer(model(), arguments, train_dataset=texts, compute_loss_func=function, callbacks=[function]).train()

print("EMOTrainerMixin:")
trainer = EMOTrainer(model(), arguments, train_dataset=texts, eval_dataset=texts[:64], emo=LinearEMOLoss(bank, options))
trainer.train()
trainer.evaluate()
