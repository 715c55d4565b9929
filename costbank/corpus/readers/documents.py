"""The documents of a corpus file of any text format, and the parts of a file that can be read in parallel."""

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from costbank.corpus.readers.formats import WHOLE, CorpusFile, Part
from costbank.corpus.readers.lines import is_blank, read_jsonl, read_text
from costbank.corpus.readers.parquet import read_parquet, row_group_bytes
from costbank.corpus.readers.reading import BadRecords, DocumentRule, ReadOptions
from costbank.errors import UsageError

__all__ = ["parts_of", "read_documents"]

_READERS = {"text": read_text, "jsonl": read_jsonl, "parquet": read_parquet}
_LEAST_PART_BYTES = 4 << 20
_MOST_PART_BYTES = 256 << 20
_PARTS = 16


def read_documents(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part = WHOLE
) -> Iterator[tuple[list[str], int]]:
    """The documents of a file, or of a part of it, in blocks of a few megabytes.

    Each block comes with the number of stored bytes it took; over all parts these add up to the file's size.
    Blank documents are skipped. Unreadable records go to `bad`.

    Raises:
        CorpusError: a bad record, where these are refused; a damaged file; a missing column.
        InputError: the file cannot be opened or read.
        MissingExtraError: a library that the format needs is not installed.
        UsageError: the file holds token ids.
    """
    if file.is_tokens:
        raise UsageError(f"{file.shown} holds token ids, not text", "it needs no encoding")
    return _READERS[file.format](file, options, bad, part)


def parts_of(file: CorpusFile, rule: DocumentRule) -> tuple[Part, ...]:
    """The parts of a file, in order; together their documents are those of the whole file.

    The parts depend on the file alone. Plain text and JSON lines are cut where a line, or a paragraph,
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
