"""A corpus as token ids of one tokenizer, in parts that are mapped from disk when they are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from costbank.corpus.digests import FileState, refuse_changed
from costbank.corpus.entries import EncodedPart
from costbank.engines import Engine, Report
from costbank.files import InputFile

__all__ = ["EncodedCorpus", "token_counts"]

_COUNT_BLOCK_TOKENS = 1 << 20
_COUNT_SHARD_TOKENS = 1 << 28
_LIST_TOKENS = 1 << 17


@dataclass(frozen=True)
class EncodedCorpus:
    """An encoded corpus.

    Attributes:
        inputs: the files of the corpus, in order.
        parts: the encoded parts of these files, in the same order.
        vocab_size: the number of ids of the tokenizer.
        skipped: the number of unreadable records that were skipped.
        mapped: the user's files that ids are mapped from, and their states when they were checked.
    """

    inputs: tuple[InputFile, ...]
    parts: tuple[EncodedPart, ...]
    vocab_size: int
    skipped: int = 0
    mapped: tuple[tuple[Path, FileState], ...] = ()

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    def refuse_changed(self) -> None:
        """Check that the files that ids are mapped from are unchanged.

        Raises:
            CorpusError: a file was changed or deleted, so results from it are invalid.
        """
        refuse_changed(self.mapped)

    def sentences(self, max_tokens: int, names: Shaped[np.ndarray, "vocab"]) -> Iterator[list[Any]]:
        """Each document as a list of the names of its ids; documents of more than `max_tokens` ids are split."""
        for part in self.parts:
            ids, ends = part.ids, _piece_ends(part.ends, max_tokens)
            first = start = 0
            while first < len(ends):
                last = max(first + 1, int(np.searchsorted(ends, start + _LIST_TOKENS, "right")))
                block = names[ids[start : ends[last - 1]]].tolist()
                begin = 0
                for end in (ends[first:last] - start).tolist():
                    yield block[begin:end]
                    begin = end
                first, start = last, int(ends[last - 1])

    def sentence_count(self, max_tokens: int) -> int:
        """The number of lists that `sentences` yields."""
        return sum(int((-(-np.diff(part.ends, prepend=0) // max_tokens)).sum()) for part in self.parts)


def token_counts(corpus: EncodedCorpus, engine: Engine, report: Report) -> Int64[np.ndarray, "vocab"]:
    """Count the occurrences of each id."""
    number = max(1, corpus.tokens // _COUNT_SHARD_TOKENS)
    shards = [(corpus.parts[first::number], corpus.vocab_size) for first in range(number)]
    return sum((counts for _, counts in engine.run(_count_ids, shards, report)), np.zeros(corpus.vocab_size, np.int64))


def _count_ids(shard: tuple[Sequence[EncodedPart], int], report: Report) -> Int64[np.ndarray, "vocab"]:
    parts, vocab_size = shard
    counts = np.zeros(vocab_size, np.int64)
    for part in parts:
        ids = part.ids
        for start in range(0, len(ids), _COUNT_BLOCK_TOKENS):
            block = ids[start : start + _COUNT_BLOCK_TOKENS]
            counts += np.bincount(block, minlength=vocab_size)
            report(len(block))
    return counts


def _piece_ends(ends: Int64[np.ndarray, "documents"], max_tokens: int) -> Int64[np.ndarray, "pieces"]:
    """Cut documents into pieces of at most `max_tokens` ids, and return their ends; empty documents have no piece."""
    lengths = np.diff(ends, prepend=0)
    pieces = -(-lengths // max_tokens)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.minimum(np.repeat(ends - lengths, pieces) + (number + 1) * max_tokens, np.repeat(ends, pieces))
