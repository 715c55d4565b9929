"""A tokenizer of each kind as a tokenizer.json: the same ids, or an error that shows a text where they differ."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers

from costbank.errors import InputNotFoundError, TokenizerError
from costbank.export.tokenizer_json import convert_tokenizer, probe_texts
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.huggingface import byte_level_bytes

TEXTS = [
    "The minister said on Monday that   the budget\tis \n balanced.",
    "literally <s>, <0x0A>, <0x41> and <unk> in a text ▁here",
    " naïve café 日本語 🙂 \u3000 ½ ﬁ",
]
IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
USER = {"user_defined_symbols": ["<tool>", "the_end"]}
MODELS = {
    "unigram": {},
    "unigram with bytes": {"byte_fallback": True},
    "unigram, text as it is": {**IDENTITY, "byte_fallback": True},
    "unigram without a first space": {"add_dummy_prefix": False},
    "unigram of lower case": {"normalization_rule_name": "nmt_nfkc_cf"},
    "unigram with symbols": {**USER, "byte_fallback": True},
    "BPE": {"model_type": "bpe"},
    "BPE with bytes": {"model_type": "bpe", "byte_fallback": True},
    "BPE, text as it is": {**IDENTITY, "model_type": "bpe", "byte_fallback": True, "split_digits": True},
    "BPE with symbols": {**IDENTITY, **USER, "model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False},
    "characters": {"model_type": "char", "vocab_size": 70},
}


def _train(news: Path, directory: Path, **options: object) -> Path:
    sentencepiece.SentencePieceTrainer.train(
        **{"input": str(news), "model_prefix": str(directory / "m"), "vocab_size": 1_000, "minloglevel": 2} | options
    )
    return directory / "m.model"


def _same_ids(path: Path, content: bytes, texts: list[str]) -> None:
    ids, ends = load_tokenizer(path).encode(texts)
    expressed = tokenizers.Tokenizer.from_str(content.decode())
    for text, wanted in zip(texts, np.split(ids, ends[:-1]), strict=True):
        assert expressed.encode(text, add_special_tokens=False).ids == wanted.tolist(), text


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_sentencepiece_models_keep_their_ids(news: Path, bank_of, tmp_path: Path, options: dict):
    path = _train(news, tmp_path, **options)
    converted = convert_tokenizer(path, bank_of(path))
    _same_ids(path, converted.content, [*TEXTS, *news.read_text().splitlines()[:50]])
    assert converted.tokens == load_tokenizer(path).vocab.size


def test_a_warning_names_text_that_the_library_normalizes_differently(
    news: Path, news_model: Path, news_bank, bank_of, tmp_path: Path
):
    assert "form NFD" in convert_tokenizer(news_model, news_bank).warning
    path = _train(news, tmp_path, **IDENTITY, byte_fallback=True)
    assert convert_tokenizer(path, bank_of(path)).warning == ""


@pytest.mark.parametrize("options", [{"model_type": "word"}, {"treat_whitespace_as_suffix": True}])
def test_sentencepiece_models_that_cannot_be_converted_are_refused(news: Path, bank_of, tmp_path: Path, options: dict):
    path = _train(news, tmp_path, **options)
    with pytest.raises(TokenizerError, match="cannot be converted") as caught:
        convert_tokenizer(path, bank_of(path))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["llama2.model", "bytepiece.plus.40k.model"])
def test_real_tokenizers_keep_their_ids_on_real_text(shared_data: Path, bank_of, name: str):
    path = shared_data / name
    converted = convert_tokenizer(path, bank_of(path))
    texts = [(shared_data / file).read_bytes().decode()[:200_000] for file in ("english.txt", "japanese.txt")]
    _same_ids(path, converted.content, [*TEXTS, *texts])
    assert tokenizers.Tokenizer.from_str(converted.content.decode()).decode(
        load_tokenizer(path).encode(["The king 日本語"])[0].tolist()
    ) == "The king 日本語"  # fmt: skip


def test_a_tiktoken_file_keeps_its_ids(news: Path, bank_of, tmp_path: Path):
    words = dict.fromkeys(word for line in news.read_bytes().splitlines() for word in line.split(b" "))
    tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
    for word in words:
        tokens |= dict.fromkeys((b" " + word)[:end] for end in range(2, len(word) + 2))
    tokens |= dict.fromkeys(bytes([a, b]) for a in range(256) for b in range(256))
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(list(tokens)[:50_256]))
    (tmp_path / "x.tiktoken").write_bytes(b"".join(lines))
    converted = convert_tokenizer(tmp_path / "x.tiktoken", bank_of(tmp_path / "x.tiktoken"))
    _same_ids(tmp_path / "x.tiktoken", converted.content, [*TEXTS, *news.read_text().splitlines()[:50], "a\n\n  b\n"])


def test_a_tiktoken_file_without_a_known_rule_is_refused(bank_of, tmp_path: Path):
    lines = (base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    (tmp_path / "x.tiktoken").write_bytes(b"".join(lines))
    with pytest.raises(TokenizerError, match="no known encoding"):
        convert_tokenizer(tmp_path / "x.tiktoken", bank_of(tmp_path / "x.tiktoken"))


@pytest.mark.parametrize("lines", ["<unk>\ncat\ngolden retriever\n日本\n", "cat\ndog\n"])
def test_a_plain_list_keeps_its_ids(bank_of, tmp_path: Path, lines: str):
    (tmp_path / "labels.txt").write_text(lines)
    converted = convert_tokenizer(tmp_path / "labels.txt", bank_of(tmp_path / "labels.txt"))
    known = [line for line in lines.split() if " " not in line]
    unknown = ["bird cat\x1cgolden"] if "<unk>" in lines else []
    _same_ids(tmp_path / "labels.txt", converted.content, ["cat\u3000cat\n cat", "", " ".join(known[:2]), *unknown])


@pytest.fixture
def word_level(tmp_path: Path) -> Path:
    """A tokenizer.json that truncates and pads, with an id that no token has."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    (tmp_path / "plain").mkdir()
    tokenizer.save(str(tmp_path / "plain" / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_json_is_taken_as_it_is_without_truncation_and_padding(word_level: Path, bank_of):
    bank = bank_of(word_level)
    plain = word_level.parent / "plain" / "tokenizer.json"
    assert convert_tokenizer(plain, bank).content == plain.read_bytes()
    assert convert_tokenizer(plain.parent, bank).content == plain.read_bytes()
    converted = convert_tokenizer(word_level, bank)
    assert json.loads(converted.content) == json.loads(plain.read_bytes())
    assert converted.tokens == 3


def test_another_tokenizer_is_refused_with_both_fingerprints(news_bank, word_level: Path):
    with pytest.raises(TokenizerError, match="not the tokenizer of this bank") as caught:
        convert_tokenizer(word_level, news_bank)
    assert news_bank.manifest.tokenizer.fingerprint[:16] in str(caught.value)
    assert "news.model (sentencepiece)" in caught.value.hint
    with pytest.raises(InputNotFoundError):
        convert_tokenizer(word_level.parent / "missing.model", news_bank)


def test_a_wrong_conversion_is_refused_with_a_text_that_shows_it(news_bank, news_model: Path):
    wrong = convert_tokenizer(news_model, news_bank).content.replace(
        b'{"type":"Prepend","prepend":"\xe2\x96\x81"},', b""
    )
    with pytest.raises(TokenizerError, match=r"cannot be converted.*'Hello world, the king!'"):
        convert_tokenizer(news_model, news_bank, {"sentencepiece": lambda *_: wrong})


def test_the_probe_texts_contain_every_token_of_a_common_vocabulary(news_model: Path):
    vocab = load_tokenizer(news_model).vocab
    assert {vocab.token(i).decode("utf-8", "replace") for i in range(vocab.size)} <= set(probe_texts(vocab))
    assert probe_texts(vocab) == probe_texts(vocab)


def test_the_tokens_of_a_gguf_file_are_refused(bank_of, tmp_path: Path):
    import gguf

    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["▁a", "b"])
    writer.add_token_types([1, 1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(TokenizerError, match="not the rules that split text") as caught:
        convert_tokenizer(path, bank_of(path))
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("kind", ["vocab-merges", "tekken", "tiktoken"])
def test_tokenizers_of_model_folders_keep_their_ids(news: Path, bank_of, tmp_path: Path, kind: str):
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trained.train(
        [str(news)], tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    trained.model.save(str(tmp_path))
    named = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"700": {"content": "<|x|>", "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    path = tmp_path / "vocab.json"
    texts = {token_id: text for text, token_id in trained.get_vocab().items()}
    encoded = [base64.b64encode(byte_level_bytes(texts[token_id])).decode() for token_id in range(700)]
    if kind == "tekken":
        path = tmp_path / "tekken.json"
        config = {"pattern": r"\p{L}+|\P{L}", "default_vocab_size": 720, "default_num_special_tokens": 20}
        vocab = [{"rank": rank, "token_bytes": token} for rank, token in enumerate(encoded)]
        path.write_text(json.dumps({"config": config, "vocab": vocab}))
    elif kind == "tiktoken":
        path = tmp_path / "tiktoken.model"
        path.write_text("".join(f"{token} {rank}\n" for rank, token in enumerate(encoded)))
        with pytest.raises(TokenizerError, match="no known encoding"):
            convert_tokenizer(path, bank_of(path))
        return
    converted = convert_tokenizer(path, bank_of(path))
    _same_ids(path, converted.content, [*TEXTS, "a <|x|> b", *news.read_text().splitlines()[:50]])
