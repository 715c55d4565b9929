"""Which tensor is chosen as the head: models with parts, quantized or with adapters, and ambiguous names."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import costbank
from costbank.checkpoints import HeadChoice, choose_head, open_checkpoint
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import CheckpointError
from costbank.progress import QuietProgress
from tests.sweep.heads import look

TOKENS, DIM = 60, 16
EMBEDDING = "model.embed_tokens.weight"


def _rows(seed: int = 0, rows: int = TOKENS, dim: int = DIM) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def _ints(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


def _folder(folder: Path, tensors: dict[str, torch.Tensor], file: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
    return folder


def _head(folder: Path, tokens: int | None = TOKENS, name: str | None = None) -> HeadChoice:
    return choose_head(open_checkpoint(folder), name, tokens)


BYTE, SHORT = torch.uint8, torch.float16
QUANTIZED = {
    "GPTQ": {"qweight": _ints(2, 60), "qzeros": _ints(2, 60), "scales": _rows(1, 1, 60), "g_idx": _ints(16)},
    "AWQ": {"qweight": _ints(16, 8), "qzeros": _ints(1, 8), "scales": _rows(1, 1, 60)},
    "compressed-tensors": {"weight_packed": _ints(2, 60), "weight_scale": _rows(1, 1, 60), "weight_shape": _ints(2)},
    "compressed-tensors NVFP4": {"weight_packed": _ints(60, 8, dtype=BYTE), "weight_global_scale": _rows(1, 1, 1)[0]},
    "EXL2": {"q_weight": _ints(8, 60), "q_invperm": _ints(16), "q_scale": _ints(1, 8), "q_groups": _ints(2)},
    "EXL3": {"trellis": _ints(1, 4, 64), "suh": _rows(1, 1, 16)[0], "svh": _rows(1, 1, 60)[0]},
    "HQQ": {"W_q": _ints(30, 16, dtype=BYTE), "scale": _rows(1, 60, 1), "zero": _rows(1, 60, 1)},
    "bitsandbytes, 4 bits": {"weight": _ints(480, 1, dtype=BYTE), "weight.absmax": _ints(15, dtype=BYTE),
                             "weight.quant_map": _rows(1, 1, 16)[0],
                             "weight.quant_state.bitsandbytes__nf4": _ints(90, dtype=BYTE)},
    "bitsandbytes, 8 bits": {"weight": _ints(60, 16, dtype=torch.int8), "SCB": _rows(1, 1, 60)[0]},
    "quanto": {"weight._data": _ints(60, 16, dtype=torch.int8), "weight._scale": _rows(1, 60, 1)},
    "torchao": {"_weight_qdata": _ints(60, 16, dtype=torch.int8), "_weight_scale": _rows(1, 60, 1)},
    "AQLM": {"codes": _ints(60, 2, 1), "codebooks": _rows(1, 4, 8), "scales": _rows(1, 60, 1)},
    "VPTQ": {"centroids.weight": _rows(1, 1, 64), "indices": _ints(1, 60)},
    "QuIP#": {"Qidxs": _ints(60, 2), "SU": _rows(1, 1, 16)[0], "SV": _rows(1, 1, 60)[0]},
    "Marlin": {"B": _ints(1, 120), "s": _rows(1, 1, 60)},
    "MLX": {"weight": _ints(60, 2).to(torch.uint32), "scales": _rows(1, 60, 1), "biases": _rows(2, 60, 1)},
    "FP8 in blocks": {"weight": _rows().to(torch.float8_e4m3fn), "weight_scale_inv": _rows(1, 2, 2)},
    "an unknown one": {"weight_of_tomorrow": _ints(60, 4, dtype=BYTE)},
    "a weight norm": {"weight_g": _rows(1, 60, 1), "weight_v": _rows(1)},
    "a parametrization": {"parametrizations.weight.original0": _rows(1, 60, 1),
                          "parametrizations.weight.original1": _rows(1)},
}  # fmt: skip


@pytest.mark.parametrize("scheme", QUANTIZED)
@pytest.mark.parametrize("module", ["lm_head", "language_model.lm_head", "embed_out", "cls.predictions.decoder"])
def test_a_head_that_is_not_a_plain_weight_is_an_error_that_names_it(tmp_path: Path, scheme: str, module: str):
    parameters = {f"{module}.{name}": tensor for name, tensor in QUANTIZED[scheme].items()}
    folder = _folder(tmp_path / "m", {EMBEDDING: _rows()} | parameters)
    with pytest.raises(CheckpointError, match="quantized or otherwise encoded") as caught:
        _head(folder)
    assert any(repr(name) in str(caught.value) for name in parameters)
    assert f"--tensor {EMBEDDING} (60 rows)" in caught.value.hint
    assert _head(folder, name=EMBEDDING).role == "named"


@pytest.mark.parametrize("scheme", ["GPTQ", "AWQ", "bitsandbytes, 8 bits"])
def test_a_quantized_head_of_a_common_name_is_not_missed(tmp_path: Path, scheme: str):
    parameters = {f"output.{name}": tensor for name, tensor in QUANTIZED[scheme].items()}
    with pytest.raises(CheckpointError, match="quantized"):
        _head(_folder(tmp_path / "m", {"model.tok_embeddings.weight": _rows()} | parameters))


def test_a_quantized_embedding_without_a_head_is_an_error(tmp_path: Path):
    parameters = {f"model.embed_tokens.{name}": tensor for name, tensor in QUANTIZED["MLX"].items()}
    with pytest.raises(CheckpointError, match=r"the embedding of .* is quantized.*stored as U32 by MLX"):
        _head(_folder(tmp_path / "m", {"model.norm.weight": _rows(1, 1)[0]} | parameters))


def test_quantized_layers_leave_a_plain_head_alone(tmp_path: Path):
    layers = {f"model.layers.0.mlp.up.{name}": tensor for name, tensor in QUANTIZED["GPTQ"].items()}
    assert _head(_folder(tmp_path / "m", layers | {EMBEDDING: _rows(), "lm_head.weight": _rows(1)})).tied is False


def test_scales_in_another_shard_are_seen(tmp_path: Path):
    names = {"lm_head.weight": "a.safetensors", "lm_head.weight_scale_inv": "b.safetensors"}
    save_file({"lm_head.weight": _rows().to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    save_file({"lm_head.weight_scale_inv": _rows(1, 2, 2)}, tmp_path / "b.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"scaled in blocks by 'lm_head\.weight_scale_inv'"):
        _head(tmp_path)


@pytest.mark.parametrize(
    "parameters",
    [
        ["lm_head.lora_A.weight", "lm_head.lora_B.weight"],
        ["lm_head.lora_A.default.weight", "lm_head.lora_B.default.weight", "lm_head.base_layer.weight"],
        ["lm_head.lora_A.weight", "lm_head.lora_B.weight", "lm_head.lora_magnitude_vector"],
        ["lm_head.modules_to_save.default.weight", "lm_head.original_module.weight"],
        ["lm_head.hada_w1_a", "lm_head.hada_w1_b"],
        ["lm_head.lokr_w1", "lm_head.lokr_w2"],
        ["lm_head.ia3_l"],
        ["lm_head.oft_r.weight"],
        ["lm_head.token_adapter.trainable_tokens_delta"],
        ["lm_head.weight", "lm_head.lora_A.weight", "lm_head.lora_B.weight"],
    ],
    ids=lambda parameters: parameters[0],
)
def test_an_adapter_on_the_head_must_be_merged_first(tmp_path: Path, parameters: list[str]):
    tensors = {f"base_model.model.{name}": _rows(1) for name in parameters}
    folder = _folder(tmp_path / "m", tensors | {f"base_model.model.{EMBEDDING}": _rows()}, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\..* is part of an adapter on the head") as caught:
        _head(folder)
    assert "merge_and_unload" in caught.value.hint


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": r"model\.layers.*|lm_head"}, False),
        ({"target_parameters": ["lm_head.weight"]}, False),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"modules_to_save": ["lm_head"]}, True),
        ({"trainable_token_indices": {"embed_tokens": [5, 6]}}, True),
    ],
    ids=str,
)
def test_an_adapter_of_the_head_next_to_the_weights_is_not_passed_over(tmp_path: Path, config: dict, tied: bool):
    head = {} if tied else {"lm_head.weight": _rows(1)}
    folder = _folder(tmp_path / "m", {EMBEDDING: _rows()} | head)
    save_file({"base_model.model.lm_head.weight": _rows(2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = next(iter(config))
    with pytest.raises(CheckpointError, match=f"an adapter .*, and its {name} changes the") as caught:
        _head(folder)
    insisted = re.search(r"--tensor (\S+)", caught.value.hint)
    assert insisted is not None
    assert _head(folder, name=insisted[1]).role == "named"


def test_an_adapter_of_the_layers_next_to_the_weights_is_named(tmp_path: Path):
    folder = _folder(tmp_path / "m", {EMBEDDING: _rows(), "lm_head.weight": _rows(1)})
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": ["q_proj", "my_lm_head"]}))
    assert "the adapter next to the weights does not change the head" in _head(folder).line


@pytest.mark.parametrize(
    "name", ["token_unembed", "output_embeddings", "embedding_head", "audio_lm_head", "to_logits", "lm_out"]
)
@pytest.mark.parametrize("rows", [60, 62])
def test_a_matrix_that_could_be_the_head_is_not_passed_over(tmp_path: Path, name: str, rows: int):
    folder = _folder(tmp_path / "m", {EMBEDDING: _rows(), f"{name}.weight": _rows(1, rows, 8)})
    with pytest.raises(CheckpointError, match=f"a known head name, but '{name}.weight' has as many rows as a head"):
        _head(folder, tokens=60)


@pytest.mark.parametrize("name", ["unembed", "unembedding"])
def test_an_unembedding_is_a_head(tmp_path: Path, name: str):
    folder = _folder(tmp_path / "m", {EMBEDDING: _rows(), f"{name}.weight": _rows(1)})
    assert _head(folder, tokens=60).matrix.name == f"{name}.weight"


def test_an_adapter_without_a_head_names_its_base_model(tmp_path: Path):
    layers = {"base_model.model.model.layers.0.q_proj.lora_A.weight": _rows(1),
              "base_model.model.model.layers.0.q_proj.lora_B.weight": _rows(2)}  # fmt: skip
    for more in ({}, {f"base_model.model.{EMBEDDING}": _rows()}):
        folder = _folder(tmp_path / "m", layers | more, "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
        with pytest.raises(CheckpointError, match="an adapter of some/base, and the head is in its base model"):
            _head(folder)


def test_a_head_that_an_adapter_trained_whole_is_taken(tmp_path: Path):
    tensors = {"base_model.model.lm_head.weight": _rows(), "base_model.model.model.layers.0.q.lora_A.weight": _rows(1)}
    assert _head(_folder(tmp_path / "m", tensors, "adapter_model.safetensors")).role == "head"


TALKER = {"talker.codec_head.weight": _rows(5, 30), "talker.model.embed_tokens.weight": _rows(6, 30)}
FOUND = {
    "InternVL": (
        {"language_model.output.weight": _rows(1), "language_model.model.tok_embeddings.weight": _rows(),
         "language_model.model.layers.0.attention.output.weight": _rows(2), "mlp1.1.weight": _rows(3)},
        "language_model.output.weight", "head",
    ),
    "Omni": (
        {"thinker.lm_head.weight": _rows(1), "thinker.model.embed_tokens.weight": _rows()} | TALKER,
        "thinker.lm_head.weight", "head",
    ),
    "a talker with a head of the usual name": (
        {"thinker.lm_head.weight": _rows(1), "talker.lm_head.weight": _rows(2, 70)}, "thinker.lm_head.weight", "head",
    ),
    "Omni, tied": ({"thinker.model.embed_tokens.weight": _rows()} | TALKER, "thinker.model.embed_tokens.weight",
                   "embedding"),
    "Bert2Bert": (
        {"decoder.cls.predictions.decoder.weight": _rows(1), "encoder.embeddings.word_embeddings.weight": _rows(),
         "decoder.bert.embeddings.word_embeddings.weight": _rows(2)},
        "decoder.cls.predictions.decoder.weight", "head",
    ),
    "an encoder and a tied decoder": (
        {"encoder.embed_tokens.weight": _rows(), "decoder.embed_tokens.weight": _rows(1)},
        "decoder.embed_tokens.weight", "embedding",
    ),
    "multi-token prediction": (
        {"lm_head.weight": _rows(1), EMBEDDING: _rows(), "mtp.lm_head.weight": _rows(2),
         "model.layers.9.shared_head.head.weight": _rows(3)},
        "lm_head.weight", "head",
    ),
    "a tied model with a pooler": (
        {"bert.embeddings.word_embeddings.weight": _rows(), "pooler.output.weight": _rows(1, 16),
         "cls.predictions.transform.dense.weight": _rows(2, 16), "cls.predictions.bias": _rows(3)[0]},
        "bert.embeddings.word_embeddings.weight", "embedding",
    ),
    "RoBERTa, tied": (
        {"roberta.embeddings.word_embeddings.weight": _rows(), "lm_head.dense.weight": _rows(1, 16),
         "lm_head.bias": _rows(2, 1, 60)[0]},
        "roberta.embeddings.word_embeddings.weight", "embedding",
    ),
    "compiled": ({"_orig_mod.lm_head.weight": _rows(1), f"_orig_mod.{EMBEDDING}": _rows()},
                 "_orig_mod.lm_head.weight", "head"),
    "a sentence encoder's pipeline": ({"0.auto_model.embeddings.word_embeddings.weight": _rows(),
                                       "1.linear.weight": _rows(1, 8)},
                                      "0.auto_model.embeddings.word_embeddings.weight", "embedding"),
    "padding": ({"model.output_projection.weight": _rows(1, 64), EMBEDDING: _rows(0, 72)},
                "model.output_projection.weight", "head"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
@pytest.mark.parametrize("order", [1, -1])
def test_the_head_is_found(tmp_path: Path, case: str, order: int):
    tensors, name, role = FOUND[case]
    head = _head(_folder(tmp_path / "m", dict(list(tensors.items())[::order])))
    assert (head.matrix.name, head.role) == (name, role)
    assert name in head.line


REFUSED = {
    "two heads": {"a.lm_head.weight": _rows(1), "b.lm_head.weight": _rows(2)},
    "two embeddings": {"a.embed_tokens.weight": _rows(1), "b.embed_tokens.weight": _rows(2)},
    "a matrix that may be the head": {EMBEDDING: _rows(), "vocabulary_logits.weight": _rows(1)},
    "heads in a list": {EMBEDDING: _rows(), "lm_head.0.weight": _rows(1), "lm_head.1.weight": _rows(2)},
}


@pytest.mark.parametrize("case", REFUSED)
def test_candidates_for_the_head_are_listed_by_name(tmp_path: Path, case: str):
    tensors = REFUSED[case]
    folder = _folder(tmp_path / "m", tensors)
    with pytest.raises(CheckpointError) as caught:
        _head(folder)
    for name in tensors:
        assert f"--tensor {name}" in caught.value.hint
        assert _head(folder, name=name).matrix.name == name


def test_copies_of_one_head_are_one_head(tmp_path: Path):
    assert _head(_folder(tmp_path / "m", {"a.lm_head.weight": _rows(), "b.lm_head.weight": _rows()})).role == "head"


def test_a_quantized_head_among_several_parts_is_not_replaced(tmp_path: Path):
    thinker = {f"thinker.lm_head.{name}": tensor for name, tensor in QUANTIZED["GPTQ"].items()}
    with pytest.raises(CheckpointError, match=r"'thinker\.lm_head\.\w+' is not a plain weight"):
        _head(_folder(tmp_path / "m", thinker | {"talker.lm_head.weight": _rows(1)}))


def test_a_head_of_another_part_is_offered_where_rows_are_too_few(tmp_path: Path):
    tensors = {"thinker.lm_head.weight": _rows(1, 40), "talker.lm_head.weight": _rows(2, 30)}
    head = _head(_folder(tmp_path / "m", tensors))
    assert head.matrix.name == "thinker.lm_head.weight"
    assert head.others == ("talker.lm_head.weight (30 rows)",)


def test_a_module_given_for_a_tensor_lists_its_tensors(tmp_path: Path):
    folder = _folder(tmp_path / "m", {"lm_head.weight": _rows(), "lm_head.bias": _rows(1)[0]})
    with pytest.raises(CheckpointError) as caught:
        _head(folder, name="lm_head")
    start = "choose an existing one: "
    assert caught.value.hint in (f"{start}lm_head.weight, lm_head.bias", f"{start}lm_head.bias, lm_head.weight")


@pytest.mark.parametrize("case", ["InternVL", "RoBERTa, tied"])
def test_the_chosen_tensor_and_the_reason_are_printed_and_recorded(tmp_path: Path, case: str):
    tensors, name, role = FOUND[case]
    folder = _folder(tmp_path / "m", tensors)
    (folder / "vocab.txt").write_text("\n".join(f"w{i}" for i in range(TOKENS)) + "\n")
    notes, progress = [], QuietProgress()
    progress.note = notes.append  # type: ignore[method-assign]
    config = build_config(source="lm-head", name="m", store=tmp_path / "store", lm_head=LMHeadConfig(model=folder),
                         neighbors=NeighborsConfig(k=0))  # fmt: skip
    facts = costbank.build(config, progress).manifest.facts
    (line,) = [note for note in notes if note.startswith("took ")]
    assert repr(name) in line
    assert facts["tensor_reason"] in line
    assert facts["tensor_role"] == role


CLASSES = [
    "LlamaForCausalLM", "GPT2LMHeadModel", "RwkvForCausalLM", "GitForCausalLM", "T5GemmaForConditionalGeneration",
    "BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM", "AlbertForMaskedLM", "ModernBertForMaskedLM",
    "XLNetLMHeadModel", "CTRLLMHeadModel", "BioGptForCausalLM", "WhisperForConditionalGeneration",
    "BlipForConditionalGeneration", "Blip2ForConditionalGeneration", "InstructBlipForConditionalGeneration",
    "InternVLForConditionalGeneration", "BartForConditionalGeneration", "MarianMTModel", "ElectraForMaskedLM",
    "FlaubertWithLMHeadModel", "MambaForCausalLM", "ViltForMaskedLM", "TrOCRForCausalLM",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_heads_of_the_classes_of_transformers(name: str):
    for tied in (True, False):
        result = look(name, tied, True)
        assert result.verdict == "right", (tied, result.detail)
