"""tiktoken files: on each line, the bytes of a token in base64, and its rank, which is its id."""

import base64
import binascii
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, require
from costbank.files import sha256_file
from costbank.tokenizers.added_tokens import UNUSED_ENTRY, VocabEntry, add_tokens, read_settings, vocab_of_entries
from costbank.tokenizers.base import byte_level_status, encode_threads, flatten

__all__ = ["PATTERNS", "TiktokenTokenizer", "is_tiktoken", "tiktoken_encoding"]

_GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"""
    r"""|\s*[\r\n]|\s+(?!\S)|\s"""
)
_LLAMA3 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_MAX_RANKS_PER_LINE = 16
PATTERNS = {50_256: _GPT2, 100_256: _CL100K, 128_000: _LLAMA3}
"""The expression that splits text before merging, by the number of ranks. A tiktoken file does not contain it."""


def is_tiktoken(head: bytes) -> bool:
    """Whether a file's first line is base64, a space and a number."""
    token, _, rank = head.split(b"\n", 1)[0].strip().partition(b" ")
    try:
        return bool(base64.b64decode(token, validate=True)) and rank.isdigit()
    except binascii.Error:
        return False


class TiktokenTokenizer:
    """A tiktoken file as a `costbank.tokenizers.Tokenizer`.

    The file does not contain special tokens. They are read from a tokenizer_config.json next to it; the ids of other
    special tokens are outside the vocabulary. Text can be encoded if the number of ranks is that of a known encoding
    (GPT-2's, cl100k or Llama 3's).

    Attributes:
        ranks: the id of each token in the file.

    Raises:
        TokenizerError: a line is not a token and its rank, or a file next to it contradicts it.
    """

    kind = "tiktoken"
    libraries: tuple[str, ...] = ("tiktoken",)

    def __init__(self, path: Path) -> None:
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        self._path = path
        self.ranks: dict[bytes, int] = {}
        lines = 0
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                token, rank = line.split()
                self.ranks[base64.b64decode(token, validate=True)] = int(rank)
                lines += 1
            except (ValueError, binascii.Error):
                raise TokenizerError(
                    f"{path} line {number} is not a token in base64 followed by its rank", "give a .tiktoken file"
                ) from None
        ranks = set(self.ranks.values())
        if not ranks or min(ranks) < 0 or len(ranks) < lines or max(ranks) >= _MAX_RANKS_PER_LINE * lines:
            raise TokenizerError(
                f"{path} does not give each of its {lines:,} tokens a different rank, counted from 0",
                "give a .tiktoken file",
            )
        entries = [UNUSED_ENTRY] * (max(ranks) + 1)
        for token, rank in self.ranks.items():
            entries[rank] = _entry(token)
        entries, self.added_ids = add_tokens(entries, read_settings(path), path, metaspace=False)
        self.vocab = vocab_of_entries(entries)

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return flatten(self._encoding.encode_ordinary_batch(list(texts), num_threads=encode_threads()))

    @property
    def pattern(self) -> str:
        """The expression that splits text before merging, in the syntax of tiktoken.

        Raises:
            TokenizerError: no known encoding has this number of ranks.
        """
        pattern = PATTERNS.get(len(self.ranks))
        if pattern is None:
            raise TokenizerError(
                f"{self._path} has {len(self.ranks):,} ranks, and no known encoding has this number",
                "use the model's tokenizer.json to encode text; a bank from the model's head needs no encoding",
            )
        return pattern

    @cached_property
    def _encoding(self) -> Any:
        return tiktoken_encoding(self.pattern, self.ranks)


def _entry(token: bytes) -> VocabEntry:
    return VocabEntry(token.decode("utf-8", "surrogateescape"), token, byte_level_status(token))


def tiktoken_encoding(pattern: str, ranks: dict[bytes, int]) -> Any:
    """tiktoken's encoder for these ranks, without special tokens."""
    tiktoken = require("tiktoken", "build")
    return tiktoken.Encoding("costbank", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
