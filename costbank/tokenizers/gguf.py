"""The vocabulary stored in a GGUF file. It has the bytes of each id, but cannot encode text."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.checkpoints import GGUFFile
from costbank.errors import TokenizerError
from costbank.tokenizers.base import byte_level_status
from costbank.tokenizers.huggingface import byte_level_bytes
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import build_vocab
from costbank.vocab import TokenStatus

__all__ = ["GGUFTokenizer"]

_TOKENS = "tokenizer.ggml.tokens"
_UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 2, 3, 4, 5, 6
_WORD_START = "▁"
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[^x]|.?)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PADDING = re.compile(r"\[PAD\d+\]")  # llama.cpp writes this for a row without a token


class GGUFTokenizer:
    """The vocabulary in the metadata of a GGUF file as a `costbank.tokenizers.Tokenizer`.

    Raises:
        TokenizerError: the file has no tokens, or they are broken.
    """

    kind = "gguf"
    libraries: tuple[str, ...] = ("gguf",)
    added_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        file = GGUFFile.open(path)
        tokens = file.strings(_TOKENS)
        if tokens is None:
            raise TokenizerError(f"{path} contains no tokens", "give --tokenizer FILE")
        stored_types = file.numbers("tokenizer.ggml.token_type")
        types = [1] * len(tokens) if stored_types is None else stored_types.tolist()
        model = str(file.value("tokenizer.ggml.model") or "llama")
        if len(types) != len(tokens):
            raise TokenizerError(
                f"{path} has {len(tokens):,} tokens and {len(types):,} token types", "download or convert it again"
            )
        digest = hashlib.sha256(f"{model}\n".encode("utf-8", "surrogateescape"))
        for token, kind in zip(tokens, types, strict=True):
            digest.update(len(token).to_bytes(4, "little") + token + f"{kind}\n".encode())
        self.file, self.sha256 = path.name, digest.hexdigest()
        try:
            decoded = [_decode(token, kind, model) for token, kind in zip(tokens, types, strict=True)]
        except ValueError as error:
            raise TokenizerError(f"{path}: {error}", "download or convert it again") from None
        self.vocab = build_vocab([token for token, _ in decoded], [status for _, status in decoded])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        raise TokenizerError(
            f"the vocabulary of a GGUF file cannot encode text ({len(texts)} texts were given)",
            "give a tokenizer file that can: a tokenizer.json or a SentencePiece model",
        )


def _decode(stored: bytes, kind: int, model: str) -> tuple[bytes, TokenStatus]:
    """The bytes and the status of a token, by its type in the file and the tokenizer model."""
    if model == "rwkv":
        stored = _unescaped(stored)
    text = stored.decode("utf-8", "surrogateescape")
    if kind in (_UNKNOWN, _CONTROL):
        return stored, TokenStatus.SPECIAL
    if kind == _UNUSED:
        return b"" if _PADDING.fullmatch(text) else stored, TokenStatus.UNUSED
    if kind == _BYTE:
        if not (match := _BYTE_PIECE.fullmatch(text)):
            raise ValueError(f"the byte piece {text!r} is not written as <0x41>")
        return bytes([int(match[1], 16)]), TokenStatus.BYTE
    if kind == _USER:
        if is_markup(text):
            return stored, TokenStatus.SPECIAL
        byte_level = model == "gpt2"  # such models do not write spaces as ▁
        return (stored if byte_level else stored.replace(_WORD_START.encode(), b" ")), TokenStatus.OK
    if model == "rwkv":
        return stored, byte_level_status(stored)
    if model == "gpt2":
        token = byte_level_bytes(text)
        return token, byte_level_status(token)
    return text.replace(_WORD_START, " ").encode("utf-8", "surrogateescape"), TokenStatus.OK


def _unescaped(stored: bytes) -> bytes:
    """Undo the escapes of Python literals that RWKV's tokens contain: `\\xe4\\xbd`, `\\n`, `\\\\`."""

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if len(code) == 3:
            return bytes([int(code[1:], 16)])
        if code in (b"", b"x"):
            raise ValueError(f"the token {stored.decode('utf-8', 'backslashreplace')!r} has a broken escape")
        return _ESCAPED.get(code, code)

    return _ESCAPE.sub(byte, stored)
