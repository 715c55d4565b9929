"""Heads of models as transformers saves them: the rows are those that its own output layer multiplies with."""

from pathlib import Path

import pytest
import torch
import transformers

import costbank
from costbank.config import LMHeadConfig, build_config

VOCAB = 300
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 48, "max_position_embeddings": 16}  # fmt: skip
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}

MODELS = {
    "Llama": ("LlamaForCausalLM", SMALL | {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "Llama, tied": ("LlamaForCausalLM", SMALL | {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "Qwen 2": ("Qwen2ForCausalLM", SMALL | {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "GPT-2": ("GPT2LMHeadModel", GPT2),
    "GPT-NeoX": ("GPTNeoXForCausalLM", SMALL),
    "OPT": ("OPTForCausalLM", SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "BERT": ("BertForMaskedLM", SMALL),
    "a sentence encoder": ("BertModel", SMALL),
    "Gemma 2": ("Gemma2ForCausalLM", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
    "RWKV": ("RwkvForCausalLM", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}),
    "RoBERTa": ("RobertaForMaskedLM", SMALL),
    "DistilBERT": ("DistilBertForMaskedLM", {"vocab_size": VOCAB, "dim": 32, "n_layers": 1, "n_heads": 2,
                                             "hidden_dim": 48, "max_position_embeddings": 16}),
    "ModernBERT, untied": ("ModernBertForMaskedLM", SMALL | {"tie_word_embeddings": False, "pad_token_id": 0}),
    "BART": ("BartForConditionalGeneration", {"vocab_size": VOCAB, "d_model": 32, "encoder_layers": 1,
                                              "decoder_layers": 1, "encoder_attention_heads": 2, "pad_token_id": 1,
                                              "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
                                              "decoder_ffn_dim": 48, "max_position_embeddings": 16}),
    "XLNet": ("XLNetLMHeadModel", {"vocab_size": VOCAB, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48}),
    "CTRL": ("CTRLLMHeadModel", GPT2 | {"dff": 48}),
    "Mamba": ("MambaForCausalLM", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 1}),
    "T5, untied": ("T5ForConditionalGeneration", {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48,
                                                  "num_layers": 1, "num_heads": 2, "tie_word_embeddings": False}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shard_size"),
    [*((name, "5GB") for name in MODELS), *((name, "20KB") for name in ("Llama", "Llama, tied", "BERT", "T5, untied"))],
)
def test_the_rows_are_those_of_the_output_layer(tmp_path: Path, name: str, shard_size: str):
    class_name, settings = MODELS[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**settings)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size=shard_size)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(f"token{i}" for i in range(VOCAB)) + "\n")
    bank = costbank.build(
        build_config(source="lm-head", store=tmp_path, name="m", lm_head=LMHeadConfig(model=tmp_path / "model"))
    )
    layer = model.get_output_embeddings() or model.get_input_embeddings()
    expected = torch.nn.functional.normalize(layer.weight.detach().double(), dim=1).float()
    assert torch.equal(torch.from_numpy(bank.vectors().copy()), expected)
