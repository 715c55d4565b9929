"""Placeholders, which their names identify: in every kind of tokenizer, and in a bank from a head."""

import base64
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.tokenizers import load_tokenizer, placeholder_counts, placeholder_pattern
from costbank.vocab import TokenStatus

PLACEHOLDERS = [
    "[unused0]", "[unused993]", " [unused12]", "<unused6241>", "<|unused_3|>", "[UNUSED_TOKEN_145]", ">>UNUSED_12<<",
    "<|reserved_special_token_250|>", "<|text_post_train_reserved_special_token_3|>", "<|reserved_200017|>",
    "<|reserved_token_163600|>", "<|reserved003|>", "<reserved_106>", "<|dummy_83|>", "<|placeholder6|>",
    "<｜place▁holder▁no▁799｜>", "<SPECIAL_999>", "[control_8]", "<|extra_204|>", "<|EXTRA_9_TOKEN|>", "<pad_3>",
    "[PAD151645]", "madeupword0002",
]  # fmt: skip
TRAINED = [
    "<extra_id_0>", "<|fim_prefix|>", "|||EMAIL_ADDRESS|||", "<|endoftext|>", "[PAD]", "<pad>", "[MASK]", " unused",
    "unused0",    " reserved", "[INST]", "<|im_start|>", "[0]", "<1>", "SPECIAL_12", "<unk>", "dummy_1",
]  # fmt: skip


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_names_of_placeholders(name: str):
    assert placeholder_pattern(name.encode())


@pytest.mark.parametrize("name", TRAINED)
def test_names_of_tokens_that_models_are_trained_on(name: str):
    assert placeholder_pattern(name.encode()) is None


def test_bytes_are_impossible_exactly_where_no_character_is_encoded_with_them():
    possible = {byte for code in range(0x110000) if not 0xD800 <= code < 0xE000 for byte in chr(code).encode()}
    for byte in range(256):
        assert (placeholder_pattern(bytes([byte])) is None) == (byte in possible)


def _json(path: Path, words: dict[str, int], added: tuple[str, ...] = ()) -> Path:
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in added])
    tokenizer.save(str(path))
    return path


def test_every_kind_of_tokenizer_knows_them(tmp_path: Path):
    names = ["[UNK]", "[unused0]", "king", "[unused7]"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    _json(tmp_path / "tokenizer.json", {name: i for i, name in enumerate(names)})
    ranks = [b"a", b"<|reserved_1|>", b"king", b"\xff"]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks)]
    (tmp_path / "x.tiktoken").write_bytes(b"".join(lines))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(["a", "<unused1>", "▁king", "<0xFF>", "[PAD4]"])
    writer.add_token_types([1, 4, 1, 6, 5])
    writer.add_tensor("token_embd.weight", np.ones((5, 8), np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    for file in ("vocab.txt", "tokenizer.json", "x.tiktoken", "m.gguf"):
        vocab = load_tokenizer(tmp_path / file).vocab
        unused = vocab.status == TokenStatus.UNUSED
        assert unused[:4].tolist() == [False, True, False, True], file
        assert sum(placeholder_counts(vocab).values()) == 2, file
    words = load_tokenizer(tmp_path / "tokenizer.json").vocab
    assert [words.token(i) for i in range(4)] == [b"[UNK]", b"[unused0]", b" king", b"[unused7]"]
    padding = load_tokenizer(tmp_path / "m.gguf").vocab
    assert (padding.token(4), padding.status_of(4)) == (b"", TokenStatus.UNUSED)


USED = 5


def _bank(folder: Path, notes: list[str], keep: bool) -> Bank:
    from costbank.progress import QuietProgress

    class Progress(QuietProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    model = LMHeadConfig(model=folder, keep_placeholders=keep)
    config = build_config(source="lm-head", lm_head=model, name="m", store=folder, neighbors=NeighborsConfig(k=3))
    return costbank.build(config, Progress())


@pytest.fixture
def model(tmp_path: Path, random: np.random.Generator) -> Path:
    """20 placeholders with nearly equal rows, except one that was trained; 20 words."""
    names = ["[UNK]", *(f"[unused{i}]" for i in range(20)), *(f"word{i}" for i in range(20))]
    _json(tmp_path / "tokenizer.json", {name: i for i, name in enumerate(names)})
    rows = random.normal(size=(41, 16)).astype(np.float32)
    untrained = random.normal(size=16)
    trained = np.array([i for i in range(1, 21) if i != USED])
    rows[trained] = untrained + random.normal(0, 0.05, size=(19, 16))
    rows[USED] -= (rows[USED] @ untrained) / (untrained @ untrained) * untrained
    save_file({"lm_head.weight": rows}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_build_tells_how_many_and_which_look_trained(model: Path):
    notes: list[str] = []
    bank = _bank(model, notes, keep=False)
    assert bank.manifest.status["unused"] == 20
    assert not bank.vectors(slice(1, 21)).any()
    assert bank.manifest.facts["placeholders"] == {"[unusedN]": 20}
    assert any("20 ids are placeholders by name (20 [unusedN])" in note for note in notes)
    odd = next(note for note in notes if "differ from those of the other placeholders" in note)
    assert "[unused4] (id 5)" in odd
    assert odd.count("[unused") == 1
    assert "keep_placeholders" in odd
    assert bank.raw is not None
    assert not np.isnan(bank.raw.to_unused[21:]).any()
    assert "keep_placeholders" not in json.dumps(bank.manifest.config)


def test_placeholders_keep_their_rows_on_demand(model: Path):
    notes: list[str] = []
    bank = _bank(model, notes, keep=True)
    assert bank.manifest.status["unused"] == 0
    assert np.abs(bank.vectors(slice(1, 21))).any(axis=1).all()
    assert bank.id != _bank(model, [], keep=False).id
    assert not any("unlike" in note for note in notes)
