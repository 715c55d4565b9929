"""A vocab.txt of WordPiece is read as transformers reads it, and a plain list stays one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as tf

import costbank
from costbank.config import LMHeadConfig, NeighborsConfig, SpellingConfig, build_config
from costbank.errors import TokenizerError
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus

LINES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,é吾",
         *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), "king", "queen", "##ing", "the"]  # fmt: skip
TEXT = "The kinging queens, ÉTÉ and the 吾吾 [MASK] xyz123"


def _vocab(folder: Path, lines: list[str] = LINES, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "vocab.txt"


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False},
        {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_encoding_equals_that_of_transformers(tmp_path: Path, config: dict[str, Any]):
    path = _vocab(tmp_path / "m", **config)
    ours = load_tokenizer(path)
    theirs: Any = getattr(tf, config["tokenizer_class"]).from_pretrained(path.parent)
    assert ours.kind == "wordpiece"
    for text in (TEXT, "kings king", "a\tb\nc", "NAÏVE naïve"):
        assert ours.encode([text])[0].tolist() == theirs(text, add_special_tokens=False)["input_ids"], text
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    same = load_tokenizer(tmp_path / "tokenizer.json")
    assert ours.vocab.fingerprint == same.vocab.fingerprint
    assert np.array_equal(ours.vocab.status, same.vocab.status)


def test_words_and_pieces_within_words_have_their_bytes(tmp_path: Path):
    vocab = load_tokenizer(_vocab(tmp_path / "m")).vocab
    assert vocab.token(LINES.index("king")) == b" king"
    assert vocab.token(LINES.index("##ing")) == b"ing"
    assert vocab.find("king") == LINES.index("king")
    assert vocab.find("piece:ing") == LINES.index("##ing")
    assert vocab.status_of(2) is TokenStatus.SPECIAL
    assert vocab.status_of(1) is TokenStatus.UNUSED


@pytest.mark.parametrize(
    ("lines", "config", "kind"),
    [
        (LINES, {}, "wordpiece"),
        (["[UNK]", "the", "##s"], {"tokenizer_class": "BertTokenizerFast"}, "wordpiece"),
        (["[UNK]", "the", "##s"], {}, "list"),
        (["<unk>", "the", "##a", "##b"], {}, "list"),
        (["the", "king", "##a", "##b"], {}, "list"),
    ],
)
def test_the_kind_of_a_list_follows_from_its_class_or_lines(tmp_path: Path, lines: list[str], config: dict, kind: str):
    assert load_tokenizer(_vocab(tmp_path / "m", lines, **config)).kind == kind
    for insisted in ("list", *(("wordpiece",) if "[UNK]" in lines else ())):
        assert load_tokenizer(tmp_path / "m" / "vocab.txt", insisted).kind == insisted  # pyright: ignore[reportArgumentType] -- a kind


def test_the_type_of_the_model_tells_it_too(tmp_path: Path):
    path = _vocab(tmp_path / "m", ["[UNK]", "The", "##s"])
    (path.parent / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokenizer = load_tokenizer(path)
    assert tokenizer.kind == "wordpiece"
    # No file says whether case is kept, so the capital letter in the list decides.
    assert tokenizer.encode(["The"])[0].tolist() == [1]


def test_added_tokens_have_the_ids_of_their_files(tmp_path: Path):
    decoder = {str(len(LINES)): {"content": "<tool>", "special": True}, str(len(LINES) + 1): {"content": "hello wide"}}
    tokenizer = load_tokenizer(_vocab(tmp_path / "m", tokenizer_class="BertTokenizer", added_tokens_decoder=decoder))
    assert tokenizer.vocab.size == len(LINES) + 2
    assert tokenizer.vocab.token(len(LINES)) == b"<tool>"
    assert tokenizer.encode(["king <tool> hello wide"])[0].tolist() == [LINES.index("king"), len(LINES), len(LINES) + 1]
    clash = {str(len(LINES)): {"content": "king", "special": False}}
    with pytest.raises(TokenizerError, match=r"'king' is id \d+ in vocab.txt and id \d+"):
        load_tokenizer(_vocab(tmp_path / "n", tokenizer_class="BertTokenizer", added_tokens_decoder=clash))


@pytest.mark.parametrize(
    ("lines", "words"),
    [([*LINES, "king"], "repeats line"), ([line for line in LINES if line != "[UNK]"], r"no line \[UNK\]")],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, lines: list[str], words: str):
    with pytest.raises(TokenizerError, match=words):
        load_tokenizer(_vocab(tmp_path / "m", lines, tokenizer_class="BertTokenizer"), "wordpiece")


def test_a_copy_of_the_models_own_list_is_the_models_tokenizer(tmp_path: Path):
    from safetensors.numpy import save_file

    path = _vocab(tmp_path / "m", tokenizer_class="BertTokenizer", do_lower_case=True)
    tokenizer: Any = tf.BertTokenizer.from_pretrained(path.parent)
    tokenizer.backend_tokenizer.save(str(path.parent / "tokenizer.json"))
    rows = np.random.default_rng(1).normal(size=(len(LINES), 8)).astype(np.float32)
    save_file({"cls.predictions.decoder.weight": rows}, path.parent / "model.safetensors")
    bank = costbank.build(build_config(
        source="lm-head", name="m", store=tmp_path / "store", tokenizer=_vocab(tmp_path / "copy"),
        lm_head=LMHeadConfig(model=path.parent), neighbors=NeighborsConfig(k=0),
    ))  # fmt: skip
    assert bank.vocab.find("piece:ing") == LINES.index("##ing")


def test_an_exported_list_has_the_same_ids(tmp_path: Path):
    from costbank.export.tokenizer_json import convert_tokenizer

    path = _vocab(tmp_path / "m")
    bank = costbank.build(build_config(
        source="spelling", name="m", store=tmp_path / "store", tokenizer=path, spelling=SpellingConfig(dim=8),
    ))  # fmt: skip
    (tmp_path / "tokenizer.json").write_bytes(convert_tokenizer(path, bank).content)
    assert (
        load_tokenizer(tmp_path / "tokenizer.json").encode([TEXT])[0].tolist()
        == load_tokenizer(path).encode([TEXT])[0].tolist()
    )
