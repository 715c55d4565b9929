"""What every kind of tokenizer offers to the rest of costbank."""

import os
from collections.abc import Sequence
from itertools import chain
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, Integer

from costbank.machine import usable_cores
from costbank.vocab import TokenStatus, Vocab

__all__ = [
    "SamplingTokenizer",
    "Tokenizer",
    "TokenizerKind",
    "encode_threads",
    "joined",
    "status_of_bytes",
    "without_repeats",
]

TokenizerKind = Literal[
    "auto",
    "sentencepiece",
    "huggingface",
    "bytepiece",
    "tiktoken",
    "tekken",
    "vocab-merges",
    "wordpiece",
    "gguf",
    "list",
]


class Tokenizer(Protocol):
    """A tokenizer read from a file.

    Attributes:
        kind: the format's name, such as `sentencepiece`.
        libraries: distributions whose versions decide how text is encoded.
        file: the name of the file that was read.
        sha256: of the file. Two files of one vocabulary may encode differently, so encoded text is kept under this.
        vocab: what the ids stand for.
        added_ids: of the tokens that were added to the model's own. A head may have no rows for the last of them.
    """

    kind: str
    libraries: tuple[str, ...]
    file: str
    sha256: str
    vocab: Vocab
    added_ids: frozenset[int]

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode texts, without adding special tokens.

        Returns:
            The ids of all texts, one after the other, and where each text ends in them.
        """
        ...


@runtime_checkable
class SamplingTokenizer(Tokenizer, Protocol):
    """A tokenizer that can draw a segmentation at random (subword regularization, Kudo 2018)."""

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode each text by a segmentation drawn with a seed of its own, 0 to 2³² − 1.

        A unigram model draws a segmentation in proportion to its probability to the power of `alpha`; a BPE model
        leaves out each merge with the probability `alpha` (BPE-dropout, Provilkov et al. 2020). What is drawn depends
        on the text, its seed and `alpha` alone.

        Returns:
            As `encode` does.

        Raises:
            UsageError: the model cannot be drawn from, or not with such an `alpha`.
        """
        ...


def encode_threads() -> int:
    """A core each, unless the variable that `tokenizers` heeds says otherwise, as it does in workers of an engine."""
    return 1 if os.environ.get("TOKENIZERS_PARALLELISM") == "false" else usable_cores()


def joined(encoded: Sequence[Sequence[int]]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
    """Lists of ids as `Tokenizer.encode` returns them."""
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    total = int(ends[-1]) if len(ends) else 0
    return np.fromiter(chain.from_iterable(encoded), np.int32, total), ends


def without_repeats(
    ids: Int32[np.ndarray, "tokens"], ends: Int64[np.ndarray, "texts"], repeated: int
) -> tuple[Int32[np.ndarray, "kept"], Int64[np.ndarray, "texts"]]:
    """Texts with one id where an id, that of unknown characters, was several times in a row."""
    again = ids == repeated
    again[1:] &= again[:-1]
    again[:1] = False
    again[ends[ends < len(ids)]] = False
    return ids[~again], ends - np.concatenate([[0], np.cumsum(again)])[ends]


def status_of_bytes(token: bytes) -> TokenStatus:
    """The status of an ordinary byte-level token: one byte that is not a character by itself is `BYTE`."""
    return TokenStatus.BYTE if len(token) == 1 and token[0] >= 0x80 else TokenStatus.OK
