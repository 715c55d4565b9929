"""tiktoken files: one line a token, its bytes in base64 and its rank, which is its id."""

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
from costbank.tokenizers.added_tokens import Entry, read_settings, with_added
from costbank.tokenizers.base import encode_threads, joined, status_of_bytes
from costbank.tokenizers.placeholders import vocab_of
from costbank.vocab import TokenStatus

__all__ = ["TiktokenTokenizer", "encoding_of", "entry_of_bytes", "is_tiktoken"]

_GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"""
    r"""|\s*[\r\n]|\s+(?!\S)|\s"""
)
_LLAMA3 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_MOST_GAP = 16
_PATTERNS = {50_256: _GPT2, 100_256: _CL100K, 128_000: _LLAMA3}
"""How text is split before merging, by the number of ranks: the file itself does not say it."""


def is_tiktoken(head: bytes) -> bool:
    """Whether a file's first line is base64, a space and a number."""
    token, _, rank = head.split(b"\n", 1)[0].strip().partition(b" ")
    try:
        return bool(base64.b64decode(token, validate=True)) and rank.isdigit()
    except binascii.Error:
        return False


class TiktokenTokenizer:
    """A tiktoken file behind the interface of `costbank.tokenizers.Tokenizer`.

    Special tokens are not in the file. Those that a tokenizer_config.json next to it lists are read from there; the ids
    of others lie past the vocabulary. Text can be encoded where the number of ranks is that of a known encoding
    (GPT-2's, cl100k, Llama 3's).

    Attributes:
        ranks: the id of each token in the file.

    Raises:
        TokenizerError: a line is not a token and rank, or a file next to it contradicts it.
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
                    f"{path} line {number} is not a token in base64 and its rank", "name a .tiktoken file"
                ) from None
        ranks = set(self.ranks.values())
        if not ranks or min(ranks) < 0 or len(ranks) < lines or max(ranks) >= _MOST_GAP * lines:
            raise TokenizerError(
                f"{path} does not give each of its {lines:,} tokens a rank of its own from 0 on",
                "name a .tiktoken file",
            )
        size = max(self.ranks.values()) + 1
        entries = [Entry("", b"", TokenStatus.UNUSED)] * size
        for token, rank in self.ranks.items():
            entries[rank] = entry_of_bytes(token)
        entries, self.added_ids = with_added(entries, read_settings(path), path, reads_spaces=False)
        self.vocab = vocab_of([entry.token for entry in entries], [entry.status for entry in entries])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return joined(self._encoding.encode_ordinary_batch(list(texts), num_threads=encode_threads()))

    @property
    def pattern(self) -> str:
        """How text is split before merging, in the syntax of tiktoken.

        Raises:
            TokenizerError: the number of ranks is that of no known encoding.
        """
        pattern = _PATTERNS.get(len(self.ranks))
        if pattern is None:
            raise TokenizerError(
                f"{self._path} has {len(self.ranks):,} ranks, of which no splitting rule is known",
                "use the model's tokenizer.json to encode text; a bank from its head needs no encoding",
            )
        return pattern

    @cached_property
    def _encoding(self) -> Any:
        return encoding_of(self.pattern, self.ranks)


def entry_of_bytes(token: bytes) -> Entry:
    return Entry(token.decode("utf-8", "surrogateescape"), token, status_of_bytes(token))


def encoding_of(pattern: str, ranks: dict[bytes, int]) -> Any:
    """tiktoken's own encoder of these ranks, without special tokens."""
    tiktoken = require("tiktoken", "build")
    return tiktoken.Encoding("costbank", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
