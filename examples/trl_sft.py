"""TRL's SFTTrainer with the mixin: trains only completions, and checks the tokenizer against the bank.

python examples/trl_sft.py
"""

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tiny
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from costbank.trainers.huggingface import EMOTrainerMixin


class EMOSFTTrainer(EMOTrainerMixin, SFTTrainer):
    """An SFTTrainer that takes `emo=`."""


torch.manual_seed(0)
bank = tiny.bank()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer(), pad_token="<pad>", eos_token="<end>")
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=bank.size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=1,
))  # fmt: skip
pairs = [text.split(" ", 2) for text in tiny.TEXTS]
data = Dataset.from_dict({
    "prompt": [f"{the} {who}" for the, who, _ in pairs],
    "completion": [f" {rest}" for _, _, rest in pairs],
})  # fmt: skip
arguments = SFTConfig(
    tempfile.mkdtemp(), max_steps=30, per_device_train_batch_size=16, learning_rate=1e-2, logging_steps=10,
    save_strategy="no", report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, dataloader_pin_memory=False,
    activation_checkpointing=False, max_length=64,
)  # fmt: skip
EMOSFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, emo=bank).train()
