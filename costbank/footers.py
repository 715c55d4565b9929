"""Files with a description of their content at the end, so that they can be written in one pass.

    footer     JSON
    length     U64, little-endian: bytes of the footer
    magic      8 bytes, which identify the kind of file and its version

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
    """The JSON of a footer, and the offset of the footer in bytes, which is the size of the content before it."""

    content: Any
    offset: int


def write_footer(file: BinaryIO, content: Any, magic: bytes) -> None:
    """Finish a file: append the footer and fsync."""
    footer = json.dumps(content).encode()
    file.write(footer + len(footer).to_bytes(_LENGTH_BYTES, "little") + magic)
    file.flush()
    os.fsync(file.fileno())


def read_footer(path: Path, magic: bytes, most_bytes: int | None = None) -> Footer | None:
    """The footer of a file; None if the file does not end with the magic, or the footer is longer than `most_bytes`.

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
