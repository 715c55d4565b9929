"""Text files as documents: the lines of a file, or its paragraphs between blank lines."""

from collections.abc import Iterator
from itertools import chain

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.lines import Fault, LineBlock, line_blocks
from costbank.corpus.readers.reading import Part, ReadOptions
from costbank.corpus.readers.records import BadRecords

__all__ = ["read_text"]


def read_text(file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part) -> Iterator[tuple[list[str], int]]:
    """The documents of a UTF-8 text file in blocks of a few megabytes, each with the stored bytes used up for it.

    Lines end in LF or CRLF. A document is a line that is not blank, or, by the rule `paragraph`, what stands
    between blank lines, its line ends kept. A byte order mark at the start is skipped. A line that is not text is a
    bad record, and so is the whole paragraph that it is in.

    Raises:
        CorpusError: a line is not text, and bad records are refused; an archive is cut short or damaged.
    """
    documents = _paragraphs if options.rule == "paragraph" else _lines
    for block, used in line_blocks(file, part, whole_paragraphs=options.rule == "paragraph"):
        yield documents(block, bad), used


def _lines(block: LineBlock, bad: BadRecords) -> list[str]:
    lines = block.lines()
    if isinstance(lines, list):
        return [line for line in lines if line and not line.isspace()]
    documents: list[str] = []
    for number, line in enumerate(lines):
        if isinstance(line, Fault):
            bad.add(block.bad_record(number, line))
        elif line and not line.isspace():
            documents.append(line)
    return documents


def _paragraphs(block: LineBlock, bad: BadRecords) -> list[str]:
    documents: list[str] = []
    paragraph: list[str] = []
    first_fault: tuple[int, Fault] | None = None
    for number, line in enumerate(chain(block.lines(), [""])):
        if isinstance(line, Fault):
            first_fault = first_fault or (number, line)
        elif line and not line.isspace():
            paragraph.append(line)
        else:
            if first_fault is not None:
                bad.add(block.bad_record(*first_fault))
            elif paragraph:
                documents.append("\n".join(paragraph))
            paragraph, first_fault = [], None
    return documents
