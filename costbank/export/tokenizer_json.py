"""Convert a bank's tokenizer to a tokenizer.json, and check that it gives the same ids."""

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costbank.bank import Bank
from costbank.encodings import without_mark
from costbank.errors import TokenizerError, require
from costbank.export.sentencepiece_conversion import from_sentencepiece
from costbank.export.tokenizer_conversion import from_bytepiece, from_ranks, from_word_list
from costbank.tokenizers import Tokenizer
from costbank.tokenizers.of_bank import tokenizer_of_bank
from costbank.vocab import Vocab

__all__ = ["TokenizerJson", "convert_tokenizer", "probe_texts"]

_UNUSUAL_TEXTS = (
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
_COMPOSED_TEXTS = ("Tiếng Việt", "한국어", "ガギグ", "naïve café", "Ĉu ŝi", "x̂ Ĝ ①\u0301")
_MAX_TOKEN_TEXTS = 20_000
_MIXED_TEXTS = 1_000
_TOKENS_IN_MIXED = 24
_SEED = 1

_Conversion = Callable[[Any, Path], bytes]
"""Makes the content of a tokenizer.json from a tokenizer and the path of its file."""


@dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json for the library `tokenizers`.

    Attributes:
        content: the bytes of the file.
        tokens: the number of token ids in it.
        warning: names a text that gets other ids than with the original tokenizer; empty if none is known.
    """

    content: bytes = b""
    tokens: int = 0
    warning: str = ""


def _without_truncation(_tokenizer: Tokenizer, path: Path) -> bytes:
    """A tokenizer.json without truncation and padding, which would change the ids of a text."""
    content = without_mark(path.read_bytes())
    settings: dict[str, Any] = json.loads(content)
    if settings.get("truncation") is None and settings.get("padding") is None:
        return content
    return json.dumps(settings | {"truncation": None, "padding": None}, ensure_ascii=False).encode()


def _from_own_library(original: Any, _path: Path) -> bytes:
    return original.tokenizer_json()


_CONVERSIONS: dict[str, _Conversion] = {
    "huggingface": _without_truncation,
    "sentencepiece": from_sentencepiece,
    "bytepiece": from_bytepiece,
    "tiktoken": from_ranks,
    "tekken": from_ranks,
    "vocab-merges": _from_own_library,
    "wordpiece": _from_own_library,
    "list": from_word_list,
}


def convert_tokenizer(path: Path, bank: Bank, conversions: Mapping[str, _Conversion] = _CONVERSIONS) -> TokenizerJson:
    """Convert the tokenizer of a bank to a tokenizer.json, and compare the ids of many texts.

    Args:
        path: the tokenizer's file, or a model folder with one.
        bank: the bank, with the fingerprint of its tokenizer.
        conversions: a conversion for each kind of tokenizer.

    Raises:
        InputNotFoundError: the file does not exist, or the folder has no tokenizer.
        TokenizerError: the fingerprint differs, the kind cannot be converted, or a text gets other ids.
    """
    original, path = tokenizer_of_bank(bank, path)
    if original.kind not in conversions:
        raise TokenizerError(
            f"{path} contains tokens but not the rules that split text into them, so it cannot be converted to a "
            "tokenizer.json",
            "give the tokenizer.json or the SentencePiece model of the same model, or export to a format without a "
            "tokenizer",
        )
    content = conversions[original.kind](original, path)
    converted = require("tokenizers", "export").Tokenizer.from_buffer(content)
    texts = _line_texts(original.vocab) if original.kind == "list" else probe_texts(original.vocab)
    if difference := _first_difference(original, converted, texts):
        raise TokenizerError(
            f"{path} cannot be converted to a tokenizer.json: {difference.text[:80]!r} would get the ids "
            f"{difference.converted[:8]} instead of {difference.original[:8]}",
            "give a tokenizer.json of the same vocabulary, or export to a format without a tokenizer",
        )
    warning = ""
    if original.kind == "sentencepiece" and (difference := _first_difference(original, converted, _decomposed_texts())):
        warning = (
            "the library tokenizers and SentencePiece normalize combining characters differently: the ids of "
            f"{difference.text!r} in form NFD differ; most text is in form NFC, which is hardly affected"
        )
    return TokenizerJson(content, converted.get_vocab_size(), warning)


def probe_texts(vocab: Vocab) -> list[str]:
    """Texts that reveal different ids: unusual ones, single tokens, and sequences of random tokens."""
    step = max(1, vocab.size // _MAX_TOKEN_TEXTS)
    tokens = [vocab.token(i).decode("utf-8", "replace") for i in range(0, vocab.size, step)]
    random = np.random.default_rng(_SEED)
    mixed = ["".join(tokens[i] for i in random.integers(0, len(tokens), _TOKENS_IN_MIXED)) for _ in range(_MIXED_TEXTS)]
    return [*_UNUSUAL_TEXTS, *tokens, *mixed]


@dataclass(frozen=True)
class _Difference:
    text: str
    original: list[int]
    converted: list[int]


def _first_difference(original: Tokenizer, converted: Any, texts: Sequence[str]) -> _Difference | None:
    ids, ends = original.encode(texts)
    encodings = converted.encode_batch_fast(texts, add_special_tokens=False)
    for text, expected, encoding in zip(texts, np.split(ids, ends[:-1]), encodings, strict=True):
        if expected.tolist() != encoding.ids:
            return _Difference(text, expected.tolist(), encoding.ids)
    return None


def _decomposed_texts() -> list[str]:
    return [unicodedata.normalize("NFD", text) for text in _COMPOSED_TEXTS]


def _line_texts(vocab: Vocab) -> list[str]:
    """Texts made of a list's own lines, because a list may have no token for other words."""
    lines = [line for line in (vocab.token(i).decode() for i in range(vocab.size)) if len(line.split()) == 1]
    return [*lines, "  ".join(lines[:1_000]), "\n\u3000".join(reversed(lines[-1_000:])), ""]
