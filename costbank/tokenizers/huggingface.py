"""`tokenizer.json` files of the `tokenizers` library: byte-level BPE, Metaspace, WordPiece, word level."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.encodings import certain_encoding, without_mark
from costbank.errors import CostbankError, TokenizerError, require
from costbank.files import sha256_file
from costbank.token_names import BYTE_LEVEL_ALPHABET
from costbank.tokenizers.added_tokens import check_largest_id
from costbank.tokenizers.base import byte_level_status, flatten
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import build_vocab
from costbank.vocab import TokenStatus, Vocab

__all__ = ["HuggingFaceTokenizer", "byte_level_bytes", "byte_level_text"]

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_LETTERS = {byte: letter for letter, byte in BYTE_LEVEL_ALPHABET.items()}


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a byte-level token. Characters outside the byte-level alphabet are encoded as UTF-8."""
    return b"".join(
        bytes([BYTE_LEVEL_ALPHABET[c]]) if c in BYTE_LEVEL_ALPHABET else c.encode("utf-8", "replace") for c in token
    )


def byte_level_text(token: bytes) -> str:
    """The byte-level token for these bytes."""
    return "".join(_LETTERS[byte] for byte in token)


class HuggingFaceTokenizer:
    """A `tokenizer.json` as a `costbank.tokenizers.Tokenizer`.

    Added tokens represent their literal text. Those marked special are special, and so is the unknown token. Ids
    without a token are unused.

    Raises:
        TokenizerError: the file is not a tokenizer, or the installed `tokenizers` cannot read it.
    """

    kind = "huggingface"
    libraries: tuple[str, ...] = ("tokenizers",)

    def __init__(self, path: Path) -> None:
        tokenizers = require("tokenizers", "build")
        self._path = path
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        try:
            stored = self._read_json(path)
            content = json.loads(stored)
            if not isinstance(content, dict) or "model" not in content:
                raise ValueError("it does not contain a tokenizer")
            self._tokenizer = tokenizers.Tokenizer.from_buffer(stored)
        except CostbankError:
            raise
        except Exception as error:  # the library raises nothing more precise
            raise TokenizerError(
                f"{path} cannot be read as a tokenizer.json: {str(error)[:200]}",
                "check the file, or upgrade tokenizers",
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab = self._read_vocab(content)
        self.added_ids = frozenset(self._tokenizer.get_added_tokens_decoder())

    def _read_json(self, path: Path) -> bytes:
        stored = without_mark(path.read_bytes())
        if encoding := certain_encoding(stored):
            raise TokenizerError(
                f"{path} is {encoding.name} text, but a tokenizer.json must be UTF-8",
                f"convert it: {encoding.conversion(str(path))}",
            )
        return stored

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return flatten([e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)])

    def _read_vocab(self, content: dict[str, Any]) -> Vocab:
        by_text: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        largest = max(by_text.values(), default=-1)
        check_largest_id(self._path, largest, len(by_text), self.file)
        size = largest + 1
        tokens, status = [b""] * size, [TokenStatus.UNUSED] * size
        decode_token, metaspace = _token_decoder(content), _has_metaspace(content)
        for text, token_id in by_text.items():
            tokens[token_id], status[token_id] = decode_token(text)
        for token_id, added in self._tokenizer.get_added_tokens_decoder().items():
            # A decoder also turns ▁ into spaces in added tokens, such as Gemma's. Special tokens are not decoded.
            special = added.special or is_markup(added.content)
            text = added.content if special or not metaspace else added.content.replace("▁", " ")
            tokens[token_id] = text.encode("utf-8", "replace")
            status[token_id] = TokenStatus.SPECIAL if special else TokenStatus.OK
        unknown = content["model"].get("unk_token")
        if isinstance(unknown, str) and unknown in by_text:
            tokens[by_text[unknown]], status[by_text[unknown]] = unknown.encode(), TokenStatus.SPECIAL
        unknown_id = content["model"].get("unk_id")
        if isinstance(unknown_id, int):
            tokens[unknown_id] = content["model"]["vocab"][unknown_id][0].encode()
            status[unknown_id] = TokenStatus.SPECIAL
        return build_vocab(tokens, status)


def _token_decoder(content: dict[str, Any]) -> Callable[[str], tuple[bytes, TokenStatus]]:
    """The function that returns the bytes and the status of a token of this tokenizer, by its text in the file."""
    model = content["model"]
    components = {component.get("type") for component in _components(content)}
    metaspace = _has_metaspace(content)
    suffix = model.get("end_of_word_suffix") or ""
    prefix = model.get("continuing_subword_prefix") or ""
    wordpiece = model.get("type") == "WordPiece"

    def decode(text: str) -> tuple[bytes, TokenStatus]:
        if (model.get("byte_fallback") or "ByteFallback" in components) and (byte := _BYTE_PIECE.fullmatch(text)):
            return bytes([int(byte[1], 16)]), TokenStatus.BYTE
        ends_word = bool(suffix) and text.endswith(suffix)
        text = text.removesuffix(suffix) if ends_word else text
        if prefix and text.startswith(prefix):
            text = text.removeprefix(prefix)
        elif wordpiece:
            text = f" {text}"
        if "ByteLevel" in components:
            token = byte_level_bytes(text) + (b" " if ends_word else b"")
            return token, byte_level_status(token)
        text = text.replace("▁", " ") if metaspace else text
        return (text + (" " if ends_word else "")).encode("utf-8", "replace"), TokenStatus.OK

    return decode


def _components(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The normalizers, pre-tokenizers and decoders, including those inside sequences."""
    return [part for name in ("normalizer", "pre_tokenizer", "decoder") for part in _with_inner(content.get(name))]


def _has_metaspace(content: dict[str, Any]) -> bool:
    """Whether ▁ in a token means a space."""
    return any(part.get("type") == "Metaspace" or _replaces_metaspace(part) for part in _components(content))


def _with_inner(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if component:
        yield component
        for name in ("normalizers", "pretokenizers", "decoders"):
            for inner in component.get(name, []):
                yield from _with_inner(inner)


def _replaces_metaspace(component: dict[str, Any]) -> bool:
    texts = component.get("content"), component.get("pattern", {}).get("String")
    return component.get("type") == "Replace" and "▁" in texts
