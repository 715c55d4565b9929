"""Read plain text, with one document per line or paragraph, and JSON lines, with one document in a field of each line.

Files are read in blocks. Unreadable lines are reported with their exact offsets.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

from costbank.corpus.readers.formats import CorpusFile, Part
from costbank.corpus.readers.reading import BadRecord, BadRecords, ReadOptions
from costbank.corpus.readers.streams import open_stream
from costbank.encodings import TextFault, decoded_text, encoding_fault

__all__ = ["is_blank", "read_jsonl", "read_text"]

_MAX_KEYS_SHOWN = 8
_MISSING = object()
_FIELD_HINT = "name the text field with --set corpus.text_field=…"
_parse = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class _Fault:
    """A problem with a line or the record in it; `byte` is its byte offset in the line."""

    reason: str
    byte: int = 0
    hint: str = ""


@dataclass(frozen=True)
class _LineBlock:
    """Complete lines of a file, starting at `offset` in its text; `first_line` is None if lines are not counted."""

    file: CorpusFile
    data: bytes
    offset: int
    first_line: int | None

    def lines(self) -> list[str] | Iterator[str | _Fault]:
        """The lines without their line ends: a list if all are valid text, else an iterator that includes faults.

        Concatenated files can have byte-order marks in the middle, so a mark at the start of any line is skipped.
        """
        if b"\0" not in self.data:
            try:
                text = self.data.decode("utf-8").replace("\r\n", "\n")
            except UnicodeDecodeError:
                pass
            else:
                return (text.replace("\n\ufeff", "\n") if "\ufeff" in text else text).split("\n")
        return map(self._text_or_fault, self._byte_lines)

    def bad_record(self, line: int, fault: _Fault) -> BadRecord:
        """A record of the fault with its position in the file; `line` is counted from 0 in this block."""
        position = f"offset {self.offset + self._starts[line] + fault.byte}"
        if self.file.compression != "none":
            position += " of its decompressed text"
        if self.first_line is not None:
            position += f" (line {self.first_line + line})"
        return BadRecord(self.file.shown, fault.reason, position, fault.hint)

    def _text_or_fault(self, line: bytes) -> "str | _Fault":
        text = decoded_text(line)
        if not isinstance(text, TextFault):
            return text
        template, hint = self._encoding
        return _Fault(template.format(text.reason), text.byte, hint)

    @cached_property
    def _encoding(self) -> tuple[str, str]:
        """For a block that is not UTF-8: a template for messages, where `{}` stands for the fault, and a hint."""
        return encoding_fault(self.data, "{}", self.file.conversion)

    @cached_property
    def _byte_lines(self) -> list[bytes]:
        return self.data.replace(b"\r\n", b"\n").split(b"\n")

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(line) + 1 for line in self.data.split(b"\n"))]


def read_text(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part, block_bytes: int
) -> Iterator[tuple[list[str], int]]:
    """Read the documents of a UTF-8 text file; see `costbank.corpus.readers.documents.read_documents`.

    Lines end in LF or CRLF. A document is a line that is not blank; with the rule `paragraph`, it is the text between
    blank lines, with its line ends. A byte order mark at the start is skipped. A line that is not text is a bad record;
    with the rule `paragraph`, its whole paragraph is a bad record.

    Raises:
        CorpusError: a line is not text, and `bad` refuses bad records; compressed data ends too early or is damaged.
    """
    documents = _paragraphs if options.rule == "paragraph" else _lines
    for block, stored_bytes in _line_blocks(file, part, block_bytes, whole_paragraphs=options.rule == "paragraph"):
        yield documents(block, bad), stored_bytes


def _lines(block: _LineBlock, bad: BadRecords) -> list[str]:
    lines = block.lines()
    if isinstance(lines, list):
        return [line for line in lines if line and not line.isspace()]
    documents: list[str] = []
    for number, line in enumerate(lines):
        if isinstance(line, _Fault):
            bad.add(block.bad_record(number, line))
        elif line and not line.isspace():
            documents.append(line)
    return documents


def _paragraphs(block: _LineBlock, bad: BadRecords) -> list[str]:
    documents: list[str] = []
    paragraph: list[str] = []
    first_fault: tuple[int, _Fault] | None = None
    for number, line in enumerate(chain(block.lines(), [""])):
        if isinstance(line, _Fault):
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


def read_jsonl(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part, block_bytes: int
) -> Iterator[tuple[list[str], int]]:
    """Read the documents of a file of JSON lines; see `costbank.corpus.readers.documents.read_documents`.

    Blank lines and blank texts are skipped. A line is a bad record if it is not a JSON object, or if its text field
    is missing, is not a string or is not valid Unicode.

    Raises:
        CorpusError: a record is bad, and `bad` refuses bad records; compressed data ends too early or is damaged.
    """
    for block, stored_bytes in _line_blocks(file, part, block_bytes):
        yield _texts(block, options.text_field, bad), stored_bytes


def _texts(block: _LineBlock, field: str, bad: BadRecords) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(block.lines()):
        if isinstance(line, _Fault):
            text = line
        elif (text := _fast_text(line, field)) is None:
            if not line or line.isspace():
                continue
            text = _text_or_fault(line, field)
        if isinstance(text, _Fault):
            bad.add(block.bad_record(number, text))
        elif text and not text.isspace():
            texts.append(text)
    return texts


def _fast_text(line: str, field: str) -> str | None:
    """The text of a simple line; None if `_text_or_fault` must check the line."""
    try:
        record, end = _parse(line)
        text = record[field] if field in record else _field(record, field)
    except (TypeError, ValueError, RecursionError):
        return None
    is_simple = end == len(line) and isinstance(text, str) and (text.isascii() or "\\u" not in line)
    return text if is_simple else None


def _text_or_fault(line: str, field: str) -> str | _Fault:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return _Fault(f"has a line that is not JSON ({error.msg})", len(line[: error.pos].encode()))
    except (ValueError, RecursionError):
        return _Fault("has a line of JSON whose numbers are too large or whose nesting is too deep")
    if not isinstance(record, dict):
        return _Fault("has a line that is JSON but not an object")
    text = _field(record, field)
    if text is _MISSING:
        keys = ", ".join(list(record)[:_MAX_KEYS_SHOWN]) or "none"
        return _Fault(f"has an object without the field {field!r} (its keys: {keys})", hint=_FIELD_HINT)
    if not isinstance(text, str):
        return _Fault(f"has {_json_kind(text)} instead of a string in the field {field!r}", hint=_FIELD_HINT)
    if not text.isascii() and "\\u" in line:
        try:
            text.encode()
        except UnicodeEncodeError:
            return _Fault(f"has an unpaired surrogate in the field {field!r}")
    return text


def _field(value: Any, name: str) -> Any:
    """The value of the key `name`, or else of the path with dots; `_MISSING` if there is neither."""
    if not isinstance(value, dict):
        return _MISSING
    if name in value:
        return value[name]
    outer, dot, inner = name.partition(".")
    return _field(value[outer], inner) if dot and outer in value else _MISSING


def _json_kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", dict: "an object", list: "an array"}
    return kinds.get(type(value), "a number")


def _line_blocks(
    file: CorpusFile, part: Part, block_bytes: int, whole_paragraphs: bool = False
) -> Iterator[tuple[_LineBlock, int]]:
    """Blocks of complete lines or paragraphs of a part, each with the number of stored bytes that were read for it.

    A byte order mark at the start of the file is skipped.

    Raises:
        CorpusError: compressed data ends too early or is damaged.
    """
    offset, first_line, consumed = part.start, None if part.start else 1, 0
    with open_stream(file, part) as stream:
        while data := stream.read(block_bytes):
            pieces = [data]
            if not data.endswith(b"\n"):
                pieces.append(stream.readline())
            while whole_paragraphs and (line := stream.readline()):
                pieces.append(line)
                if is_blank(line):
                    break
            data = b"".join(pieces)
            mark = len(BOM_UTF8) if offset == 0 and data.startswith(BOM_UTF8) else 0
            stored_bytes, consumed = stream.consumed - consumed, stream.consumed
            yield _LineBlock(file, data[mark:] if mark else data, offset + mark, first_line), stored_bytes
            offset += len(data)
            if first_line is not None:
                first_line += data.count(b"\n")
        if stream.consumed > consumed:
            yield _LineBlock(file, b"", offset, first_line), stream.consumed - consumed


def is_blank(line: bytes) -> bool:
    """Whether a line has only white space, as Unicode defines it."""
    return line.isspace() or line.decode("utf-8", "replace").isspace()
