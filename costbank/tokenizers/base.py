"""The interface of tokenizers, and helpers that several kinds share."""

import os
from collections.abc import Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, Integer

from costbank.machine import usable_cores
from costbank.vocab import TokenStatus, Vocab

__all__ = [
    "SamplingTokenizer",
    "Tokenizer",
    "byte_level_status",
    "encode_threads",
    "flatten",
    "flatten_parts",
    "merge_repeated_unknown",
]


class Tokenizer(Protocol):
    """A tokenizer that was read from a file.

    Attributes:
        kind: the name of the format, such as `sentencepiece`.
        libraries: the distributions whose versions decide how text is encoded.
        file: the name of the file.
        sha256: the sha256 of the file. It is part of the key of cached token ids, because two files with the same
            vocabulary can encode text differently.
        vocab: the bytes and the status of each id.
        added_ids: the ids of tokens that were added to the model's own. A head may have no rows for the last of them.
    """

    kind: str
    libraries: tuple[str, ...]
    file: str
    sha256: str
    vocab: Vocab
    added_ids: frozenset[int]

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode texts without adding special tokens.

        Returns:
            The ids of all texts in one array, and the position in this array at which each text ends.
        """
        ...


@runtime_checkable
class SamplingTokenizer(Tokenizer, Protocol):
    """A tokenizer that can sample a segmentation (subword regularization, Kudo 2018)."""

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode each text with a random segmentation.

        A unigram model samples a segmentation in proportion to its probability to the power of `alpha`. A BPE model
        skips each merge with the probability `alpha` (BPE-dropout, Provilkov et al. 2020). The result depends only on
        the text, its seed and `alpha`.

        Args:
            texts: the texts.
            alpha: see above.
            seeds: a seed for each text, from 0 to 2³² − 1.

        Returns:
            The same as `encode`.

        Raises:
            UsageError: the model has only one segmentation of each text, or `alpha` is out of range.
        """
        ...


def encode_threads() -> int:
    """The number of threads: all usable cores, or 1 if `$TOKENIZERS_PARALLELISM` is false, as in engine workers."""
    return 1 if os.environ.get("TOKENIZERS_PARALLELISM") == "false" else usable_cores()


def flatten(encoded: Sequence[Sequence[int]]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
    """A list of ids for each text, in the form that `Tokenizer.encode` returns."""
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    total = int(ends[-1]) if len(ends) else 0
    return np.fromiter(chain.from_iterable(encoded), np.int32, total), ends


def flatten_parts(
    encoded: Sequence[Sequence[int]], parts_of_text: Int64[np.ndarray, "texts"]
) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
    """Like `flatten`, from a list of ids for each part of a text and the number of parts of each text."""
    ids, part_ends = flatten(encoded)
    return ids, np.concatenate([[0], part_ends])[np.cumsum(parts_of_text)]


def merge_repeated_unknown(
    ids: Int32[np.ndarray, "tokens"], ends: Int64[np.ndarray, "texts"], unknown: int
) -> tuple[Int32[np.ndarray, "kept"], Int64[np.ndarray, "texts"]]:
    """Replace each run of the unknown id within a text by a single unknown id."""
    repeats = ids == unknown
    repeats[1:] &= repeats[:-1]
    repeats[:1] = False
    repeats[ends[ends < len(ids)]] = False
    return ids[~repeats], ends - np.concatenate([[0], np.cumsum(repeats)])[ends]


def byte_level_status(token: bytes) -> TokenStatus:
    """The status of an ordinary byte-level token: `BYTE` for one byte that is not a character by itself."""
    return TokenStatus.BYTE if len(token) == 1 and token[0] >= 0x80 else TokenStatus.OK
