"""Every kind of tokenizer has the exact bytes of each id, so the bytes of encoded text are the text."""

import base64
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import rs_bytepiece
import tiktoken_ext.openai_public
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from costbank.errors import CorpusError, InputError, InputNotFoundError, TokenizerError
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.huggingface import byte_level_bytes
from costbank.tokenizers.tiktoken import PATTERNS
from costbank.vocab import TokenStatus

CODE = "def f(x):\r\n\treturn {'a': x}  # naïve\n\n\n    print(\"🙂👩‍👩‍👧\")\n"
SAMPLES = [
    "Hello world, the king!",
    CODE,
    "日本語のテキスト。\r\n次の行",
    "e\u0301 ﬁ  two  spaces",
    "a\u2028b\x0bc",
    "",
]


def _text(tokenizer, sample: str) -> str:
    ids, ends = tokenizer.encode([sample])
    assert ends.tolist() == [len(ids)]
    return b"".join(tokenizer.vocab.token(i) for i in ids.tolist()).decode()


@pytest.fixture(scope="session")
def byte_level(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE like GPT-2's, with two added tokens, one of them special, and an id without a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train([str(news)], trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens(["<tool>"])
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_a_path_may_be_a_string(byte_level: Path):
    fingerprint = load_tokenizer(byte_level).vocab.fingerprint
    assert load_tokenizer(str(byte_level)).vocab.fingerprint == fingerprint
    assert load_tokenizer(str(byte_level.parent)).vocab.fingerprint == fingerprint
    with pytest.raises(InputNotFoundError, match="missing"):
        load_tokenizer("missing.model")


@pytest.fixture(scope="session")
def metaspace(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unigram model with ▁ and byte fallback, like converted SentencePiece models."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=800, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train([str(news)], trainer)
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    content["model"]["byte_fallback"] = True
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("sample", SAMPLES)
def test_byte_level_bpe_gives_the_text_back(byte_level: Path, sample: str):
    assert _text(load_tokenizer(byte_level), sample) == sample


@pytest.mark.parametrize("sample", SAMPLES)
def test_metaspace_with_byte_fallback_gives_the_text_back(metaspace: Path, sample: str):
    assert _text(load_tokenizer(metaspace), sample) == (f" {sample}" if sample else "")


def test_wordpiece_gives_the_words_back(news: Path, tmp_path: Path):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train(
        [str(news)], trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]"], show_progress=False)
    )
    tokenizer.save(str(tmp_path / "t.json"))
    loaded = load_tokenizer(tmp_path / "t.json")
    assert _text(loaded, "The Minister said unbelievable") == " the minister said unbelievable"
    assert loaded.vocab.status_of(0) is TokenStatus.SPECIAL


def test_added_tokens_and_statuses_of_a_tokenizer_json(byte_level: Path, metaspace: Path):
    vocab = load_tokenizer(byte_level).vocab
    assert vocab.status_of(vocab.find("<|end|>")) is TokenStatus.SPECIAL
    assert vocab.status_of(vocab.find("<tool>")) is TokenStatus.OK
    assert _text(load_tokenizer(byte_level), "a <tool> b<|end|>") == "a <tool> b<|end|>"
    assert vocab.status_counts()["byte"] == 128 - 13
    fallback = load_tokenizer(metaspace).vocab
    assert fallback.status_counts()["byte"] == 256 - 13
    assert fallback.status_counts()["unused"] == 13  # bytes that UTF-8 cannot contain
    assert fallback.status_of(0) is fallback.status_of(1) is TokenStatus.SPECIAL


def test_the_byte_alphabet_is_the_librarys():
    assert sorted(byte_level_bytes(c) for c in pre_tokenizers.ByteLevel.alphabet()) == [bytes([b]) for b in range(256)]
    written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é\n日 \x7f")[0][0]
    assert byte_level_bytes(written) == "é\n日 \x7f".encode()


def test_the_fingerprint_survives_a_save_and_changes_with_an_id(byte_level: Path, tmp_path: Path):
    first = load_tokenizer(byte_level)
    Tokenizer.from_file(str(byte_level)).save(str(tmp_path / "again.json"), pretty=False)
    again = load_tokenizer(tmp_path / "again.json")
    assert again.vocab.fingerprint == first.vocab.fingerprint
    assert again.sha256 != first.sha256 or byte_level.read_bytes() == (tmp_path / "again.json").read_bytes()
    content = json.loads(byte_level.read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (tmp_path / "swapped.json").write_text(json.dumps(content))
    assert load_tokenizer(tmp_path / "swapped.json").vocab.fingerprint != first.vocab.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bytepiece_80k.model", "bytepiece.plus.40k.model"])
def test_bytepiece_ids_are_those_of_an_independent_implementation(shared_data: Path, model: str):
    ours, theirs = load_tokenizer(shared_data / model), rs_bytepiece.Tokenizer(str(shared_data / model))
    texts = [
        (shared_data / "japanese.txt").read_bytes().decode()[:150_000],
        (shared_data / "english.txt").read_bytes().decode()[:150_000],
        *SAMPLES,
        "<pad> <bos><eos>",
    ]
    for text in texts:
        ids, _ = ours.encode([text])
        assert ids.tolist() == theirs.encode(text)
        assert _text(ours, text) == unicodedata.normalize("NFC", text)
    ids, ends = ours.encode(texts)
    assert [len(part) for part in (ids[: ends[0]], ids[ends[0] : ends[1]])] == [
        len(theirs.encode(t)) for t in texts[:2]
    ]


@pytest.mark.slow
def test_a_line_of_four_megabytes_is_encoded_whole(shared_data: Path):
    ours = load_tokenizer(shared_data / "bytepiece_80k.model")
    text = (shared_data / "english.txt").read_text("utf-8")[:4_000_000].replace("\n", " ")
    ids, ends = ours.encode([text])
    assert ends.tolist() == [len(ids)]
    tokens = [ours.vocab.token(i) for i in range(ours.vocab.size)]
    assert b"".join(tokens[i] for i in ids.tolist()).decode() == unicodedata.normalize("NFC", text)


def test_bytepiece_vocabularies_keep_their_counts(shared_data: Path):
    vocab = load_tokenizer(shared_data / "bytepiece_80k.model").vocab
    assert vocab.size == 79_896
    assert [vocab.token(i) for i in (0, 1, 2, 3, 258)] == [b"<pad>", b"<bos>", b"<eos>", b"\x00", b"\xff"]
    assert vocab.counts[:5].tolist() == [-1, -1, -1, 12, 44_751]
    undecodable = sum(1 for i in range(vocab.size) if "\ufffd" in vocab.token(i).decode("utf-8", "replace"))
    assert undecodable >= 999


@pytest.fixture(scope="session")
def ranks(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many ranks as GPT-2 has: all bytes, then prefixes of the words of the news, then pairs of bytes."""
    words = Counter(word for line in news.read_bytes().splitlines() for word in line.split(b" "))
    tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
    for word, _ in words.most_common():
        tokens |= dict.fromkeys((b" " + word)[:end] for end in range(2, len(word) + 2))
    tokens |= dict.fromkeys(bytes([a, b]) for a in range(256) for b in range(256))
    path = tmp_path_factory.mktemp("tiktoken") / "x.tiktoken"
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(list(tokens)[:50_256]))
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("sample", SAMPLES)
def test_tiktoken_gives_the_text_back(ranks: Path, sample: str):
    assert _text(load_tokenizer(ranks), sample) == sample


def test_tiktoken_files_of_unknown_size_have_a_vocabulary_but_no_splitting_rule(ranks: Path, tmp_path: Path):
    part = tmp_path / "part.tiktoken"
    part.write_bytes(
        b"".join(line for line in ranks.read_bytes().splitlines(True)[:400] if not line.endswith(b" 300\n"))
    )
    tokenizer = load_tokenizer(part)
    assert tokenizer.vocab.size == 400
    assert tokenizer.vocab.status_of(300) is TokenStatus.UNUSED
    with pytest.raises(TokenizerError, match="399 ranks"):
        tokenizer.encode(["x"])


def test_the_splitting_rules_are_those_of_tiktoken():
    assert tiktoken_ext.openai_public.r50k_pat_str == PATTERNS[50_256]
    source = Path(tiktoken_ext.openai_public.__file__).read_text()
    assert PATTERNS[100_256] in source


def test_a_plain_list_has_a_token_a_line(tmp_path: Path):
    path = tmp_path / "labels.txt"
    path.write_text("<unk>\ncat\ngolden retriever\n日本\n")
    tokenizer = load_tokenizer(path)
    assert tokenizer.kind == "list"
    assert [tokenizer.vocab.display(i) for i in range(4)] == ["<unk>", "cat", "golden retriever", "日本"]
    assert tokenizer.vocab.status_of(0) is TokenStatus.SPECIAL
    assert tokenizer.encode(["cat dog", "日本 cat"])[0].tolist() == [1, 0, 3, 1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("a\n\nb\n", "line 2 is blank"), ("a\nb\na\n", "line 3 repeats line 1")],
)
def test_a_list_with_a_blank_or_double_line_is_refused(tmp_path: Path, content: str, problem: str):
    (tmp_path / "list").write_text(content)
    with pytest.raises(TokenizerError, match=problem):
        load_tokenizer(tmp_path / "list", "list")


def test_a_word_outside_a_list_without_unknown_is_named(tmp_path: Path):
    (tmp_path / "list").write_text("a\nb\n")
    with pytest.raises(TokenizerError, match="'c' is not in"):
        load_tokenizer(tmp_path / "list", "list").encode(["a c"])


def test_the_tokenizer_of_a_model_folder_is_found(byte_level: Path, tmp_path: Path):
    assert load_tokenizer(byte_level.parent).kind == "huggingface"
    with pytest.raises(InputNotFoundError, match="no tokenizer in the folder"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content",
    ['{"added_tokens": [], "model": {}}', '{"model": 1, "added_tokens"', "{}", '{"AA==": [3, "x", 1]}', '{"AA==": 3}',
     '{"?": [3, "x", 1]}', '{"AA==": [4, "x", 1]}', "[1]", "AA== x", "YQ== 0\nYg==\n", "the quick\nbrown fox\n"],
)  # fmt: skip
def test_files_that_are_not_tokenizers_are_refused_by_every_reader(tmp_path: Path, content: str):
    path = tmp_path / "tokenizer"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_tokenizer(path)
    assert caught.value.hint


def test_a_list_may_begin_with_a_byte_order_mark_and_in_utf16_it_is_named(tmp_path: Path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf[UNK]\r\nthe\r\nking\r\n")
    assert [load_tokenizer(path).vocab.token(i) for i in range(3)] == [b"[UNK]", b"the", b"king"]
    path.write_bytes("[UNK]\nthe\nking\n".encode("utf-16"))
    with pytest.raises(CorpusError, match=r"vocab\.txt is UTF-16 text, not UTF-8, at offset") as caught:
        load_tokenizer(path)
    assert "iconv -f UTF-16 -t UTF-8" in caught.value.hint


def _word_level(path: Path, ids: dict[str, int]) -> Path:
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    content = json.loads(path.read_text())
    content["model"]["vocab"] = ids
    path.write_text(json.dumps(content))
    return path


def test_an_id_out_of_range_is_refused(tmp_path: Path):
    path = _word_level(tmp_path / "tokenizer.json", {"a": 0, "b": 4_000_000_000})
    with pytest.raises(TokenizerError, match="has 2 tokens, so its id 4,000,000,000 is out of range"):
        load_tokenizer(path)
    # Ids can have gaps.
    assert load_tokenizer(_word_level(path, {"a": 0, "b": 60_000})).vocab.size == 60_001


def test_a_tokenizer_json_is_named_whatever_is_wrong_with_it(tmp_path: Path):
    good = _word_level(tmp_path / "good.json", {"a": 0, "b": 1}).read_bytes()
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xef\xbb\xbf" + good)
    assert load_tokenizer(path).vocab.size == 2
    for content in (b"[]", b"{}", b"", b"3", good[:-20], good.decode().encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises((TokenizerError, InputError), match=r"tokenizer\.json") as caught:
            load_tokenizer(path)
        assert "SentencePiece" not in caught.value.message
        assert "BytePiece" not in caught.value.message
        assert ("iconv" in caught.value.hint) is (content[:2] == b"\xff\xfe")


def test_a_piece_that_is_no_text_is_a_damaged_model(tmp_path: Path, news_model: Path):
    stored = news_model.read_bytes()
    at = stored.index(b"</s>")
    (tmp_path / "m.model").write_bytes(stored[:at] + b"<\xff\xfe>" + stored[at + 4 :])
    with pytest.raises(TokenizerError, match="damaged SentencePiece model"):
        load_tokenizer(tmp_path / "m.model")


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0", " ", "\t"])
def test_a_token_of_white_space_is_a_token(tmp_path: Path, blank: str):
    (tmp_path / "vocab.txt").write_text(f"a\n{blank}\nb\n", encoding="utf-8")
    vocab = load_tokenizer(tmp_path / "vocab.txt").vocab
    assert [vocab.token(i) for i in range(3)] == [b"a", blank.encode(), b"b"]


def test_lists_with_counts_are_refused(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("the\t500\nking\t-3.25\n")
    with pytest.raises(TokenizerError, match="a token, a tab and a number") as caught:
        load_tokenizer(tmp_path / "vocab.txt")
    assert "cut -f1" in caught.value.hint
    (tmp_path / "vocab.txt").write_text("the\t500\nking\n")
    assert load_tokenizer(tmp_path / "vocab.txt").vocab.token(0) == b"the\t500"
