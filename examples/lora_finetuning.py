"""LoRA with the mixin: adapters on all linear layers except the head, which stays frozen and gets no gradient.

python examples/lora_finetuning.py
"""

import tempfile

import tiny
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from costbank.trainers.huggingface import EMOTrainerMixin


class EMOTrainer(EMOTrainerMixin, Trainer):
    """A Trainer that takes `emo=`."""


torch.manual_seed(0)
bank = tiny.bank()
base = LlamaForCausalLM(LlamaConfig(
    vocab_size=bank.size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=1,
))  # fmt: skip
# modules_to_save=["lm_head"] would train the whole head. An adapter on the head is refused.
model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules="all-linear", r=8))
model.print_trainable_parameters()
labels = tiny.batch(512)
texts = [{"input_ids": row.clamp_min(0), "attention_mask": (row >= 0).long(), "labels": row} for row in labels]
arguments = TrainingArguments(
    tempfile.mkdtemp(), max_steps=30, per_device_train_batch_size=16, learning_rate=2e-2, logging_steps=10,
    save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
)  # fmt: skip
EMOTrainer(model, arguments, train_dataset=texts, emo=bank).train()

merged = model.merge_and_unload()
print(f"merged the adapters into a {type(merged).__name__}")
