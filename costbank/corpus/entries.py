"""One part of a corpus as token ids on disk: the entry that encoding writes once, and maps.

    ids        U16 or U32, little-endian; none where the ids are in a file of the user's
    zeros      to a multiple of 8 bytes
    ends       I64: where each document ends in the ids
    footer     as in `costbank.footers`: offsets, types and counts of these

An entry is written in a staging directory and renamed, so an entry that exists is whole.
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
_ALIGNED = 8
_MOST_FOOTER_BYTES = 1 << 20


@dataclass(frozen=True)
class EncodedPart:
    """Token ids and document ends of a part of a corpus. Small: the arrays are mapped when they are used.

    Attributes:
        path: the entry.
        tokens, documents: how many.
        ids_path: the file that holds the ids, from byte `ids_offset` on, as `ids_dtype`.
        ends_offset: where the ends begin in the entry.
        read: notes of the encoder on reading it, such as the number of skipped records.
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
        """How many unreadable records were skipped."""
        return int(self.read.get("skipped", 0))

    @property
    def ids(self) -> Integer[np.ndarray, "tokens"]:
        return _mapped(self.ids_path, self.ids_dtype, self.ids_offset, self.tokens)

    @property
    def ends(self) -> Int64[np.ndarray, "documents"]:
        return _mapped(self.path, "<i8", self.ends_offset, self.documents)


def id_dtype(vocab_size: int) -> np.dtype:
    """The narrowest type that entries store the ids of such a vocabulary in."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_entry(
    path: Path,
    staging: Path,
    blocks: Iterable[tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "documents"]]],
    dtype: np.dtype,
    read: Callable[[], dict[str, Any]],
) -> None:
    """Write the ids of blocks of documents and where each document ends in its block; `read` is called at the end.

    Raises:
        OSError: the disk is full, or `path` may not be written.
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
        _put_in_place(part, path)


def write_mapped_entry(
    path: Path,
    staging: Path,
    ids: tuple[Path, int, np.dtype, int],
    ends: Int64[np.ndarray, "documents"],
    read: dict[str, Any],
) -> None:
    """Write an entry for ids that stay in a file of the user's: its path, their offset in it, their type and number."""
    ids_path, offset, dtype, tokens = ids
    with staging_directory(staging) as staged:
        part = staged / "part"
        facts = {
            "ids_path": str(ids_path),
            "ids_dtype": dtype.str,
            "ids_offset": offset,
            "tokens": tokens,
            "read": read,
        }
        with part.open("wb") as file:
            _finish(file, ends, facts | {"read": read})
        _put_in_place(part, path)


def read_entry(path: Path) -> EncodedPart | None:
    """An entry; None where it does not exist or is not whole."""
    try:
        footer = read_footer(path, _MAGIC, _MOST_FOOTER_BYTES)
        if footer is None:
            return None
        facts = footer.content
        ids_path = Path(facts.pop("ids_path", path))
        own = ids_path == path
        ids_end = facts["ids_offset"] + facts["tokens"] * np.dtype(facts["ids_dtype"]).itemsize
        if not own and ids_path.stat().st_size != ids_end:
            return None
        whole = footer.offset == facts["ends_offset"] + 8 * facts["documents"]
        return EncodedPart(path=path, ids_path=ids_path, **facts) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _finish(file: BinaryIO, ends: Int64[np.ndarray, "documents"], facts: dict[str, Any]) -> None:
    file.write(b"\0" * (-file.tell() % _ALIGNED))
    ends_offset = file.tell()
    if len(ends):
        file.write(np.ascontiguousarray(ends, "<i8").data.cast("B"))
    write_footer(file, facts | {"documents": len(ends), "ends_offset": ends_offset}, _MAGIC)


def _put_in_place(part: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)


def _mapped(path: Path, dtype: str, offset: int, count: int) -> np.ndarray:
    if not count:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, np.dtype(dtype), "r", offset, (count,)))
