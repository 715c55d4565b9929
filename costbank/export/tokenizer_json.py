"""A bank's tokenizer as a tokenizer.json: taken as it is, or expressed anew and proven to give the same ids."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costbank.bank import Bank
from costbank.encodings import without_mark
from costbank.errors import TokenizerError, require
from costbank.export.sentencepiece_conversion import from_sentencepiece
from costbank.export.tokenizer_conversion import byte_level_bpe, byte_level_unigram, word_list
from costbank.tokenizers import Tokenizer, find_tokenizer, load_tokenizer
from costbank.vocab import Vocab

__all__ = ["TokenizerJson", "proof_texts", "tokenizer_json"]

_SAMPLES = (
    "Hello world, the king!",
    " a space before, one after ",
    "two  spaces,   three and a tab\tand\r\nlines\n\n\n  of text\n",
    "def f(x):\n    return {'a': [1, 2.5, 0xFF]}  # it's naïve\n",
    "日本語のテキスト。全角（１２３）ｱｲｳ 한국어 中文。",
    "e\u0301 ﬁ ½ № Ünïcödé ЖЁ עברית العربية ไทย हिन्दी",
    "🙂👩‍👩‍👧🇯🇵 a\u2028b\x0bc\u00a0d\u3000e\u200bf\x00\x1f",
    "▁ literal ▁▁marks Ġ and Ċ",
    "<s> </s> <unk> <pad> <bos><eos> [UNK] <0x0A><0xE4> <|endoftext|>",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 1234567890123 I'll WE'VE DON'T",
    "a",
    " ",
    "",
)
_APART = ("Tiếng Việt", "한국어", "ガギグ", "naïve café", "Ĉu ŝi", "x̂ Ĝ ①\u0301")
_MOST_TOKEN_TEXTS = 20_000
_MIXED_TEXTS = 1_000
_TOKENS_IN_MIXED = 24
_SEED = 1


@dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json, as the library `tokenizers` will use it.

    Attributes:
        content: its bytes.
        tokens: how many ids it names.
        caution: a remark for people on texts of which its ids are not the original's; empty where none is known.
    """

    content: bytes
    tokens: int
    caution: str = ""


def tokenizer_json(path: Path, bank: Bank) -> TokenizerJson:
    """The tokenizer of a bank as a tokenizer.json that gives the same ids.

    Args:
        path: the tokenizer's file, or a model folder that holds one.
        bank: the bank; its fingerprint decides whether this is its tokenizer.

    Raises:
        InputNotFoundError: there is no such file, or none in the folder.
        TokenizerError: it is another tokenizer than the bank's, or it cannot be expressed; where ids differ, the
            message holds a text of which they do.
    """
    facts = bank.manifest.tokenizer
    path = find_tokenizer(path) if path.is_dir() else path
    original = load_tokenizer(path, "list" if facts.kind == "list" else "auto")
    if original.vocab.fingerprint != facts.fingerprint:
        raise TokenizerError(
            f"{path} is not the tokenizer of this bank: its fingerprint is {original.vocab.fingerprint[:16]}…, "
            f"and the bank's is {facts.fingerprint[:16]}…",
            f"give the one that the bank was made with: {facts.file} ({facts.kind})",
        )
    if original.kind not in _EXPRESSIONS:
        raise TokenizerError(
            f"{path} holds tokens but not the rules that split text into them, so it cannot be expressed as a "
            "tokenizer.json",
            "give the tokenizer.json or the SentencePiece model of the same model, or export to a format without a "
            "tokenizer",
        )
    content = _EXPRESSIONS[original.kind](original, path)
    expressed = require("tokenizers", "export").Tokenizer.from_buffer(content)
    texts = _words(original.vocab) if original.kind == "list" else proof_texts(original.vocab)
    if found := _first_difference(original, expressed, texts):
        raise TokenizerError(
            f"{path} cannot be expressed as a tokenizer.json: the ids of {found.text[:80]!r} would be "
            f"{found.expressed[:8]} instead of {found.original[:8]}",
            "give a tokenizer.json of the same vocabulary, or export to a format without a tokenizer",
        )
    caution = ""
    if original.kind == "sentencepiece" and (found := _first_difference(original, expressed, _decomposed())):
        caution = (
            "the library tokenizers normalises letters with separate combining marks otherwise than SentencePiece: "
            f"ids differ for {found.text!r} in form NFD; NFC, in which text usually is, avoids most of this"
        )
    return TokenizerJson(content, expressed.get_vocab_size(), caution)


def proof_texts(vocab: Vocab) -> list[str]:
    """Texts in which ids could differ: odd ones of every kind, tokens by themselves, and tokens in any order."""
    step = max(1, vocab.size // _MOST_TOKEN_TEXTS)
    tokens = [vocab.token(i).decode("utf-8", "replace") for i in range(0, vocab.size, step)]
    random = np.random.default_rng(_SEED)
    mixed = ["".join(tokens[i] for i in random.integers(0, len(tokens), _TOKENS_IN_MIXED)) for _ in range(_MIXED_TEXTS)]
    return [*_SAMPLES, *tokens, *mixed]


@dataclass(frozen=True)
class _Difference:
    text: str
    original: list[int]
    expressed: list[int]


def _first_difference(original: Tokenizer, expressed: Any, texts: list[str]) -> _Difference | None:
    ids, ends = original.encode(texts)
    encoded = expressed.encode_batch_fast(texts, add_special_tokens=False)
    for text, wanted, found in zip(texts, np.split(ids, ends[:-1]), encoded, strict=True):
        if wanted.tolist() != found.ids:
            return _Difference(text, wanted.tolist(), found.ids)
    return None


def _decomposed() -> list[str]:
    return [unicodedata.normalize("NFD", text) for text in _APART]


def _words(vocab: Vocab) -> list[str]:
    """Texts of a list's own lines: a list may have no token for any other word."""
    lines = [line for line in (vocab.token(i).decode() for i in range(vocab.size)) if len(line.split()) == 1]
    return [*lines, "  ".join(lines[:1_000]), "\n\u3000".join(reversed(lines[-1_000:])), ""]


def _as_it_is(_tokenizer: Tokenizer, path: Path) -> bytes:
    """Without truncation and padding, which would make the mean that of other ids than the text's."""
    content = without_mark(path.read_bytes())
    settings: dict[str, Any] = json.loads(content)
    if settings.get("truncation") is None and settings.get("padding") is None:
        return content
    return json.dumps(settings | {"truncation": None, "padding": None}, ensure_ascii=False).encode()


def _by_itself(original: Any, _path: Path) -> bytes:
    return original.tokenizer_json()


_EXPRESSIONS: dict[str, Callable[[Any, Path], bytes]] = {
    "huggingface": _as_it_is,
    "sentencepiece": from_sentencepiece,
    "bytepiece": byte_level_unigram,
    "tiktoken": byte_level_bpe,
    "tekken": byte_level_bpe,
    "vocab-merges": _by_itself,
    "wordpiece": _by_itself,
    "list": word_list,
}
