"""Memory-map token ids in the formats of language-model trainers. Every number in a file is checked before it is used.

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

_BLOCK_IDS = 1 << 22
_LLMC_HEADER_BYTES = 256 * 4
_MEGATRON_MAGIC = b"MMIDIDX\0\0"
_MEGATRON_COUNTS = struct.Struct("<QBQQ")
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_REWRITE = "write it again with the tool that created it, or copy it again"


def _ignore(count: int) -> None:
    """Default `advance`: ignore."""


@dataclass(frozen=True)
class TokenBin:
    """The token ids of one file, mapped read-only, and the end of each document in them."""

    file: CorpusFile
    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"]
    vocab_size: int

    def check_ids(self, advance: Callable[[int], None] = _ignore, block_ids: int = _BLOCK_IDS) -> None:
        """Check that every id is in the vocabulary.

        Args:
            advance: called with the number of ids of each checked block.
            block_ids: the number of ids in a block.

        Raises:
            CorpusError: an id is below 0 or not below the size of the vocabulary.
        """
        for start in range(0, len(self.ids), block_ids):
            block = self.ids[start : start + block_ids]
            if int(block.max()) >= self.vocab_size or int(block.min()) < 0:
                index = int(np.argmax((block < 0) | (block >= self.vocab_size)))
                raise CorpusError(
                    f"{self.file.shown} has the id {int(block[index])} at position {start + index}, but the vocabulary "
                    f"has {self.vocab_size} tokens",
                    self._range_hint(int(block[index])),
                )
            advance(len(block))

    def _range_hint(self, token_id: int) -> str:
        hint = "the ids come from another tokenizer or are in another format: check --tokenizer and corpus.format"
        if token_id < 0:
            return f"{hint}; some tools use ids below 0 to mask labels, but they are not tokens"
        other = other_reading(self.ids, self.vocab_size) if self.file.format in RAW_TYPES else ""
        return f"{other}; otherwise, {hint}" if other else hint


class _Layout(NamedTuple):
    """The mapped ids of a file, and the ends of its documents; None if the file does not store them."""

    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"] | None


def check_token_bin(file: CorpusFile, vocab_size: int) -> str | None:
    """Check the size, the index and the bit width of a file of token ids before long work.

    Returns:
        A note if ids may have been truncated; otherwise None.

    Raises:
        CorpusError: the file is truncated, has another format, does not match its index, or has ids wider than its
            format.
        InputError: the file cannot be opened or read.
    """
    return width_note(file.shown, _layout(file, vocab_size).ids, vocab_size)


def open_token_bin(file: CorpusFile, vocab_size: int, separator: int | None, block_ids: int = _BLOCK_IDS) -> TokenBin:
    """Map a file of token ids. The ids are not checked; see `TokenBin.check_ids`.

    Args:
        file: the file.
        vocab_size: the number of ids of the tokenizer.
        separator: for formats without an index, the id that ends a document and belongs to it. None: the file is a
            single document.
        block_ids: the number of ids that are searched for separators at a time.

    Raises:
        CorpusError: the file is truncated, has another format, does not match its index, or has ids wider than its
            format.
        InputError: the file cannot be opened or read.
        UsageError: it is not a file of token ids, or `separator` is not an id of the vocabulary.
    """
    if not file.is_tokens:
        raise UsageError(f"{file.shown} holds text, not token ids", "name a file of token ids")
    if separator is not None and not 0 <= separator < vocab_size:
        raise UsageError(
            f"the separator {separator} is not an id of the vocabulary, which has {vocab_size} tokens",
            "set corpus.separator to the id that ends each document, or leave it out",
        )
    ids, ends = _layout(file, vocab_size)
    if ends is None:
        ends = _ends_by_separator(ids, separator, block_ids)
    return TokenBin(file, ids, ends, vocab_size)


def _layout(file: CorpusFile, vocab_size: int) -> _Layout:
    try:
        layout = _LAYOUTS[file.format](file.path)
    except OSError as error:
        raise InputError(f"{file.shown} cannot be read: {error}", "check the file and its index") from error
    check_width(file.shown, file.format, layout.ids, vocab_size)
    return layout


def _ends_by_separator(
    ids: Integer[np.ndarray, "tokens"], separator: int | None, block_ids: int
) -> Int64[np.ndarray, "documents"]:
    separators = [] if separator is None else [
        np.flatnonzero(ids[start : start + block_ids] == separator) + (start + 1)
        for start in range(0, len(ids), block_ids)
    ]  # fmt: skip
    ends = np.concatenate([np.zeros(0, np.int64), *separators])
    if len(ids) and not (len(ends) and ends[-1] == len(ids)):
        ends = np.append(ends, np.int64(len(ids)))
    return ends


def _read_megatron(path: Path) -> _Layout:
    """Megatron's `.bin` and `.idx`: consecutive sequences, and documents of one or more sequences."""
    index = path.with_suffix(".idx")
    dtype, lengths, pointers, documents = _megatron_index(index)
    if (lengths < 0).any():
        _refuse(index, f"sequence {int(np.argmax(lengths < 0))} has a length below 0")
    sequence_ends = np.cumsum(lengths, dtype=np.int64)
    expected = (sequence_ends - lengths) * dtype.itemsize
    if (mismatches := np.flatnonzero(pointers != expected)).size:
        first = int(mismatches[0])
        _refuse(
            index,
            f"sequence {first} starts at offset {int(pointers[first])} of the ids, but the previous one ends at "
            f"{int(expected[first])}",
        )
    if len(documents) == 0 or documents[0] != 0 or documents[-1] != len(lengths) or (np.diff(documents) < 0).any():
        _refuse(index, f"its documents do not cover its {len(lengths)} sequences in order")
    tokens = int(sequence_ends[-1]) if len(lengths) else 0
    _check_size(path, tokens * dtype.itemsize, f"according to its index {index.name}")
    ends = np.concatenate([np.zeros(1, np.int64), sequence_ends])[documents[1:]]
    return _Layout(_mapped(path, dtype), ends)


def _megatron_index(
    index: Path,
) -> tuple[np.dtype, Integer[np.ndarray, "sequences"], Integer[np.ndarray, "sequences"], Integer[np.ndarray, "ends"]]:
    with index.open("rb") as file:
        magic = file.read(len(_MEGATRON_MAGIC))
        counts = file.read(_MEGATRON_COUNTS.size)
    if magic != _MEGATRON_MAGIC:
        _refuse(
            index,
            "it does not start with MMIDIDX",
            "it is not a Megatron index; set corpus.format to the format of the file",
        )
    if len(counts) < _MEGATRON_COUNTS.size:
        _refuse(index, "it is truncated within its header")
    version, code, sequences, documents = _MEGATRON_COUNTS.unpack(counts)
    if version != 1:
        _refuse(
            index,
            f"it has version {version}, but only version 1 is supported",
            "write it with another version of Megatron-LM",
        )
    if code not in _MEGATRON_TYPES:
        _refuse(index, f"the type code of its ids is {code}, which is not an integer type")
    start = len(_MEGATRON_MAGIC) + _MEGATRON_COUNTS.size
    expected, size = start + sequences * 12 + documents * 8, index.stat().st_size
    if size == expected + sequences and sequences:
        _refuse(index, "its sequences have modes, as in multimodal data", "name a data set that has only text")
    _check_size(index, expected, f"for {sequences} sequences and {documents} document ends")
    content = np.memmap(index, np.uint8, "r")
    lengths = content[start : start + sequences * 4].view("<i4")
    pointers = content[start + sequences * 4 : start + sequences * 12].view("<i8")
    return np.dtype(_MEGATRON_TYPES[code]), lengths, pointers, np.asarray(content[start + sequences * 12 :].view("<i8"))


def _read_raw(path: Path, dtype: np.dtype) -> _Layout:
    """Ids of one type without a header, such as the 16-bit ids that nanoGPT's scripts write."""
    size, width = path.stat().st_size, dtype.itemsize
    if size % width:
        _refuse(path, f"its {size} bytes are not a whole number of {8 * width}-bit ids")
    return _Layout(_mapped(path, dtype), None)


def _read_llmc(path: Path) -> _Layout:
    """llm.c's `.bin`: a header of 256 32-bit integers, then 16-bit ids (GPT-2) or 32-bit ids (Llama 3)."""
    with path.open("rb") as file:
        header = file.read(_LLMC_HEADER_BYTES)
    if len(header) < _LLMC_HEADER_BYTES:
        _refuse(path, f"it is truncated at offset {len(header)}, within its header")
    magic, version, tokens = struct.unpack("<3i", header[:12])
    if magic not in LLMC_VERSIONS:
        _refuse(
            path,
            f"it starts with {magic}, which is not a magic number of llm.c",
            "for ids without a header, use --set corpus.format=nanogpt (16-bit) or raw-u32 (32-bit)",
        )
    supported, code = LLMC_VERSIONS[magic]
    if version != supported:
        _refuse(
            path,
            f"its header has version {version}, but only version {supported} is supported",
            "write it with llm.c's own scripts",
        )
    dtype = np.dtype(code)
    _check_size(path, _LLMC_HEADER_BYTES + tokens * dtype.itemsize, f"for the {tokens} ids in its header")
    return _Layout(_mapped(path, dtype, _LLMC_HEADER_BYTES), None)


def _read_datatrove(path: Path) -> _Layout:
    """datatrove's `.ds` and `.ds.index`: 16-bit or 32-bit ids; the file size and the last end determine which."""
    index = Path(f"{path}.index")
    size, index_size = path.stat().st_size, index.stat().st_size
    if index_size % 8:
        _refuse(index, f"its {index_size} bytes are not a whole number of 8-byte ends")
    ends = np.fromfile(index, "<u8")
    if (descents := np.flatnonzero(ends[1:] < ends[:-1])).size:
        _refuse(index, f"the end at offset {8 * (int(descents[0]) + 1)} is smaller than the previous one")
    tokens = int(ends[-1]) if len(ends) else 0
    dtype = next((np.dtype(code) for code in ("<u2", "<u4") if tokens * int(code[2]) == size), None)
    if dtype is None:
        _refuse(path, f"it has {size} bytes, but its index {index.name} has {tokens} ids of 2 or 4 bytes each")
    return _Layout(_mapped(path, dtype), ends.astype(np.int64))


def _read_npy(path: Path) -> _Layout:
    """NumPy's `.npy`: a vector of integers, or a matrix with one document per row."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about arrays that Python 2 saved
            array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OverflowError, SyntaxError, TokenError, TypeError, MemoryError, OSError) as error:
        _refuse(path, f"NumPy cannot map it ({error})")
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        _refuse(
            path,
            f"its array has shape {array.shape} and type {array.dtype} instead of integers in one or two dimensions",
            "save token ids as integers",
        )
    if not array.flags.c_contiguous:
        _refuse(path, "its array is in Fortran order", "save numpy.ascontiguousarray(ids)")
    _check_size(path, array.offset + array.nbytes, "according to its header")
    ends = np.arange(1, len(array) + 1, dtype=np.int64) * array.shape[1] if array.ndim == 2 else None
    return _Layout(np.asarray(array).reshape(-1), ends)


def _mapped(path: Path, dtype: np.dtype, offset: int = 0) -> Integer[np.ndarray, "tokens"]:
    if path.stat().st_size == offset:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset=offset))


def _check_size(path: Path, expected: int, reason: str) -> None:
    size = path.stat().st_size
    if size < expected:
        _refuse(path, f"it is truncated: it ends at offset {size}, but should have {expected} bytes {reason}")
    if size > expected:
        _refuse(
            path, f"it has extra bytes at offset {expected}: it has {size}, but should have {expected} bytes {reason}"
        )


def _refuse(path: Path, reason: str, hint: str = _REWRITE) -> NoReturn:
    raise CorpusError(f"{path} cannot be read as token ids: {reason}", hint)


_LAYOUTS = {
    "megatron": _read_megatron,
    "llmc": _read_llmc,
    "datatrove": _read_datatrove,
    "npy": _read_npy,
    **{name: partial(_read_raw, dtype=np.dtype(code)) for name, code in RAW_TYPES.items()},
}
