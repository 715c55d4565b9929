"""Token ids in the formats of language-model trainers, mapped from disk; no number in a file is trusted.

Sources: Megatron-LM's indexed_dataset.py, nanoGPT's prepare.py, llm.c's data_common.py, datatrove's tokenizer.py.
"""

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Int64, Integer

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.token_widths import RAW_TYPES, check_width, other_reading, width_note
from costbank.errors import CorpusError, InputError, UsageError

__all__ = ["LLMC_VERSIONS", "TokenBin", "check_token_bin", "open_token_bin"]

LLMC_VERSIONS = {20240520: (1, "<u2"), 20240801: (7, "<u4")}

_CHUNK_IDS = 1 << 22
_LLMC_HEADER_BYTES = 256 * 4
_MEGATRON_MARK = b"MMIDIDX\0\0"
_MEGATRON_COUNTS = struct.Struct("<QBQQ")
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_AGAIN = "write it again with the tool that made it, or copy it again"


def _ignore(count: int) -> None:
    """Default `advance`: ignore."""


@dataclass(frozen=True)
class TokenBin:
    """The ids of one file, mapped read-only, and where each document ends in them."""

    file: CorpusFile
    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"]
    vocab_size: int

    def check_ids(self, advance: Callable[[int], None] = _ignore) -> None:
        """Make sure that every id is one of the vocabulary; `advance` gets the number of ids in each block checked.

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


class _Layout(NamedTuple):
    """The stored ids of a file, mapped, and where its documents end; None where the file does not say."""

    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"] | None


def check_token_bin(file: CorpusFile, vocab_size: int) -> str | None:
    """Check the size, the index and the width of a file of token ids before long work.

    Returns:
        A note about ids that may have been cut short; None where there is nothing to say.

    Raises:
        CorpusError: the file is cut short, is of another format, its index says otherwise, or its ids are wider than
            they are read.
        InputError: it cannot be opened or read.
    """
    return width_note(file.shown, _layout(file, vocab_size).ids, vocab_size)


def open_token_bin(file: CorpusFile, vocab_size: int, separator: int | None) -> TokenBin:
    """Map a file of token ids.

    Where the format has no index, the id `separator` ends a document and belongs to it; without one, the file is a
    single document. The ids are not checked here: `check_ids` does that.

    Raises:
        CorpusError: the file is cut short, is of another format, its index says otherwise, or its ids are wider than
            they are read.
        InputError: it cannot be opened or read.
        UsageError: it is not a file of token ids, or `separator` is not an id of the vocabulary.
    """
    if not file.is_tokens:
        raise UsageError(f"{file.shown} holds text, not token ids", "it is to be encoded")
    if separator is not None and not 0 <= separator < vocab_size:
        raise UsageError(
            f"the separator {separator} is not an id of the vocabulary, which has {vocab_size} tokens",
            "give the id that stands between documents, or none",
        )
    ids, ends = _layout(file, vocab_size)
    if ends is None:
        ends = _ends_by_separator(ids, separator)
    return TokenBin(file, ids, ends, vocab_size)


def _layout(file: CorpusFile, vocab_size: int) -> _Layout:
    try:
        layout = _LAYOUTS[file.format](file.path)
    except OSError as error:
        raise InputError(f"{file.shown} cannot be read: {error}", "check the file and its index") from error
    check_width(file.shown, file.format, layout.ids, vocab_size)
    return layout


def _ends_by_separator(ids: Integer[np.ndarray, "tokens"], separator: int | None) -> Int64[np.ndarray, "documents"]:
    separators = [] if separator is None else [
        np.flatnonzero(ids[start : start + _CHUNK_IDS] == separator) + (start + 1)
        for start in range(0, len(ids), _CHUNK_IDS)
    ]  # fmt: skip
    ends = np.concatenate([np.zeros(0, np.int64), *separators])
    if len(ids) and not (len(ends) and ends[-1] == len(ids)):
        ends = np.append(ends, np.int64(len(ids)))
    return ends


def _read_megatron(path: Path) -> _Layout:
    """Megatron's `.bin` with its `.idx`: sequences one after the other, and documents of one or more of them."""
    index = path.with_suffix(".idx")
    dtype, lengths, pointers, documents = _megatron_index(index)
    if (lengths < 0).any():
        _refuse(index, f"sequence {int(np.argmax(lengths < 0))} has a length below 0")
    sequence_ends = np.cumsum(lengths, dtype=np.int64)
    expected = (sequence_ends - lengths) * dtype.itemsize
    if (apart := np.flatnonzero(pointers != expected)).size:
        at = int(apart[0])
        _refuse(
            index,
            f"sequence {at} begins at offset {int(pointers[at])} of the ids, and not at {int(expected[at])}, where the "
            "one before it ends",
        )
    if len(documents) == 0 or documents[0] != 0 or documents[-1] != len(lengths) or (np.diff(documents) < 0).any():
        _refuse(index, f"its documents do not cover its {len(lengths)} sequences in their order")
    tokens = int(sequence_ends[-1]) if len(lengths) else 0
    _check_size(path, tokens * dtype.itemsize, f"as its index {index.name} says")
    ends = np.concatenate([np.zeros(1, np.int64), sequence_ends])[documents[1:]]
    return _Layout(_mapped(path, dtype), ends)


def _megatron_index(
    index: Path,
) -> tuple[np.dtype, Integer[np.ndarray, "sequences"], Integer[np.ndarray, "sequences"], Integer[np.ndarray, "ends"]]:
    with index.open("rb") as file:
        mark = file.read(len(_MEGATRON_MARK))
        counts = file.read(_MEGATRON_COUNTS.size)
    if mark != _MEGATRON_MARK:
        _refuse(
            index,
            "it does not begin with MMIDIDX",
            "it is none of Megatron's; --set corpus.format=… says what it is",
        )
    if len(counts) < _MEGATRON_COUNTS.size:
        _refuse(index, "it is cut short in its header")
    version, code, sequences, documents = _MEGATRON_COUNTS.unpack(counts)
    if version != 1:
        _refuse(
            index, f"it is of version {version}, and 1 is known", "write it with a version of Megatron-LM that is known"
        )
    if code not in _MEGATRON_TYPES:
        _refuse(index, f"its type of ids has the code {code}, which is not a type of integers")
    start = len(_MEGATRON_MARK) + _MEGATRON_COUNTS.size
    expected, size = start + sequences * 12 + documents * 8, index.stat().st_size
    if size == expected + sequences and sequences:
        _refuse(index, "its sequences have modes, as those of text and images do", "give a set of text alone")
    _check_size(index, expected, f"for {sequences} sequences and {documents} ends of documents")
    content = np.memmap(index, np.uint8, "r")
    lengths = content[start : start + sequences * 4].view("<i4")
    pointers = content[start + sequences * 4 : start + sequences * 12].view("<i8")
    return np.dtype(_MEGATRON_TYPES[code]), lengths, pointers, np.asarray(content[start + sequences * 12 :].view("<i8"))


def _read_raw(path: Path, dtype: np.dtype) -> _Layout:
    """Ids of one type and nothing else, as nanoGPT's scripts write 16-bit ones."""
    size, width = path.stat().st_size, dtype.itemsize
    if size % width:
        _refuse(path, f"it has {size} bytes, which {8 * width}-bit ids cannot fill")
    return _Layout(_mapped(path, dtype), None)


def _read_llmc(path: Path) -> _Layout:
    """llm.c's `.bin`: a header of 256 32-bit integers, then 16-bit ids (GPT-2) or 32-bit ids (Llama 3)."""
    with path.open("rb") as file:
        header = file.read(_LLMC_HEADER_BYTES)
    if len(header) < _LLMC_HEADER_BYTES:
        _refuse(path, f"it is cut short at offset {len(header)}, in its header")
    magic, version, tokens = struct.unpack("<3i", header[:12])
    if magic not in LLMC_VERSIONS:
        _refuse(
            path,
            f"it begins with {magic}, and not with the mark of llm.c",
            "--set corpus.format=nanogpt reads 16-bit ids without a header, raw-u32 32-bit ones",
        )
    known, code = LLMC_VERSIONS[magic]
    if version != known:
        _refuse(path, f"its header is of version {version}, and {known} is known", "write it with llm.c's own scripts")
    dtype = np.dtype(code)
    _check_size(path, _LLMC_HEADER_BYTES + tokens * dtype.itemsize, f"for the {tokens} ids that its header counts")
    return _Layout(_mapped(path, dtype, _LLMC_HEADER_BYTES), None)


def _read_datatrove(path: Path) -> _Layout:
    """datatrove's `.ds` with its `.ds.index`: 16-bit or 32-bit ids, whichever fills the file up to the last end."""
    index = Path(f"{path}.index")
    size, index_size = path.stat().st_size, index.stat().st_size
    if index_size % 8:
        _refuse(index, f"it has {index_size} bytes, and ends of 8 bytes each cannot fill it")
    ends = np.fromfile(index, "<u8")
    if (fall := np.flatnonzero(ends[1:] < ends[:-1])).size:
        _refuse(index, f"the end at offset {8 * (int(fall[0]) + 1)} is before the one before it")
    tokens = int(ends[-1]) if len(ends) else 0
    dtype = next((np.dtype(code) for code in ("<u2", "<u4") if tokens * int(code[2]) == size), None)
    if dtype is None:
        _refuse(path, f"it has {size} bytes, and its index {index.name} counts {tokens} ids, of 2 or 4 bytes each")
    return _Layout(_mapped(path, dtype), ends.astype(np.int64))


def _read_npy(path: Path) -> _Layout:
    """NumPy's `.npy`: integers in one row, or in rows of which each is a document."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of arrays that Python 2 has saved
            array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OverflowError, SyntaxError, TokenError, TypeError, MemoryError, OSError) as error:
        _refuse(path, f"NumPy cannot map it ({error})")
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        _refuse(
            path,
            f"it holds shape {array.shape} and type {array.dtype}, and no integers in one or two dimensions",
            "save token ids as integers",
        )
    if not array.flags.c_contiguous:
        _refuse(path, "its rows lie in Fortran's order", "save numpy.ascontiguousarray(ids)")
    _check_size(path, array.offset + array.nbytes, "as its header says")
    ends = np.arange(1, len(array) + 1, dtype=np.int64) * array.shape[1] if array.ndim == 2 else None
    return _Layout(np.asarray(array).reshape(-1), ends)


def _mapped(path: Path, dtype: np.dtype, offset: int = 0) -> Integer[np.ndarray, "tokens"]:
    if path.stat().st_size == offset:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset=offset))


def _check_size(path: Path, expected: int, reason: str) -> None:
    size = path.stat().st_size
    if size < expected:
        _refuse(path, f"it is cut short: it ends at offset {size}, and should have {expected} bytes {reason}")
    if size > expected:
        _refuse(path, f"bytes follow at offset {expected}: it has {size}, and should have {expected} bytes {reason}")


def _refuse(path: Path, reason: str, hint: str = _AGAIN) -> NoReturn:
    raise CorpusError(f"{path} holds no token ids that can be read: {reason}", hint)


_LAYOUTS = {
    "megatron": _read_megatron,
    "llmc": _read_llmc,
    "datatrove": _read_datatrove,
    "npy": _read_npy,
    **{name: partial(_read_raw, dtype=np.dtype(code)) for name, code in RAW_TYPES.items()},
}
