"""Token ids that other tools have made, mapped from disk as they lie there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.token_layouts import read_datatrove, read_llmc, read_megatron, read_nanogpt, read_npy
from costbank.errors import CorpusError, InputError, UsageError

__all__ = ["TokenBin", "open_token_bin"]

_CHUNK_IDS = 1 << 22
_LAYOUTS = {
    "megatron": read_megatron,
    "llmc": read_llmc,
    "nanogpt": read_nanogpt,
    "datatrove": read_datatrove,
    "npy": read_npy,
}


def _ignore(count: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class TokenBin:
    """The ids of one file, mapped and not to be written to, and where each document ends in them."""

    file: CorpusFile
    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"]
    vocab_size: int

    def check_ids(self, advance: Callable[[int], None] = _ignore) -> None:
        """Make sure that every id is one of the vocabulary; `advance` is told of the ids that were looked at.

        Raises:
            CorpusError: an id is below 0, or not below the size of the vocabulary.
        """
        for start in range(0, len(self.ids), _CHUNK_IDS):
            chunk = self.ids[start : start + _CHUNK_IDS]
            if int(chunk.max()) >= self.vocab_size or int(chunk.min()) < 0:
                at = int(np.argmax((chunk < 0) | (chunk >= self.vocab_size)))
                raise CorpusError(
                    f"{self.file.shown} has the id {int(chunk[at])} at position {start + at}, and the vocabulary has "
                    f"{self.vocab_size} tokens",
                    "these ids are of another tokenizer, or of another format: see --tokenizer and corpus.format",
                )
            advance(len(chunk))


def open_token_bin(file: CorpusFile, vocab_size: int, separator: int | None) -> TokenBin:
    """Map a file of token ids.

    Where the format has no index, the id `separator` ends a document and belongs to it; without one, the file is a
    single document. The ids are not looked at for anything else: `check_ids` does that.

    Raises:
        CorpusError: the file is cut short, is of another format, or its index says otherwise.
        InputError: it cannot be opened or read.
        UsageError: it is no file of token ids, or `separator` is no id of the vocabulary.
    """
    if not file.is_tokens:
        raise UsageError(f"{file.shown} holds text, and no token ids", "it is to be encoded")
    if separator is not None and not 0 <= separator < vocab_size:
        raise UsageError(
            f"the separator {separator} is no id of the vocabulary, which has {vocab_size} tokens",
            "give the id that stands between documents, or none",
        )
    try:
        ids, ends = _LAYOUTS[file.format](file.path)
    except OSError as error:
        raise InputError(f"{file.shown} cannot be read: {error}", "check the file and what lies beside it") from error
    if ends is None:
        ends = _ends_by_separator(ids, separator)
    return TokenBin(file, ids, ends, vocab_size)


def _ends_by_separator(ids: Integer[np.ndarray, "tokens"], separator: int | None) -> Int64[np.ndarray, "documents"]:
    found = [] if separator is None else [
        np.flatnonzero(ids[start : start + _CHUNK_IDS] == separator) + (start + 1)
        for start in range(0, len(ids), _CHUNK_IDS)
    ]  # fmt: skip
    ends = np.concatenate([np.zeros(0, np.int64), *found])
    if len(ids) and not (len(ends) and ends[-1] == len(ids)):
        ends = np.append(ends, np.int64(len(ids)))
    return ends
