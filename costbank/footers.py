"""Files that describe their content at their end, so that they can be written in one pass.

    footer     JSON
    length     U64, little-endian: bytes of the footer
    magic      8 bytes, which name the kind of file and its version

A file whose writer was interrupted has no footer, and is not read.
"""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Footer", "read_footer", "write_footer"]

_LENGTH_BYTES = 8
_MAGIC_BYTES = 8


class Footer(NamedTuple):
    """The JSON of a footer, and the offset in bytes at which it begins: the size of all before it."""

    content: Any
    offset: int


def write_footer(file: BinaryIO, content: Any, magic: bytes) -> None:
    """Finish a file: append the footer and flush it to the disk."""
    footer = json.dumps(content).encode()
    file.write(footer + len(footer).to_bytes(_LENGTH_BYTES, "little") + magic)
    file.flush()
    os.fsync(file.fileno())


def read_footer(path: Path, magic: bytes, most_bytes: int | None = None) -> Footer | None:
    """The footer of a file; None where the file does not end in one of this kind.

    Args:
        path: the file.
        magic: of this kind of file.
        most_bytes: a longer footer is not read.

    Raises:
        OSError: the file cannot be read.
        ValueError: the footer is not JSON.
    """
    tail_bytes = _LENGTH_BYTES + _MAGIC_BYTES
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - tail_bytes))
        tail = file.read()
        length = int.from_bytes(tail[:_LENGTH_BYTES], "little")
        if tail[_LENGTH_BYTES:] != magic or length > size - tail_bytes or (most_bytes and length > most_bytes):
            return None
        offset = size - tail_bytes - length
        file.seek(offset)
        return Footer(json.loads(file.read(length)), offset)
