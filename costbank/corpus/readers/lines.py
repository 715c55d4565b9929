"""Files of lines in blocks of a few megabytes, and the exact places of what is wrong in them."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from costbank.corpus.readers.foreign import conversion
from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.reading import Part
from costbank.corpus.readers.records import BadRecord
from costbank.corpus.readers.streams import open_stream
from costbank.encodings import encoding_fault

__all__ = ["Fault", "LineBlock", "is_blank", "line_blocks"]

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Fault:
    """A line that is not text, or a record in it that is not what it should be; `byte` is where in the line."""

    reason: str
    byte: int = 0
    hint: str = ""


@dataclass(frozen=True)
class LineBlock:
    """Whole lines of a file, which begin at `offset` of its text; `first_line` is None where lines are not counted."""

    file: CorpusFile
    data: bytes
    offset: int
    first_line: int | None

    def lines(self) -> list[str] | Iterator[str | Fault]:
        """The lines without their ends: a list where all are text, and otherwise one by one, with their faults.

        Files that were joined have byte-order marks in the middle; one that begins a line is skipped.
        """
        if b"\0" not in self.data:
            try:
                text = self.data.decode("utf-8").replace("\r\n", "\n")
            except UnicodeDecodeError:
                pass
            else:
                return (text.replace("\n\ufeff", "\n") if "\ufeff" in text else text).split("\n")
        return map(self._text_or_fault, self._byte_lines)

    def bad_record(self, line: int, fault: Fault) -> BadRecord:
        """The fault in a line of this block, counted from 0, with its place in the file."""
        place = f"offset {self.offset + self._starts[line] + fault.byte}"
        if self.file.compression != "none":
            place += " of its text"
        if self.first_line is not None:
            place += f" (line {self.first_line + line})"
        return BadRecord(self.file.shown, fault.reason, place, fault.hint)

    def _text_or_fault(self, line: bytes) -> str | Fault:
        mark = len(BOM_UTF8) if line.startswith(BOM_UTF8) else 0
        if (nul := line.find(b"\0")) >= 0:
            return self._fault("is not text: a NUL byte", nul)
        try:
            return line[mark:].decode("utf-8")
        except UnicodeDecodeError as error:
            byte = mark + error.start
            return self._fault(f"is not UTF-8: byte 0x{line[byte]:02x}", byte)

    def _fault(self, reason: str, byte: int) -> Fault:
        said, hint = self._encoding
        return Fault(said.format(reason), byte, hint)

    @cached_property
    def _encoding(self) -> tuple[str, str]:
        """What is said of a fault, `{}`, in a block that is not UTF-8, and how to convert it where that can be told."""
        said, encoding = encoding_fault(self.data, "{}")
        return said, f"convert it: {conversion(self.file, encoding)}" if encoding else "give UTF-8 text"

    @cached_property
    def _byte_lines(self) -> list[bytes]:
        return self.data.replace(b"\r\n", b"\n").split(b"\n")

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(line) + 1 for line in self.data.split(b"\n"))]


def line_blocks(file: CorpusFile, part: Part, whole_paragraphs: bool = False) -> Iterator[tuple[LineBlock, int]]:
    """A part of a file in blocks of whole lines, or of whole paragraphs, each with the stored bytes used up for it.

    A byte order mark at the start of the file is skipped.

    Raises:
        CorpusError: an archive is cut short or damaged.
    """
    offset, first_line, consumed = part.start, None if part.start else 1, 0
    with open_stream(file, part) as stream:
        while data := stream.read(_BLOCK_BYTES):
            pieces = [data]
            if not data.endswith(b"\n"):
                pieces.append(stream.readline())
            while whole_paragraphs and (line := stream.readline()):
                pieces.append(line)
                if is_blank(line):
                    break
            data = b"".join(pieces)
            mark = len(BOM_UTF8) if offset == 0 and data.startswith(BOM_UTF8) else 0
            used, consumed = stream.consumed - consumed, stream.consumed
            yield LineBlock(file, data[mark:] if mark else data, offset + mark, first_line), used
            offset += len(data)
            if first_line is not None:
                first_line += data.count(b"\n")
        if stream.consumed > consumed:
            yield LineBlock(file, b"", offset, first_line), stream.consumed - consumed


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing but white space, which has many forms in Unicode."""
    return line.isspace() or line.decode("utf-8", "replace").isspace()
