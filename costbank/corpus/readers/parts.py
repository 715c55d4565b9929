"""Cutting a file into parts that can be read side by side, and that together are the whole file."""

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.lines import is_blank
from costbank.corpus.readers.parquet import row_group_bytes
from costbank.corpus.readers.reading import WHOLE, DocumentRule, Part

__all__ = ["parts_of"]

_LEAST_PART_BYTES = 4 << 20
_MOST_PART_BYTES = 256 << 20
_PARTS = 16


def parts_of(file: CorpusFile, rule: DocumentRule) -> tuple[Part, ...]:
    """The parts of a file: their documents, one part after the other, are those of the whole file.

    What the parts are depends on nothing but the file. Plain text and JSON lines are cut where a line, or a paragraph,
    begins, and Parquet between row groups. An archive, and a file that is not on this machine, is one part.

    Raises:
        CorpusError: a Parquet file is damaged.
        InputError: the file cannot be read.
    """
    if file.is_remote or file.is_tokens or file.compression != "none":
        return (WHOLE,)
    size = min(max(file.size // _PARTS, _LEAST_PART_BYTES), _MOST_PART_BYTES)
    if file.format == "parquet":
        cuts = list(_group_cuts(row_group_bytes(file), size))
    else:
        with file.path.open("rb") as handle:
            whole_paragraphs = file.format == "text" and rule == "paragraph"
            cuts = list(_byte_cuts(handle, file.size, size, whole_paragraphs))
    return tuple(Part(start, stop) for start, stop in pairwise(cuts)) or (WHOLE,)


def _byte_cuts(handle: BinaryIO, size: int, part_bytes: int, whole_paragraphs: bool) -> Iterator[int]:
    """Where parts begin, and the end of the file. Nothing is read twice, however long a document is."""
    reached = 0
    yield 0
    for position in range(part_bytes, size, part_bytes):
        if position <= reached:
            continue
        handle.seek(position - 1)
        handle.readline()
        while whole_paragraphs and (line := handle.readline()) and not is_blank(line):
            pass
        reached = min(handle.tell(), size)
        if reached < size:
            yield reached
    yield size


def _group_cuts(group_bytes: list[int], part_bytes: int) -> Iterator[int]:
    gathered = 0
    yield 0
    for group, count in enumerate(group_bytes[:-1], 1):
        gathered += count
        if gathered >= part_bytes:
            yield group
            gathered = 0
    if group_bytes:
        yield len(group_bytes)
