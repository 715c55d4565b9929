"""Read the documents of a corpus file of any text format, and cut files into parts that are read in parallel."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from costbank.corpus.readers.formats import WHOLE, CorpusFile, Part
from costbank.corpus.readers.lines import is_blank, read_jsonl, read_text
from costbank.corpus.readers.parquet import read_parquet, row_group_bytes
from costbank.corpus.readers.reading import BadRecords, DocumentRule, ReadOptions
from costbank.errors import UsageError

__all__ = ["DEFAULT_PART_SIZES", "PartSizes", "parts_of", "read_documents"]

_READERS = {"text": read_text, "jsonl": read_jsonl, "parquet": read_parquet}
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class PartSizes:
    """How a file is cut into parts: about `parts` of equal size, unless these would be too small or too large.

    Attributes:
        parts: the number of parts.
        min_bytes: the minimum size of a part, in stored bytes.
        max_bytes: the maximum size of a part, in stored bytes; its last document can exceed it.
    """

    parts: int = 16
    min_bytes: int = 4 << 20
    max_bytes: int = 256 << 20

    def part_bytes(self, file_bytes: int) -> int:
        """The size of a part of a file of `file_bytes` bytes."""
        return min(max(file_bytes // self.parts, self.min_bytes), self.max_bytes)


DEFAULT_PART_SIZES = PartSizes()


def read_documents(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part = WHOLE, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[list[str], int]]:
    """Read the documents of a file, or of a part of it, in blocks. Blank documents are skipped.

    Args:
        file: a file of text, JSON lines or Parquet.
        options: what counts as a document.
        bad: collects unreadable records.
        part: the part to read.
        block_bytes: the approximate size of a block of text. A block contains only whole documents.

    Yields:
        The documents of a block, and the number of stored bytes that were read for it. Over all parts, these numbers
        add up to the size of the file.

    Raises:
        CorpusError: a record is bad, and `bad` refuses bad records; the file is damaged; a column is missing.
        InputError: the file cannot be opened or read.
        MissingExtraError: a library that the format needs is not installed.
        UsageError: the file holds token ids.
    """
    if file.is_tokens:
        raise UsageError(f"{file.shown} holds token ids, not text", "name a text file")
    return _READERS[file.format](file, options, bad, part, block_bytes)


def parts_of(file: CorpusFile, rule: DocumentRule, sizes: PartSizes = DEFAULT_PART_SIZES) -> tuple[Part, ...]:
    """Cut a file into parts, in order; together the parts have the same documents as the file.

    The parts depend only on the file and the arguments, not on the machine. Text and JSON lines are cut at the start of
    a line or paragraph, and Parquet between row groups. A compressed or remote file is a single part.

    Raises:
        CorpusError: a Parquet file is damaged.
        InputError: the file cannot be read.
    """
    if file.is_remote or file.is_tokens or file.compression != "none":
        return (WHOLE,)
    part_bytes = sizes.part_bytes(file.size)
    if file.format == "parquet":
        cuts = list(_group_cuts(row_group_bytes(file), part_bytes))
    else:
        with file.path.open("rb") as handle:
            whole_paragraphs = file.format == "text" and rule == "paragraph"
            cuts = list(_byte_cuts(handle, file.size, part_bytes, whole_paragraphs))
    return tuple(Part(start, stop) for start, stop in pairwise(cuts)) or (WHOLE,)


def _byte_cuts(handle: BinaryIO, size: int, part_bytes: int, whole_paragraphs: bool) -> Iterator[int]:
    """The start of each part, and the end of the file. No byte is read twice, even in documents longer than a part."""
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
    """The first row group of each part, and the number of row groups."""
    total = 0
    yield 0
    for group, count in enumerate(group_bytes[:-1], 1):
        total += count
        if total >= part_bytes:
            yield group
            total = 0
    if group_bytes:
        yield len(group_bytes)
