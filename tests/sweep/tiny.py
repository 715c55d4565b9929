"""Tiny models of any class of transformers, from its default config with small sizes."""

import inspect
import re
from typing import Any

__all__ = ["VOCAB", "UnbuildableError", "build", "inputs_for", "tiny_config"]

VOCAB = 128
_MOST_PARAMETERS = 30_000_000
_DROP = re.compile(r"drop|jitter")
_TOKEN = re.compile(r"token_(id|index)s?$|^(bos|eos|pad|sep|cls|mask)_.*id$")
# Patterns of names, and the value that replaces a larger integer; the first pattern that matches counts.
_SIZES: list[tuple[str, int]] = [
    (r"vocab_size|num_embeddings$|^padding_size", VOCAB),
    (r"num_experts_per_tok|experts_per_token|top_?k|moe_k$|num_selected", 2),
    (r"n_group$|topk_group|num_expert_group|n_shared_experts|num_shared", 1),
    (r"experts?$|num_moe|moe_num", 4),
    (r"(key_value|kv).*heads|kv_n_heads|num_kv|multi_query_group", 2),
    (r"mamba_d_head|mamba_head_?dim|ssm.*head_dim", 16),
    (r"heads?$|num_heads|attention_heads", 2),
    (r"(head|qk_nope|qk_rope|v_head|kv_channels|d_kv|key_size|head_size)_?dim.*|^kv_channels$|^d_kv$|^head_size$", 8),
    (r"rank$|lora", 8),
    (r"layers?$|num_blocks|depth$|n_layer", 2),
    (r"interm|ffn|d_ff|ff_dim|inner|mlp_dim|n_inner|dense_.*dim", 32),
    (r"position|max_seq|seq_len|max_.*length|context_length|^n_ctx|attention_window|sliding_window$", 64),
    (r"conv_kernel|d_conv|conv_dim_kernel", 4),
    (r"state_size|d_state|ssm_state|n_groups|chunk_size", 8),
    (r"hidden|d_model|n_embd|_dim$|^dim$|embed|width$|channels$|size_per_head", 16),
]
_LEFT = re.compile(
    r"act|init|eps|factor|theta|std|image_size|patch|kernel|stride|norm|bias|coef|channels|in_chan|group_norm"
)


class UnbuildableError(Exception):
    """A class cannot be built tiny, or the tiny model cannot be called with text; the message says why."""


def tiny_config(kind: type, changes: dict[str, Any] | None = None) -> Any:
    """A config of a class with every size made small.

    Args:
        kind: class of the config.
        changes: values that replace the computed ones; a dictionary for a part of the config.
    """
    changes = changes or {}
    plain = kind()
    known = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {}
    tokens = iter(range(3, 64))
    for name, parameter in known.items():
        if name in changes and not isinstance(changes[name], dict):
            continue
        try:
            value = getattr(plain, name, None)
        except Exception:  # an attribute that may differ between layers
            value = parameter.default
        if isinstance(value, dict) and "mrope_section" in value:
            given[name] = {**value, "mrope_section": [2, 1, 1]}
        elif hasattr(value, "to_dict") and hasattr(type(value), "model_type"):
            given[name] = tiny_config(type(value), changes.get(name)).to_dict()
        elif parameter.default is not None or _is_layers(name, value):
            small = _small(name, value, tokens)
            if small is not value:
                given[name] = small
    given |= {name: value for name, value in changes.items() if name not in given or not isinstance(value, dict)}
    return kind(**given)


def _small(name: str, value: Any, tokens: Any) -> Any:
    if _is_layers(name, value):
        other = next((kind for kind in value if kind != value[0]), value[0])
        return [value[0], other]
    if isinstance(value, bool) or value is None:
        return value
    if _TOKEN.search(name):
        fixed = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        return (fixed[name] if name in fixed else next(tokens)) if isinstance(value, int) and value >= 0 else value
    if isinstance(value, float) and _DROP.search(name):
        return 0.0
    if isinstance(value, dict) and "rope" not in name:
        return {key: _small(key, inner, tokens) for key, inner in value.items()}
    if isinstance(value, int) and not _LEFT.search(name):
        for pattern, size in _SIZES:
            if re.search(pattern, name):
                return min(value, size) if value > 0 else value
    return value


def _is_layers(name: str, value: Any) -> bool:
    """Whether a value names the kind of each layer."""
    return isinstance(value, list | tuple) and len(value) > 2 and isinstance(value[0], str) and "layer" in name


def build(kind: type, changes: dict[str, Any] | None = None) -> Any:
    """A tiny model of a class, in float32 and in training, without dropout.

    Raises:
        UnbuildableError: its config or its constructor does not take the small sizes, or it stays large.
    """
    import torch

    try:
        config = tiny_config(kind.config_class, changes)
        if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = 1
        if getattr(config, "pad_token_id", 0) is None:
            config.pad_token_id = 0
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in kind(config).parameters())
    except Exception as error:
        raise UnbuildableError(f"{type(error).__name__}: {' '.join(str(error).split())[:110]}") from error
    if size > _MOST_PARAMETERS:
        raise UnbuildableError(f"{size / 1e6:,.0f} M parameters")
    for part in (config, *(getattr(config, name) for name in getattr(config, "sub_configs", {}))):
        if part is not None:
            part.use_cache = False
    torch.manual_seed(1)
    model = kind(config).float().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def inputs_for(model: Any, width: int) -> dict[str, Any]:
    """Two rows of token ids that have no special meaning in any config, and audio for models whose main input it is."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(width // 2 + 1, width, (2, 9), generator=generator)
    main = model.main_input_name
    if main == "input_features":
        config = model.config
        frames = 2 * getattr(config, "max_source_positions", 32)
        shape = (2, getattr(config, "num_mel_bins", 80), frames)
        if hasattr(config, "input_feat_per_channel"):
            shape = (2, 32, config.input_feat_per_channel * config.input_channels)
        return {"input_features": torch.randn(shape, generator=generator)}
    if main == "input_values":
        return {"input_values": torch.randn((2, 2000), generator=generator)}
    if main != "input_ids":
        raise UnbuildableError(f"its main input is {main}")
    return {"input_ids": ids}
