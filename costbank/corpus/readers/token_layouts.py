"""How tools that train language models lay out token ids on disk, read without trust in any number in a file.

Sources: Megatron-LM's indexed_dataset.py, nanoGPT's prepare.py, llm.c's data_common.py, datatrove's tokenizer.py.
"""

import struct
import warnings
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import CorpusError

__all__ = ["LLMC_VERSIONS", "Layout", "read_datatrove", "read_llmc", "read_megatron", "read_npy", "read_raw"]

LLMC_VERSIONS = {20240520: (1, "<u2"), 20240801: (7, "<u4")}

_LLMC_HEADER_BYTES = 256 * 4
_MEGATRON_MARK = b"MMIDIDX\0\0"
_MEGATRON_COUNTS = struct.Struct("<QBQQ")
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_AGAIN = "write it again with the tool that made it, or copy it again"


class Layout(NamedTuple):
    """The ids of a file as they are stored, mapped, and where its documents end; None where the file does not say."""

    ids: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"] | None


def read_megatron(path: Path) -> Layout:
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
    return Layout(_mapped(path, dtype), ends)


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


def read_raw(path: Path, dtype: np.dtype) -> Layout:
    """Ids of one type and nothing else, as nanoGPT's scripts write 16-bit ones."""
    size, width = path.stat().st_size, dtype.itemsize
    if size % width:
        _refuse(path, f"it has {size} bytes, which {8 * width}-bit ids cannot fill")
    return Layout(_mapped(path, dtype), None)


def read_llmc(path: Path) -> Layout:
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
    return Layout(_mapped(path, dtype, _LLMC_HEADER_BYTES), None)


def read_datatrove(path: Path) -> Layout:
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
    return Layout(_mapped(path, dtype), ends.astype(np.int64))


def read_npy(path: Path) -> Layout:
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
    return Layout(np.asarray(array).reshape(-1), ends)


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
