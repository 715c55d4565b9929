"""Extra settings and inputs that some classes of transformers need as tiny models, by class name."""

from typing import Any

__all__ = ["FAMILIES", "MORE_CLASSES"]

MORE_CLASSES = ("BertGenerationDecoder", "MarianMTModel")
"""Language models whose names have other endings."""

_MAMBA = {"mamba_n_heads": 2, "mamba_d_head": 16, "mamba_expand": 2}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}

_MROPE = {"config": {"text_config": {"rope_parameters": {**_ROPE["rope_parameters"], "mrope_section": [2, 1, 1]}}}}
# These factors are 1 by default, which no test would notice.
_GRANITE = {"logits_scaling": 13.0}
_COMPASS = {
    "logit_scale": 0.1,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), _ROPE["rope_parameters"]),
}
_QWEN4 = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
          "indexer_compress_ratio": 4, "ple_embed_dim": 8, "split_ngram_parts": 1}  # fmt: skip
_GROUPS = {"config": {"n_group": 2, "topk_group": 1}}

FAMILIES: dict[str, dict[str, Any]] = {
    "AXK1ForCausalLM": _GROUPS,
    "BailingHybridForCausalLM": _GROUPS,
    "BambaForCausalLM": {"config": {**_MAMBA, "attn_layer_indices": [1]}},
    "BeamForCausalLM": _GROUPS,
    "BltForCausalLM": {"config": {"encoder_hash_byte_group_vocab": 64}},
    "CodeGenForCausalLM": {"config": {"n_head": 4, "n_embd": 32, "rotary_dim": 4}},
    "DeepseekV32ForCausalLM": {"config": {"n_group": 2, "topk_group": 1, "index_topk": 4}},
    "CohereCompassForCausalLM": {"config": _COMPASS},
    "CohereCompassForConditionalGeneration": {"config": {"text_config": _COMPASS}},
    "DbrxForCausalLM": {"config": {"ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 2, "moe_top_k": 1},
                                   "attn_config": {"kv_n_heads": 1, "clip_qkv": 8.0, "rope_theta": 1e4}}},
    "DeepseekV2ForCausalLM": {"config": {"num_experts_per_tok": 2}},
    "Dots1ForCausalLM": {"config": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
                                    "n_group": 1, "topk_group": 1}},
    "EsmForMaskedLM": {"config": {"vocab_size": 128, "pad_token_id": 0, "mask_token_id": 3}},
    "FalconH1ForCausalLM": {"config": {"lm_head_multiplier": 0.3}},
    "FSMTForConditionalGeneration": {"decoder_inputs": True},
    "GPTJForCausalLM": {"config": {"rotary_dim": 4}},
    "GPTNeoForCausalLM": {"config": {"attention_types": [[["global", "local"], 1]]}},
    "Gemma3nForCausalLM": {"config": {"num_kv_shared_layers": 0}},
    "Glm46VForConditionalGeneration": _MROPE,
    "Glm4vForConditionalGeneration": _MROPE,
    "Glm4vMoeForConditionalGeneration": {"config": {"text_config": {"rope_parameters": {
        **_ROPE["rope_parameters"], "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}}}},
    "GlmImageForConditionalGeneration": _MROPE,
    "GlmOcrForConditionalGeneration": _MROPE,
    "GraniteForCausalLM": {"config": _GRANITE},
    "GraniteMoeForCausalLM": {"config": {**_GRANITE, "output_router_logits": True}},
    "GraniteMoeHybridForCausalLM": {"config": {**_GRANITE, **_MAMBA, "layer_types": ["mamba", "attention"]}},
    "HunYuanDenseV1ForCausalLM": {"config": {"head_dim": 8}},
    "HunYuanMoEV1ForCausalLM": {"config": {"head_dim": 8}},
    "HunYuanVLForConditionalGeneration": {"config": {"text_config": {"head_dim": 8}}},
    "JambaForCausalLM": {"config": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1,
                                    "expert_layer_period": 2, "mamba_dt_rank": 4}},
    "Lfm2MoeForCausalLM": {"config": {"layer_types": ["conv", "full_attention"]}},
    "Mamba2ForCausalLM": {"config": {"num_heads": 4, "head_dim": 8, "expand": 2, "n_groups": 1}},
    "MinistralForCausalLM": {"config": {"head_dim": 8}},
    "MobileBertForMaskedLM": {"config": {"embedding_size": 8, "intermediate_size": 48}},
    "NemotronForCausalLM": {"config": {"num_key_value_heads": 2}},
    "NemotronHForCausalLM": {"config": {"n_groups": 1, "mamba_num_heads": 2, "mamba_head_dim": 16}},
    "PaddleOCRVLForConditionalGeneration": _MROPE,
    "Qwen2VLForConditionalGeneration": _MROPE,
    "Qwen2_5_VLForConditionalGeneration": _MROPE,
    "Qwen2_5OmniThinkerForConditionalGeneration": _MROPE,
    "Qwen3MoeForCausalLM": {"config": {"output_router_logits": True, "router_aux_loss_coef": 0.3}},
    "Qwen4ExpForCausalLM": {"config": _QWEN4},
    "Qwen4ExpForConditionalGeneration": {"config": {"text_config": _QWEN4}},
    "ReformerForMaskedLM": {"config": {"axial_pos_embds": False, "is_decoder": False, "hash_seed": 1}},
    "ReformerModelWithLMHead": {"config": {"axial_pos_embds": False, "is_decoder": True, "hash_seed": 1}},
    "ZambaForCausalLM": {"config": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2}},
    "XmodForCausalLM": {"config": {"default_language": "en_XX"}},
    "XmodForMaskedLM": {"config": {"default_language": "en_XX"}},
}  # fmt: skip
"""For each class: `config`, changes of its config; `inputs`, additional inputs; and `decoder_inputs`, whether its
decoder's inputs are made as a data collator makes them."""
