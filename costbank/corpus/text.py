"""Text files as documents: the lines of a file, or its paragraphs between blank lines."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from costbank.files import text_blocks

__all__ = ["DocumentRule", "read_documents"]

DocumentRule = Literal["line", "paragraph"]


def read_documents(path: Path, rule: DocumentRule) -> Iterator[tuple[list[str], int]]:
    """The documents of a UTF-8 text file in blocks of a few megabytes, each with the bytes read for it.

    Lines end in LF or CRLF. A document is a line that is not blank, or, by the rule `paragraph`, what stands
    between blank lines, its line ends kept. A byte order mark at the start is skipped.

    Raises:
        CorpusError: the file is not UTF-8 text; the message names the offset of the first bad byte.
    """
    for text, size in text_blocks(path, whole_paragraphs=rule == "paragraph"):
        lines = text.split("\n")
        if rule == "line":
            yield [line for line in lines if line and not line.isspace()], size
        else:
            yield list(_paragraphs(lines)), size


def _paragraphs(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in chain(lines, [""]):
        if line and not line.isspace():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
