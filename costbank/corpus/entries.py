"""Cache entries: the token ids of one part of a corpus, written once and mapped from disk.

    ids        U16 or U32, little-endian; absent if the ids are in one of the user's files
    zeros      padding to a multiple of 8 bytes
    ends       I64: the end of each document in the ids
    footer     see `costbank.footers`: offsets, types and counts of the above

An entry is written in a staging directory and then renamed, so an existing entry is complete.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64, Integer

from costbank.files import staging_directory
from costbank.footers import read_footer, write_footer

__all__ = ["EncodedPart", "id_dtype", "read_entry", "write_entry", "write_mapped_entry"]

_MAGIC = b"cbids\0\0\1"
_ALIGNMENT = 8
_MAX_FOOTER_BYTES = 1 << 20


@dataclass(frozen=True)
class EncodedPart:
    """Token ids and document ends of a part of a corpus. The object is small: arrays are mapped when they are used.

    Attributes:
        path: the file of the entry.
        tokens: the number of ids.
        documents: the number of documents.
        ids_path: the file that stores the ids, which start at byte `ids_offset` and have the NumPy type `ids_dtype`.
        ends_offset: the byte offset of the ends in the entry.
        read: facts that the encoder recorded, such as the number of skipped records.
    """

    path: Path
    tokens: int
    documents: int
    ids_path: Path
    ids_offset: int
    ids_dtype: str
    ends_offset: int
    read: dict[str, Any]

    @property
    def skipped(self) -> int:
        """The number of unreadable records that were skipped."""
        return int(self.read.get("skipped", 0))

    @property
    def ids(self) -> Integer[np.ndarray, "tokens"]:
        """The token ids, mapped read-only."""
        return _mapped(self.ids_path, self.ids_dtype, self.ids_offset, self.tokens)

    @property
    def ends(self) -> Int64[np.ndarray, "documents"]:
        """The end of each document in `ids`, mapped read-only."""
        return _mapped(self.path, "<i8", self.ends_offset, self.documents)


def id_dtype(vocab_size: int) -> np.dtype:
    """The type in which entries store the ids of a vocabulary of this size: U16 if it fits, else U32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_entry(
    path: Path,
    staging: Path,
    blocks: Iterable[tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "documents"]]],
    dtype: np.dtype,
    read: Callable[[], dict[str, Any]],
) -> None:
    """Write an entry from blocks of documents.

    Args:
        path: the file to write.
        staging: the directory for the unfinished file.
        blocks: the ids of each block, and the end of each document in its block.
        dtype: the type to store ids in.
        read: called after the last block; returns the value of `EncodedPart.read`.

    Raises:
        OSError: the disk is full, or `path` is not writable.
    """
    with staging_directory(staging) as staged:
        part, ends, tokens = staged / "part", [np.zeros(0, np.int64)], 0
        with part.open("wb") as file:
            for ids, block_ends in blocks:
                file.write(ids.astype(dtype, copy=False).data.cast("B") if len(ids) else b"")
                ends.append(block_ends + tokens)
                tokens += len(ids)
            all_ends = np.concatenate(ends)
            _finish(file, all_ends, {"ids_dtype": dtype.str, "ids_offset": 0, "tokens": tokens, "read": read()})
        _publish(part, path)


def write_mapped_entry(
    path: Path,
    staging: Path,
    ids: tuple[Path, int, np.dtype, int],
    ends: Int64[np.ndarray, "documents"],
) -> None:
    """Write an entry for ids that stay in one of the user's files.

    Args:
        path: the file to write.
        staging: the directory for the unfinished file.
        ids: the path of the user's file, and the byte offset, type and number of the ids in it.
        ends: the end of each document in the ids.
    """
    ids_path, offset, dtype, tokens = ids
    facts = {"ids_path": str(ids_path), "ids_dtype": dtype.str, "ids_offset": offset, "tokens": tokens, "read": {}}
    with staging_directory(staging) as staged:
        part = staged / "part"
        with part.open("wb") as file:
            _finish(file, ends, facts)
        _publish(part, path)


def read_entry(path: Path) -> EncodedPart | None:
    """Open an entry; None if it does not exist or is incomplete."""
    try:
        footer = read_footer(path, _MAGIC, _MAX_FOOTER_BYTES)
        if footer is None:
            return None
        facts = footer.content
        ids_path = Path(facts.pop("ids_path", path))
        ids_end = facts["ids_offset"] + facts["tokens"] * np.dtype(facts["ids_dtype"]).itemsize
        if ids_path != path and ids_path.stat().st_size != ids_end:
            return None
        is_complete = footer.offset == facts["ends_offset"] + 8 * facts["documents"]
        return EncodedPart(path=path, ids_path=ids_path, **facts) if is_complete else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _finish(file: BinaryIO, ends: Int64[np.ndarray, "documents"], facts: dict[str, Any]) -> None:
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    ends_offset = file.tell()
    if len(ends):
        file.write(np.ascontiguousarray(ends, "<i8").data.cast("B"))
    write_footer(file, facts | {"documents": len(ends), "ends_offset": ends_offset}, _MAGIC)


def _publish(part: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)


def _mapped(path: Path, dtype: str, offset: int, count: int) -> np.ndarray:
    if not count:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, np.dtype(dtype), "r", offset, (count,)))
