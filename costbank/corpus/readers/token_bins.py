"""Token ids that other tools have made, mapped from disk as they lie there."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int64, Integer

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.token_layouts import Layout, read_datatrove, read_llmc, read_megatron, read_npy, read_raw
from costbank.corpus.readers.token_widths import RAW_TYPES, check_width, other_reading, width_note
from costbank.errors import CorpusError, InputError, UsageError

__all__ = ["TokenBin", "check_token_bin", "open_token_bin"]

_CHUNK_IDS = 1 << 22
_LAYOUTS = {
    "megatron": read_megatron,
    "llmc": read_llmc,
    "datatrove": read_datatrove,
    "npy": read_npy,
    **{name: partial(read_raw, dtype=np.dtype(code)) for name, code in RAW_TYPES.items()},
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
                    self._range_hint(int(chunk[at])),
                )
            advance(len(chunk))

    def _range_hint(self, token_id: int) -> str:
        hint = "these ids are of another tokenizer, or of another format: see --tokenizer and corpus.format"
        if token_id < 0:
            return f"{hint}; ids below 0 mask labels in some tools, and stand for no token"
        other = other_reading(self.ids, self.vocab_size) if self.file.format in RAW_TYPES else ""
        return f"{other}; otherwise {hint}" if other else hint


def check_token_bin(file: CorpusFile, vocab_size: int) -> str | None:
    """Look at the beginning and the end of a file of token ids before long work; what is to be noted, if anything.

    Raises:
        CorpusError: the file is cut short, is of another format, its index says otherwise, or its ids are wider than
            they are read.
        InputError: it cannot be opened or read.
    """
    return width_note(file.shown, _layout(file, vocab_size).ids, vocab_size)


def open_token_bin(file: CorpusFile, vocab_size: int, separator: int | None) -> TokenBin:
    """Map a file of token ids.

    Where the format has no index, the id `separator` ends a document and belongs to it; without one, the file is a
    single document. The ids are not looked at for anything else: `check_ids` does that.

    Raises:
        CorpusError: the file is cut short, is of another format, its index says otherwise, or its ids are wider than
            they are read.
        InputError: it cannot be opened or read.
        UsageError: it is not a file of token ids, or `separator` is not an id of the vocabulary.
    """
    if not file.is_tokens:
        raise UsageError(f"{file.shown} holds text, and no token ids", "it is to be encoded")
    if separator is not None and not 0 <= separator < vocab_size:
        raise UsageError(
            f"the separator {separator} is not an id of the vocabulary, which has {vocab_size} tokens",
            "give the id that stands between documents, or none",
        )
    ids, ends = _layout(file, vocab_size)
    if ends is None:
        ends = _ends_by_separator(ids, separator)
    return TokenBin(file, ids, ends, vocab_size)


def _layout(file: CorpusFile, vocab_size: int) -> Layout:
    try:
        layout = _LAYOUTS[file.format](file.path)
    except OSError as error:
        raise InputError(f"{file.shown} cannot be read: {error}", "check the file and what lies beside it") from error
    check_width(file.shown, file.format, layout.ids, vocab_size)
    return layout


def _ends_by_separator(ids: Integer[np.ndarray, "tokens"], separator: int | None) -> Int64[np.ndarray, "documents"]:
    found = [] if separator is None else [
        np.flatnonzero(ids[start : start + _CHUNK_IDS] == separator) + (start + 1)
        for start in range(0, len(ids), _CHUNK_IDS)
    ]  # fmt: skip
    ends = np.concatenate([np.zeros(0, np.int64), *found])
    if len(ids) and not (len(ends) and ends[-1] == len(ids)):
        ends = np.append(ends, np.int64(len(ids)))
    return ends
