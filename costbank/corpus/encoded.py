"""A corpus as the token ids of one tokenizer, in parts that are mapped from disk as they are used."""

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

_COUNT_TOKENS = 1 << 20
_GROUP_TOKENS = 1 << 28
_LIST_TOKENS = 1 << 17


@dataclass(frozen=True)
class EncodedCorpus:
    """The parts of a corpus in the order of its files.

    Attributes:
        skipped: records that could not be read and were left out.
        mapped: files of the user's that ids are mapped from, in the state in which they were checked.
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
        """Make sure that no file that ids are mapped from was written.

        Raises:
            CorpusError: one was written, so results from it are invalid.
        """
        refuse_changed(self.mapped)

    def sentences(self, most_tokens: int, names: Shaped[np.ndarray, "vocab"]) -> Iterator[list[Any]]:
        """Every document as a list of the names of its ids, longer documents cut into parts of `most_tokens`."""
        for part in self.parts:
            ids, ends = part.ids, _piece_ends(part.ends, most_tokens)
            first = start = 0
            while first < len(ends):
                last = max(first + 1, int(np.searchsorted(ends, start + _LIST_TOKENS, "right")))
                block = names[ids[start : ends[last - 1]]].tolist()
                begin = 0
                for end in (ends[first:last] - start).tolist():
                    yield block[begin:end]
                    begin = end
                first, start = last, int(ends[last - 1])

    def sentence_count(self, most_tokens: int) -> int:
        """How many lists `sentences` gives."""
        return sum(int((-(-np.diff(part.ends, prepend=0) // most_tokens)).sum()) for part in self.parts)


def token_counts(corpus: EncodedCorpus, engine: Engine, report: Report) -> Int64[np.ndarray, "vocab"]:
    """How often each id occurs."""
    groups = max(1, corpus.tokens // _GROUP_TOKENS)
    shards = [(corpus.parts[number::groups], corpus.vocab_size) for number in range(groups)]
    return sum((counts for _, counts in engine.run(_count_ids, shards, report)), np.zeros(corpus.vocab_size, np.int64))


def _count_ids(shard: tuple[Sequence[EncodedPart], int], report: Report) -> Int64[np.ndarray, "vocab"]:
    parts, vocab_size = shard
    counts = np.zeros(vocab_size, np.int64)
    for part in parts:
        ids = part.ids
        for start in range(0, len(ids), _COUNT_TOKENS):
            block = ids[start : start + _COUNT_TOKENS]
            counts += np.bincount(block, minlength=vocab_size)
            report(len(block))
    return counts


def _piece_ends(ends: Int64[np.ndarray, "documents"], most_tokens: int) -> Int64[np.ndarray, "pieces"]:
    """Where each piece of a document ends, when none may be longer than `most_tokens`; empty documents have none."""
    lengths = np.diff(ends, prepend=0)
    pieces = -(-lengths // most_tokens)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.minimum(np.repeat(ends - lengths, pieces) + (number + 1) * most_tokens, np.repeat(ends, pieces))
