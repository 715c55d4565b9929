"""What every kind of tokenizer offers to the rest of costbank."""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int64, Integer

from costbank.vocab import TokenStatus, Vocab

__all__ = ["Tokenizer", "TokenizerKind", "joined", "status_of_bytes"]

TokenizerKind = Literal["auto", "sentencepiece", "huggingface", "bytepiece", "tiktoken", "gguf", "list"]


class Tokenizer(Protocol):
    """A tokenizer read from a file.

    Attributes:
        kind: the format's name, such as `sentencepiece`.
        libraries: distributions whose versions decide how text is encoded.
        file: the name of the file that was read.
        sha256: of the file. Two files of one vocabulary may encode differently, so encoded text is kept under this.
        vocab: what the ids stand for.
    """

    kind: str
    libraries: tuple[str, ...]
    file: str
    sha256: str
    vocab: Vocab

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode texts, without adding special tokens.

        Returns:
            The ids of all texts, one after the other, and where each text ends in them.
        """
        ...


def joined(encoded: Sequence[Sequence[int]]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
    """Lists of ids as `Tokenizer.encode` returns them."""
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    total = int(ends[-1]) if len(ends) else 0
    return np.fromiter(chain.from_iterable(encoded), np.int32, total), ends


def status_of_bytes(token: bytes) -> TokenStatus:
    """The status of an ordinary token of a byte-level vocabulary: one byte that is no character by itself is `BYTE`."""
    return TokenStatus.BYTE if len(token) == 1 and token[0] >= 0x80 else TokenStatus.OK
