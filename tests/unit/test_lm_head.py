"""Banks from pretrained heads, from the file to the bank."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import costbank
from costbank.bank import Bank, verify_bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import CheckpointError, InputError, InputNotFoundError, TokenizerError, UsageError
from costbank.progress import QuietProgress
from costbank.vocab import TokenStatus

WORDS = [f" word{i}" for i in range(120)]
DIM, PADDING = 64, 8
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}  # fmt: skip


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    """Ten families of twelve words, and untrained padding rows."""
    generator = torch.Generator().manual_seed(3)
    centers = torch.randn(10, DIM, generator=generator).repeat_interleave(12, 0)
    rows = centers + 0.5 * torch.randn(len(WORDS), DIM, generator=generator)
    return torch.cat([rows, 0.01 * torch.randn(PADDING, DIM, generator=generator)])


@pytest.fixture
def model(tmp_path: Path, head: torch.Tensor) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(word.strip() for word in WORDS) + "\n")
    save_file({"lm_head.weight": head}, folder / "model.safetensors")
    return folder


def _build(model: Path, store: Path, **settings) -> Bank:
    notes = []
    progress = QuietProgress()
    progress.note = notes.append  # type: ignore[method-assign]
    config = build_config(source="lm-head", name="m", store=store, lm_head=LMHeadConfig(model=model), **settings)
    bank = costbank.build(config, progress)
    bank.notes = notes  # type: ignore[attr-defined]
    return bank


def test_rows_are_the_heads_rows_normalized(model: Path, tmp_path: Path, head: torch.Tensor):
    bank = _build(model, tmp_path / "store")
    expected = torch.nn.functional.normalize(head[: len(WORDS)].double(), dim=1).float().numpy()
    assert np.array_equal(bank.vectors(slice(0, len(WORDS))), expected)
    assert bank.size == len(head)
    assert (bank.vectors(slice(len(WORDS), None)) == 0).all()
    assert bank.manifest.status == {"ok": 120, "byte": 0, "special": 0, "unused": PADDING, "unseen": 0}
    assert bank.manifest.reproducible
    assert [neighbor.id // 12 for neighbor in bank.nearest(40, 11)] == [3] * 11
    assert all(check.ok for check in verify_bank(bank.path))
    assert bank.raw is not None
    assert np.allclose(bank.raw.norms[:120], torch.linalg.norm(head[:120], dim=1))
    unused = head[120:].mean(0)
    cosines = torch.nn.functional.cosine_similarity(head[:120], unused[None])
    assert np.allclose(bank.raw.to_unused[:120], cosines, atol=1e-6)


def test_the_input_is_named_with_the_digest_of_its_bytes(model: Path, tmp_path: Path, head: torch.Tensor):
    import hashlib

    (named,) = _build(model, tmp_path / "store").manifest.inputs
    digest = hashlib.sha256(head.numpy().tobytes()).hexdigest()
    assert named == {"name": "model.safetensors:lm_head.weight", "size": head.nbytes, "sha256": digest}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", ["safetensors", "shards", "bin"])
def test_every_dtype_and_container_gives_the_same_neighbors(
    model: Path, tmp_path: Path, head: torch.Tensor, dtype: str, container: str
):
    exact = _build(model, tmp_path / "store", neighbors=NeighborsConfig(k=11))
    (model / "model.safetensors").unlink()
    stored = head.to(DTYPES[dtype])
    if container == "safetensors":
        save_file({"lm_head.weight": stored}, model / "model.safetensors")
    elif container == "bin":
        torch.save({"lm_head.weight": stored}, model / "pytorch_model.bin")
    else:
        names = {"lm_head.weight": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        save_file({"lm_head.weight": stored}, model / names["lm_head.weight"])
        save_file({"x": stored}, model / names["x"])
    other = _build(model, tmp_path / "other", neighbors=NeighborsConfig(k=11))
    step = {"F64": 0, "F32": 0, "F16": 2**-11, "BF16": 2**-8, "F8_E4M3": 2**-4, "F8_E5M2": 2**-3}[dtype]
    assert np.abs(other.vectors() - exact.vectors()).max() <= 2 * step
    same = [set(a) == set(b) for a, b in zip(other.neighbors.ids[:120], exact.neighbors.ids[:120], strict=True)]
    assert np.mean(same) == 1
    assert (other.id == exact.id) == (dtype in ("F64", "F32"))


def _write_gguf(path: Path, head: torch.Tensor, kind: gguf.GGMLQuantizationType, model: str = "llama") -> None:
    writer = gguf.GGUFWriter(path, "llama")
    tokens = ["<unk>", "<s>", "<0xE4>", *("▁" + word.strip() for word in WORDS[3:])]
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.BYTE]
    writer.add_token_types([*types, *[gguf.TokenType.NORMAL] * (len(tokens) - 3)])
    writer.add_tensor("output.weight", gguf.quants.quantize(head.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "overlap"), [("F32", 1.0), ("F16", 1.0), ("BF16", 1.0), ("Q8_0", 1.0), ("Q4_0", 0.99)]
)
def test_a_gguf_file_brings_its_own_tokens(model: Path, tmp_path: Path, head: torch.Tensor, kind: str, overlap: float):
    exact = _build(model, tmp_path / "store", neighbors=NeighborsConfig(k=11))
    path = tmp_path / "m.gguf"
    _write_gguf(path, head, gguf.GGMLQuantizationType[kind])
    bank = _build(path, tmp_path / "other", neighbors=NeighborsConfig(k=11))
    assert bank.manifest.tokenizer.kind == "gguf"
    assert bank.manifest.facts["tensor_dtype"] == kind
    assert [bank.vocab.token(i) for i in (0, 1, 2, 5, 120)] == [b"<unk>", b"<s>", b"\xe4", b" word5", b""]
    assert bank.manifest.status == {"ok": 117, "byte": 1, "special": 2, "unused": PADDING, "unseen": 0}
    shared = [len(set(a) & set(b)) for a, b in zip(bank.neighbors.ids[:120], exact.neighbors.ids[:120], strict=True)]
    assert np.sum(shared) / (11 * 120) >= overlap


@pytest.mark.parametrize(
    ("tokens", "types", "message"),
    [
        (["a", "b", "c"], [1, 1], "3 tokens and 2 token types"),
        (["a", "hello"], [1, 6], "byte piece 'hello'"),
    ],
)
def test_tokens_of_a_gguf_file_that_are_broken(
    tmp_path: Path, head: torch.Tensor, tokens: list[str], types: list[int], message: str
):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_tensor("token_embd.weight", head[:4].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(TokenizerError, match=message):
        _build(tmp_path / "m.gguf", tmp_path / "store")


def test_byte_level_tokens_of_a_gguf_file_are_bytes(tmp_path: Path, head: torch.Tensor):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["Ġking", "ä½ł", "<|end|>", "ä"])
    writer.add_token_types([1, 1, 3, 1])
    writer.add_tensor("token_embd.weight", head[:4].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vocab = _build(tmp_path / "m.gguf", tmp_path / "store").vocab
    assert [vocab.token(i) for i in range(4)] == [b" king", "你".encode(), b"<|end|>", b"\xe4"]
    assert [vocab.status_of(i).name for i in range(4)] == ["OK", "OK", "SPECIAL", "BYTE"]


def test_an_encoder_with_nothing_but_embeddings(model: Path, tmp_path: Path, head: torch.Tensor):
    save_file({"embeddings.word_embeddings.weight": head, "pooler.dense.weight": head + 1}, model / "model.safetensors")
    bank = _build(model, tmp_path / "store")
    assert bank.manifest.facts["tensor"] == "embeddings.word_embeddings.weight"
    assert bank.manifest.facts["tensor_role"] == "embedding"


def test_a_disagreement_with_the_config_is_noted(model: Path, tmp_path: Path, head: torch.Tensor):
    save_file({"lm_head.weight": head, "model.embed_tokens.weight": head + 1}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"text_config": {"tie_word_embeddings": True}}))
    bank = _build(model, tmp_path / "store")
    assert bank.manifest.facts["tied"] is False
    assert bank.manifest.facts["config_says_tied"] is True
    assert any("the config says" in note and "lm_head.weight" in note for note in bank.notes)


def test_a_head_shorter_than_the_vocabulary_is_refused_with_both_numbers(
    model: Path, tmp_path: Path, head: torch.Tensor
):
    save_file({"lm_head.weight": head[:100]}, model / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has 100 rows, but the tokenizer has 120 tokens"):
        _build(model, tmp_path / "store")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_no_number_is_named(model: Path, tmp_path: Path, head: torch.Tensor, value: float):
    broken = head.clone()
    broken[77, 5] = value
    save_file({"lm_head.weight": broken}, model / "model.safetensors")
    with pytest.raises(InputError, match=r"token 77 'word77', from tensor 'lm_head\.weight' in model\.saf") as caught:
        _build(model, tmp_path / "store")
    assert caught.value.hint
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_a_zero_row_has_no_evidence(model: Path, tmp_path: Path, head: torch.Tensor):
    silent = head.clone()
    silent[5] = 0
    save_file({"lm_head.weight": silent}, model / "model.safetensors")
    bank = _build(model, tmp_path / "store")
    assert bank.vocab.status_of(5) == TokenStatus.UNSEEN
    assert bank.nearest(5) == []


def test_a_missing_setting_is_requested(model: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="needs a model"):
        costbank.build(build_config(source="lm-head", store=tmp_path))
    (model / "vocab.txt").unlink()
    with pytest.raises(InputNotFoundError, match="no tokenizer in the folder") as caught:
        _build(model, tmp_path / "store")
    assert caught.value.hint == "name a tokenizer with --tokenizer FILE"


@pytest.mark.slow
def test_safetensors_and_gguf_are_read_without_torch(model: Path, tmp_path: Path, head: torch.Tensor):
    _write_gguf(tmp_path / "m.gguf", head, gguf.GGMLQuantizationType.Q8_0)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "import costbank\n"
        "from costbank.config import LMHeadConfig, build_config\n"
        "for model in sys.argv[2:]:\n"
        "    config = build_config(source='lm-head', name='m', store=Path(sys.argv[1]),"
        " lm_head=LMHeadConfig(model=Path(model)))\n"
        "    print(costbank.build(config).size)\n"
        "assert 'transformers' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "store", model, tmp_path / "m.gguf"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["128", "128"]


@pytest.mark.parametrize("transforms", [("abtt:3",), ("whiten",), ("pca:8", "whiten")])
def test_transformed_banks_are_the_same_on_any_number_of_threads(
    model: Path, tmp_path: Path, transforms: tuple[str, ...]
):
    from threadpoolctl import threadpool_limits

    ids = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            ids.add(_build(model, tmp_path / str(threads), transforms=transforms).id)
    assert len(ids) == 1


def test_settings_without_effect_change_no_id(model: Path, tmp_path: Path):
    plain = _build(model, tmp_path / "a", transforms=("abtt",))
    same = _build(model, tmp_path / "b", transforms=("abtt:02",), neighbors=NeighborsConfig(min_recall=0.5))
    assert plain.id == same.id
    assert _build(model, tmp_path / "c", transforms=("abtt:3",)).id != plain.id


def test_measurements_of_raw_rows_are_part_of_the_id(model: Path, tmp_path: Path, head: torch.Tensor):
    """Rows scaled by powers of two have the same directions, but the bank differs, because its health differs."""
    one = _build(model, tmp_path / "store")
    save_file({"lm_head.weight": head * 2.0 ** (torch.arange(len(head)) % 5)[:, None]}, model / "model.safetensors")
    other = _build(model, tmp_path / "store")
    assert np.array_equal(one.vectors()[:120], other.vectors()[:120])
    assert one.id != other.id


def test_a_bank_without_vectors_is_refused(model: Path, tmp_path: Path, head: torch.Tensor):
    save_file({"lm_head.weight": torch.zeros_like(head)}, model / "model.safetensors")
    with pytest.raises(InputError, match="0 of 128 tokens have a vector"):
        _build(model, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_a_path_that_is_no_utf8_is_recorded(model: Path, tmp_path: Path):
    odd = model.rename(tmp_path / os.fsdecode(b"mod\xffel"))
    bank = _build(odd, tmp_path / "store")
    assert bank.manifest.run["lm_head"]["model"].endswith("mod\udcffel")
    assert all(check.ok for check in verify_bank(bank.path))
