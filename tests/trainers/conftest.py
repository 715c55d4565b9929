"""Tiny models from configs, with their own bank and texts; nothing is downloaded."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

import costbank
from costbank.bank import Bank
from costbank.config import SpellingConfig, build_config
from tests.warm import WarmPython

os.environ["HF_HUB_OFFLINE"] = "1"

VOCAB = 300
TEXTS = [f"the {who} sees {what} by the {where}" for who in ("cat", "dog", "owl", "fox")
         for what in ("a fish", "the moon", "a tree") for where in ("river", "house")]  # fmt: skip

SMALL = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """Runs programs that use trainers. Importing these takes 5 to 11 CPU seconds, more than the programs themselves."""
    python = WarmPython(
        "costbank.trainers.huggingface", "costbank.trainers.lightning", "lightning", "peft", "trl.trainer.sft_trainer",
        "transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama",
    )  # fmt: skip
    yield python
    python.close()


def make_tokenizer(merges_of: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(merges_of, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<pad>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))  # fmt: skip
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(TEXTS)


def _bank(folder: Path, tokenizer: PreTrainedTokenizerFast, dim: int) -> Bank:
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return costbank.build(build_config(
        source="spelling", tokenizer=folder / "tokenizer.json", name="tiny", store=folder / "store",
        spelling=SpellingConfig(dim=dim),
    ))  # fmt: skip


@pytest.fixture(scope="session")
def bank(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return _bank(tmp_path_factory.mktemp("bank"), tokenizer, 24)


@pytest.fixture(scope="session")
def other_bank(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return _bank(tmp_path_factory.mktemp("other"), tokenizer, 12)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1,
        pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ))  # fmt: skip


def llama() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False))


def gemma2() -> Gemma2ForCausalLM:
    """A model whose softcap is low enough to change the loss visibly."""
    torch.manual_seed(1)
    return Gemma2ForCausalLM(Gemma2Config(
        **SMALL, head_dim=8, final_logit_softcapping=0.5, initializer_range=0.3, attn_implementation="eager"
    ))  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {"gpt2, tied": gpt2, "llama, untied": llama, "gemma2, softcap": gemma2}


class Texts(torch.utils.data.Dataset):
    """Token ids of texts, padded; the number of ignored labels varies from row to row."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int = 24) -> None:
        encoded = tokenizer([f"{text}<end>" for text in TEXTS[:size]], padding=True, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]
        self.labels = self.ids.masked_fill(self.mask == 0, -100)
        for row in range(len(self.labels)):
            # With GPT-2, the Trainer also counts first labels, which no position predicts.
            self.labels[row, : 1 + row % 7] = -100

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


@pytest.fixture
def texts(tokenizer: PreTrainedTokenizerFast) -> Texts:
    return Texts(tokenizer)


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., TrainingArguments]:
    """Arguments for three steps of plain gradient descent, where any difference in the gradients' size is visible."""

    def make(kind: type[TrainingArguments] = TrainingArguments, **changes: Any) -> TrainingArguments:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"), "max_steps": 3, "per_device_train_batch_size": 8, "optim": "sgd",
            "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "logging_steps": 1,
            "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 5,
            "dataloader_pin_memory": False, "bf16": False,
        }  # fmt: skip
        return kind(**{**settings, **changes})

    return make
