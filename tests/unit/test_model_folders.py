"""Tokenizers in model folders: vocab.json with merges.txt, tiktoken.model, tekken.json, and added tokens."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, Qwen2Tokenizer

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import TokenizerError
from costbank.progress import QuietProgress
from costbank.token_names import BYTE_LEVEL_ALPHABET
from costbank.tokenizers import find_tokenizer, load_tokenizer
from costbank.vocab import TokenStatus, Vocab

TEXTS = ["The king's 2024 men  said,\n\n 'hello'!", "日本語 🙂 e\u0301", "a <|tool|>b<|end|> c", ""]
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = {byte: letter for letter, byte in BYTE_LEVEL_ALPHABET.items()}


def _write(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


@pytest.fixture(scope="session")
def trained(news: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train([str(news)], trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


@pytest.fixture
def bpe(trained: Tokenizer, tmp_path: Path) -> Path:
    """A folder with vocab.json and merges.txt, and no other file."""
    folder = tmp_path / "bpe"
    folder.mkdir()
    trained.model.save(str(folder))
    return folder


def _ranks(trained: Tokenizer) -> list[bytes]:
    by_id = {token_id: text for text, token_id in trained.get_vocab().items()}
    return [bytes(BYTE_LEVEL_ALPHABET[c] for c in by_id[token_id]) for token_id in range(len(by_id))]


def _texts_and_statuses(vocab: Vocab, ids: range) -> list[tuple[bytes, str]]:
    return [(vocab.token(i), vocab.status_of(i).name) for i in ids]


def _build(model: Path, store: Path, **options: Any) -> tuple[Bank, list[str]]:
    notes: list[str] = []

    class Progress(QuietProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    head = LMHeadConfig(model=model, accept_other_tokenizer=options.pop("insist", False))
    config = build_config(
        source="lm-head", name="m", store=store, lm_head=head, neighbors=NeighborsConfig(k=0), **options
    )
    return costbank.build(config, Progress()), notes


def _head(folder: Path, rows: int) -> Path:
    folder.mkdir(exist_ok=True)
    head = np.random.default_rng(3).normal(size=(rows, 12)).astype(np.float32)
    save_file({"lm_head.weight": head}, folder / "model.safetensors")
    return folder


ADDED = {"<|end|>": 900, "<|tool|>": 901, "_note_": 902}


@pytest.mark.parametrize("transformers_class", [GPT2Tokenizer, Qwen2Tokenizer])
def test_vocab_and_merges_are_what_transformers_makes_of_them(bpe: Path, tmp_path: Path, transformers_class: type):
    _write(bpe, "added_tokens.json", ADDED)
    _write(bpe, "tokenizer_config.json", {"tokenizer_class": transformers_class.__name__, "eos_token": "<|end|>",
           "bos_token": "<|end|>", "unk_token": "<|end|>", "pad_token": "<|end|>",
           "added_tokens_decoder": {i: {"content": text, "special": text != "_note_"} for text, i in ADDED.items()},
    })  # fmt: skip
    ours = load_tokenizer(bpe)
    assert ours.kind == "vocab-merges"
    theirs = transformers_class.from_pretrained(bpe)
    saved = _write(tmp_path / "saved", "tokenizer.json", theirs.backend_tokenizer.to_str())
    assert load_tokenizer(saved).vocab.fingerprint == ours.vocab.fingerprint
    for text in TEXTS:
        assert ours.encode([text])[0].tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.added_ids == {900, 901, 902}


def test_vocab_and_merges_alone_have_a_vocabulary_but_no_splitting_rule(bpe: Path):
    for path in (bpe, bpe / "vocab.json", bpe / "merges.txt"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.file == "vocab.json"
        assert b"".join(map(tokenizer.vocab.token, range(256))) == bytes(
            BYTE_LEVEL_ALPHABET[c] for c in sorted(BYTE_LEVEL_ALPHABET)
        )
        assert tokenizer.vocab.find("▁the")
        with pytest.raises(TokenizerError, match="no file next to it names the model's class") as caught:
            tokenizer.encode(["x"])
        assert "GPT2Tokenizer" in caught.value.hint


def test_the_class_of_a_config_json_gives_the_splitting_rule(bpe: Path, trained: Tokenizer):
    _write(bpe, "config.json", {"model_type": "roberta"})
    assert load_tokenizer(bpe).encode([TEXTS[0]])[0].tolist() == trained.encode(TEXTS[0]).ids
    _write(bpe, "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizerFast"})
    with pytest.raises(TokenizerError, match="the rule of the class CLIPTokenizer is not known"):
        load_tokenizer(bpe).encode(["x"])


def test_words_that_end_in_a_mark_and_tokens_that_no_merge_makes(tmp_path: Path):
    letters = list(LETTERS.values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "in", "in</w>", "<|startoftext|>", "<mask>", "x y"]
    _write(tmp_path, "vocab.json", {token: i for i, token in enumerate(tokens)})
    _write(tmp_path, "merges.txt", "#version: 0.2\ni n\ni n</w>\n")
    vocab = load_tokenizer(tmp_path).vocab
    assert vocab.token(tokens.index("a</w>")) == b"a "
    assert _texts_and_statuses(vocab, range(512, 517)) == [
        (b"in", "OK"), (b"in ", "OK"), (b"<|startoftext|>", "SPECIAL"), (b"<mask>", "SPECIAL"), (b"x y", "OK"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (
            "merges.txt",
            lambda text: text + "zz q\n",
            "does not merge two tokens of the vocabulary into a third: 'zz q'",
        ),
        ("merges.txt", lambda text: text.replace(" ", "\t"), "merges.txt line 2 does not merge"),
        ("vocab.json", lambda text: text.replace('"b":65', '"b":64'), "gives 'a' and 'b' the id 64"),
        ("vocab.json", lambda text: text.replace('"b":65', '"bq":65'), "no token for byte 0x62"),
        ("vocab.json", lambda text: text.replace('"b":65', '"b":-5'), "does not map each token to an id"),
        ("vocab.json", lambda text: text.replace('"b":65', '"b":9000000'), "its id 9,000,000 is out of range"),
        ("vocab.json", lambda text: text[:-30], "not a vocab.json"),
    ],
)
def test_vocab_and_merges_that_do_not_fit_are_refused(bpe: Path, file: str, change: Any, problem: str):
    path = bpe / file
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(TokenizerError, match=problem) as caught:
        load_tokenizer(bpe / "vocab.json")
    assert caught.value.hint


def test_a_vocab_json_without_merges_is_refused(bpe: Path):
    (bpe / "merges.txt").unlink()
    for path in (bpe, bpe / "vocab.json"):
        with pytest.raises(TokenizerError, match=r"no merges\.txt next to it"):
            load_tokenizer(path)


def _tekken(tokens: list[bytes], special: list[str] | None, number: int, size: int, **config: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "config": {"pattern": PATTERN, "num_vocab_tokens": len(tokens), "default_vocab_size": size,
                   "default_num_special_tokens": number, "version": "v3", **config},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
                  for rank, token in enumerate(tokens)],
    }  # fmt: skip
    if special is not None:
        content["special_tokens"] = [
            {"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(special)
        ]
    return content


def test_a_tekken_json_begins_with_special_tokens_and_ends_at_its_size(trained: Tokenizer, tmp_path: Path):
    ranks = sorted(_ranks(trained), key=len)
    path = _write(tmp_path, "tekken.json", _tekken(ranks, ["<unk>", "<s>", "</s>", "[INST]"], 12, 12 + 700))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.kind, tokenizer.vocab.size) == ("tekken", 712)
    assert _texts_and_statuses(tokenizer.vocab, range(2, 6)) == [
        (b"</s>", "SPECIAL"), (b"[INST]", "SPECIAL"), (b"<SPECIAL_4>", "UNUSED"), (b"<SPECIAL_5>", "UNUSED"),
    ]  # fmt: skip
    assert [tokenizer.vocab.token(12 + rank) for rank in range(700)] == ranks[:700]
    oracle = tiktoken.Encoding(
        "x", pat_str=PATTERN, mergeable_ranks={token: rank for rank, token in enumerate(ranks[:700])}, special_tokens={}
    )
    ids, ends = tokenizer.encode(TEXTS)
    assert ids.tolist() == [token_id + 12 for text in TEXTS for token_id in oracle.encode_ordinary(text)]
    assert b"".join(map(tokenizer.vocab.token, ids[: ends[0]].tolist())).decode() == TEXTS[0]
    assert load_tokenizer(path, "tekken").vocab.fingerprint == tokenizer.vocab.fingerprint


def test_a_tekken_json_without_special_tokens_has_those_of_the_first_versions(trained: Tokenizer, tmp_path: Path):
    ranks = sorted(_ranks(trained), key=len)
    _write(tmp_path, "tekken.json", _tekken(ranks, None, 1000, 1300))
    vocab = load_tokenizer(tmp_path).vocab
    assert [vocab.token(i) for i in (0, 3, 11, 19, 20, 999)] == [
        b"<unk>", b"[INST]", b"<pad>", b"[TOOL_CONTENT]", b"<SPECIAL_20>", b"<SPECIAL_999>",
    ]  # fmt: skip
    assert vocab.token(1000) == ranks[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c["config"].pop("default_vocab_size") and {"default_vocab_size": None}, "no 'default_vocab_size'"),
        (lambda c: c["config"].update(default_vocab_size=9_000), "it lists 900 other tokens"),
        (lambda c: c["config"].update(default_vocab_size=100), "its vocabulary size is 100"),
        (lambda c: c["vocab"].pop(300), "rank 300 is missing"),
        (
            lambda c: c["vocab"].__setitem__(301, c["vocab"][300]),
            "rank 301 is missing, or a token or rank is repeated",
        ),
        (lambda c: c["vocab"][7].update(token_bytes="?"), "tekken.json"),
        (lambda c: c["special_tokens"][1].update(rank=0), "the special tokens a and b have the same rank, 0"),
        (
            lambda c: c["special_tokens"][1].update(rank=12),
            "the special token b has rank 12, but there are 12 special tokens",
        ),
    ],
)
def test_a_tekken_json_that_contradicts_itself_is_refused(
    trained: Tokenizer, tmp_path: Path, change: Any, problem: str
):
    content = _tekken(sorted(_ranks(trained), key=len), ["a", "b"], 12, 712)
    change(content)
    path = _write(tmp_path, "tekken.json", json.dumps(content))
    with pytest.raises(TokenizerError, match=problem) as caught:
        load_tokenizer(path, "tekken")
    assert caught.value.hint


def _tiktoken(folder: Path, tokens: list[bytes], name: str = "tiktoken.model") -> Path:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    return _write(folder, name, "".join(lines))


@pytest.mark.parametrize("name", ["tiktoken.model", "tokenizer.model", "qwen.tiktoken"])
def test_special_tokens_of_a_tiktoken_model_have_the_ids_of_the_configuration(tmp_path: Path, name: str):
    """Kimi's ids have gaps, and a placeholder's name decides its status."""
    _tiktoken(tmp_path, [bytes([byte]) for byte in range(256)], name)
    decoder = {
        "256": {"content": "[BOS]", "special": True},
        "258": {"content": "<|im_end|>", "special": False},
        "259": {"content": "<|reserved_token_259|>", "special": True},
        "300": {"content": "[PAD]", "special": True},
        "301": {"content": "hello", "special": False},
    }
    _write(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.kind, tokenizer.vocab.size) == ("tiktoken", 302)
    assert _texts_and_statuses(tokenizer.vocab, range(256, 260)) == [
        (b"[BOS]", "SPECIAL"), (b"", "UNUSED"), (b"<|im_end|>", "SPECIAL"), (b"<|reserved_token_259|>", "UNUSED"),
    ]  # fmt: skip
    assert _texts_and_statuses(tokenizer.vocab, range(300, 302)) == [(b"[PAD]", "SPECIAL"), (b"hello", "OK")]
    alone = load_tokenizer(_tiktoken(tmp_path, [bytes([byte]) for byte in range(256)], "copy.txt"), "tiktoken")
    assert alone.vocab.size == 256  # a copy under another name is read without the other files


@pytest.mark.parametrize(
    ("listed", "decoder", "problem"),
    [
        ({"<|x|>": 40}, {}, r"id 40 is '\(' in tiktoken.model and '<\|x\|>' in added_tokens.json"),
        ({"<|x|>": -1}, {}, "has the id -1 in added_tokens.json"),
        ({"<|x|>": "a"}, {}, "has the id 'a' in added_tokens.json"),
        ({"<|x|>": True}, {}, "has the id True"),
        ({"<|x|>": 10_000_000}, {}, "the id 10,000,000 in added_tokens.json is out of range"),
        (
            {"<|x|>": 256, "<|y|>": 256},
            {},
            r"id 256 is '<\|x\|>' in added_tokens.json and '<\|y\|>' in added_tokens.json",
        ),
        (
            {"<|x|>": 256},
            {"256": {"content": "<|y|>"}},
            "id 256 is .* in tokenizer_config.json and .* in added_tokens.json",
        ),
        ({"<|x|>": 256}, {"257": {"content": "<|x|>"}}, "has the ids 257 and 256"),
        ({"a": 256}, {}, "'a' is id 97 in tiktoken.model and id 256 in added_tokens.json"),
        ({}, {"256": {"special": True}}, "id 256 in tokenizer_config.json has no text"),
        ([1], {}, "added_tokens.json is not a JSON object"),
        ({}, ["x"], "added_tokens_decoder in tokenizer_config.json does not map ids to tokens"),
    ],
)
def test_files_that_contradict_each_other_are_refused_by_name(tmp_path: Path, listed: Any, decoder: Any, problem: str):
    path = _tiktoken(tmp_path, [bytes([byte]) for byte in range(256)])
    _write(tmp_path, "added_tokens.json", listed)
    _write(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    with pytest.raises(TokenizerError, match=problem) as caught:
        load_tokenizer(path)
    assert "a copy of tiktoken.model under another name" in caught.value.hint


def test_tokens_that_were_added_to_a_word_piece_list(tmp_path: Path):
    _write(tmp_path, "vocab.txt", "[PAD]\n[UNK]\nthe\n##ing\n[unused1]\n")
    _write(tmp_path, "added_tokens.json", {"<e1>": 5, "covid": 6, "acme": 4})
    _write(
        tmp_path, "special_tokens_map.json", {"additional_special_tokens": [{"content": "<e1>"}], "pad_token": "[PAD]"}
    )
    vocab = load_tokenizer(tmp_path).vocab
    assert _texts_and_statuses(vocab, range(4, 7)) == [(b"acme", "OK"), (b"<e1>", "SPECIAL"), (b"covid", "OK")]


def test_several_tokenizers_in_a_folder_are_named(bpe: Path, tmp_path: Path, news_model: Path):
    (bpe / "spiece.model").write_bytes(news_model.read_bytes())
    with pytest.raises(TokenizerError, match=r"has several tokenizers: spiece\.model, vocab\.json") as caught:
        load_tokenizer(bpe)
    assert "--tokenizer FILE" in caught.value.hint
    assert load_tokenizer(bpe / "spiece.model").kind == "sentencepiece"
    (bpe / "vocab.json").unlink()
    (bpe / "tokenizer.model").write_bytes(news_model.read_bytes())  # the same model under two names
    assert find_tokenizer(bpe).name == "tokenizer.model"


@pytest.mark.parametrize("name", ["sentencepiece.model", "spm.model", "spiece.model", "tokenizer.model"])
def test_sentencepiece_models_are_found_under_the_names_that_they_have(tmp_path: Path, news_model: Path, name: str):
    (tmp_path / name).write_bytes(news_model.read_bytes())
    assert load_tokenizer(tmp_path).kind == "sentencepiece"


def test_heads_take_these_tokenizers_from_their_folders(bpe: Path, trained: Tokenizer, tmp_path: Path):
    _write(bpe, "added_tokens.json", ADDED)
    bank, notes = _build(_head(bpe, 903), tmp_path / "store")
    assert bank.vocab.status_of(900) is TokenStatus.SPECIAL
    assert not any("padding" in note for note in notes)
    short, notes = _build(_head(bpe, 901), tmp_path / "store")
    assert short.size == 901
    assert any("2 added tokens after the head's 901 rows get no vector: <|tool|>, _note_" in note for note in notes)
    tekken = _head(tmp_path / "tekken", 712)
    _write(tekken, "tekken.json", _tekken(sorted(_ranks(trained), key=len), ["<unk>"], 12, 712))
    bank, notes = _build(tekken, tmp_path / "store")
    assert bank.vocab.token(12) == sorted(_ranks(trained), key=len)[0]
    assert bank.manifest.tokenizer.kind == "tekken"
