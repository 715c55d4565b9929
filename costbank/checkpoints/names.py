"""Names of heads and embeddings, and of the parameters of quantized and adapted modules."""

from collections.abc import Sequence

__all__ = [
    "AMBIGUOUS_HEADS",
    "AUXILIARY_PARTS",
    "EMBEDDINGS",
    "HEADS",
    "ends_in",
    "in_numbered_layer",
    "name_parts",
    "storage_scheme",
]

HEADS = (
    "lm_head",  # most decoders
    "embed_out",  # GPT-NeoX
    "transformer.output_layer",  # ChatGLM
    "cls.predictions.decoder",  # BERT
    "predictions.decoder",  # ALBERT
    "lm_head.decoder",  # RoBERTa
    "model.transformer.ff_out",  # OLMo
    "language_model.lm_head",  # vision models
    "lm_predictions.lm_head",  # DeBERTa
    "vocab_projector",  # DistilBERT
    "generator_lm_head",  # ELECTRA
    "pred_layer.proj",  # XLM
    "lm_loss",  # XLNet
    "lm_head.out_proj",  # T5Gemma
    "mlm_score.decoder",  # ViLT
)
"""Modules with these names are heads, anywhere outside numbered layers."""

AMBIGUOUS_HEADS = (
    "output", "decoder", "head", "proj_out", "output_projection", "output_layer", "ff_out", "logits", "unembedding",
    "unembed",
)  # fmt: skip
"""Modules with these names are heads in some models only: the number of rows decides."""

EMBEDDINGS = (
    "model.embed_tokens",
    "transformer.wte",  # GPT-2
    "wte",
    "gpt_neox.embed_in",
    "transformer.word_embeddings",
    "word_embeddings",  # BLOOM
    "transformer.embedding.word_embeddings",  # ChatGLM
    "model.tok_embeddings",  # InternLM2
    "tok_embeddings",  # Llama as Meta saves it
    "model.transformer.wte",  # OLMo
    "model.decoder.embed_tokens",  # OPT
    "embeddings.word_embeddings",  # BERT and sentence encoders
    "embeddings.tok_embeddings",  # ModernBERT
    "backbone.embeddings",  # Mamba
    "embed_tokens",
    "shared",  # T5
    "token_embd",  # GGUF
    "embed_tokens.word_embeddings",
    "embed_in",  # GPT-NeoX's relatives
    "embeddings",  # RWKV, NemotronH
    "tokens_embed",  # GPT
    "word_embedding",  # XLNet
    "transformer.w",  # CTRL
    "input_embedding",  # CPM-Ant
)

AUXILIARY_PARTS = (
    "talker", "mtp", "nextn", "draft", "eagle", "medusa", "qformer", "code_predictor", "depth_decoder", "codec",
    "token2wav", "vision", "visual", "image", "audio", "speech", "vq", "tts",
)  # fmt: skip
"""Words in the names of parts that are not the text model itself: for other modalities, or for drafting tokens."""

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
_ADAPTERS = ("base_layer", "modules_to_save", "original_module", "token_adapter")
_ADAPTER_PREFIXES = (
    "lora_", "adamss_", "beft_", "boft_", "c3a_", "deft_", "delora_", "fourierft_", "frod_", "glora_", "gralora_",
    "hira_", "hra_", "ia3_", "lily_", "hada_", "lokr_", "miss_", "oft_", "shira_", "osf_", "peanut_", "psoft_",
    "pvera_", "randlora_", "road_", "tinylora_", "trainable_tokens_", "unilora_", "vblora_", "vera_", "waveft_",
)  # fmt: skip
_SCHEMES = (
    ("AQLM", ("codebooks", "codes")),
    ("VPTQ", ("centroids", "res_centroids", "indices")),
    ("EXL3", ("trellis", "suh", "svh", "mcg", "mul1")),
    ("EXL2", ("q_weight", "q_invperm", "q_scale", "q_scale_max", "q_groups")),
    ("QuIP#", ("Qidxs", "SU", "SV", "codebook_id")),
    ("HQQ", ("W_q", "meta")),
    ("compressed-tensors", ("weight_packed", "weight_zero_point", "weight_shape", "weight_g_idx")),
    ("GPTQ or AutoRound", ("g_idx",)),
    ("GPTQ or AWQ", ("qweight", "qzeros")),
    ("HIGGS", ("tables", "tables2")),
    ("Marlin", ("B", "s")),
    ("bitsandbytes", ("SCB", "weight_format", "absmax", "quant_map", "quant_state")),
    ("quanto", ("_data", "_scale", "_shift")),
    ("torchao", ("_weight_qdata", "_weight_scale", "_weight_zero_point", "qdata")),
    ("SINQ", ("scale2", "W_q_sinq")),
    ("MXFP4", ("weight_blocks", "weight_scales", "_blocks", "_scales")),
    ("NVFP4", ("weight_scale_2", "weight_global_scale")),
    ("MLX", ("scales", "biases")),
    ("FP8 with scales", ("weight_scale_inv", "weight_scale")),
    ("a weight norm", ("weight_g", "weight_v", "parametrizations")),
)


def name_parts(name: str) -> list[str]:
    """The parts of a tensor's name, without the wrappers that compilers, sharding and adapters add."""
    parts = name.split(".")
    if parts[:2] == ["base_model", "model"]:
        parts = parts[2:]
    return [part for part in parts if part not in _WRAPPERS]


def ends_in(path: Sequence[str], known: str) -> bool:
    """Whether a module's path ends in a known name."""
    known_parts = known.split(".")
    return list(path[-len(known_parts) :]) == known_parts


def in_numbered_layer(path: Sequence[str]) -> bool:
    """Whether a number follows a name, as in `model.layers.3.…`. A leading number, as in `0.…`, is a pipeline stage."""
    return any(part.isdecimal() for part in path[1:])


def storage_scheme(parameter: Sequence[str]) -> str:
    """The scheme that a parameter belongs to, such as GPTQ or an adapter, by its path below its module.

    Empty for a plain parameter.
    """
    first, last = parameter[0], parameter[-1]
    if any(part in _ADAPTERS or part.startswith(_ADAPTER_PREFIXES) for part in parameter):
        return "an adapter"
    words = {first, *parameter[1:]} if first == "weight" or len(parameter) == 1 else {first}
    if last.startswith("quant_state"):
        return "bitsandbytes"
    return next((scheme for scheme, names in _SCHEMES if words & set(names)), "")
