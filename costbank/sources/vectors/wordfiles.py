"""Read files of words and vectors: word2vec's text and binary formats, and GloVe's text format.

Files of millions of words are read in one pass that parses only the vectors of requested words. A word can contain
spaces, as in GloVe 840B, so the vector of a line is its last fields; their number is that of most of the first lines. A
byte-order mark at the start is skipped, and gzip is detected by the first bytes.
"""

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from costbank.encodings import without_mark
from costbank.errors import InputError
from costbank.sources.matching import unmarked
from costbank.sources.vectors.foreign import explain_text, refuse_foreign_vectors, refuse_other_rows

__all__ = ["WordFile", "WordVectors", "open_word_file", "read_word_file"]

_SNIFF_BYTES = 1 << 20
_MAX_DIM = 65_536
_MAX_WORD_BYTES = 4_096
_SNIFF_LINES = 64
_TEXT_CONTROLS = b"\t\n\v\f\r"
_READ_BYTES = 1 << 20
_REPORT_BYTES = 1 << 22
_UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class WordFile:
    """A file of words: its format, the size of its vectors, and the number of words in its header, if it has one."""

    path: Path
    layout: Literal["word2vec-text", "word2vec-binary", "glove"]
    dim: int
    words: int | None

    @property
    def bytes(self) -> int | None:
        """The number of bytes to read; None for a compressed file."""
        return None if _is_gzip(self.path) else self.path.stat().st_size


@dataclass(frozen=True)
class WordVectors:
    """The vectors of the requested words, the row of each word by its bytes, and the number of words in the file."""

    rows: dict[bytes, int]
    vectors: Float32[np.ndarray, "requested dim"]
    words: int


def open_word_file(path: Path) -> WordFile:
    """Detect the format from the first lines.

    Raises:
        InputError: the format is unsupported, such as sparse vectors, or the header does not match the lines.
    """
    try:
        with _opened(path) as file:
            head = file.read(_SNIFF_BYTES)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}", "download it again") from None
    refuse_foreign_vectors(path, head)
    first, newline, remainder = without_mark(head).partition(b"\n")
    header = _header(first)
    lines = remainder.split(b"\n")
    body = lines[:_SNIFF_LINES] if header else [first, *lines[: _SNIFF_LINES - 1]]
    body = body[:-1] or body if len(body) < _SNIFF_LINES else body  # the last line may be incomplete or empty
    refuse_other_rows(path, body)
    dim = _common_dim(body)
    if header is None:
        if dim < 2 or not newline:
            raise explain_text(path, body)
        if _numeric_tail(body[0]) < dim:
            raise InputError(
                f"line 1 of {path} is not a word and a vector, unlike the next lines", "remove that line: tail -n +2"
            )
        return WordFile(path, "glove", dim, None)
    words, header_dim = header
    if dim == header_dim:
        return WordFile(path, "word2vec-text", dim, words)
    if not _is_text(remainder[:_MAX_WORD_BYTES]):
        return WordFile(path, "word2vec-binary", header_dim, words)
    if dim == 0:
        raise explain_text(path, body)
    raise InputError(
        f"according to its first line, {path} has {header_dim:,} numbers per word, but its words have {dim:,}",
        f"correct the first line: sed '1s/.*/{words} {dim}/'",
    )


def _header(line: bytes) -> tuple[int, int] | None:
    """The numbers of words and dimensions in a header; None for any other line."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    words, dim = map(int, fields)
    return (words, dim) if words and 0 < dim <= _MAX_DIM else None


def _common_dim(lines: Sequence[bytes]) -> int:
    """The most frequent number of numeric fields at the end of a line."""
    tails = Counter(_numeric_tail(line) for line in lines if line.strip())
    return max(tails, key=tails.__getitem__, default=0)


def _numeric_tail(line: bytes) -> int:
    """The number of numeric fields at the end of a line; the first field is a word, even if it is numeric."""
    fields = line.split()
    count = 0
    while count < len(fields) - (not line[:1].isspace()) and _is_number(fields[-1 - count]):
        count += 1
    return count


def _is_text(data: bytes) -> bool:
    """Whether the start of a file is text; the float32 values of a binary file almost never look like text."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 4:
            return False
    return not any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in data)


def read_word_file(
    file: WordFile, wanted: Callable[[bytes], bool], advance: Callable[[int], None] = lambda _: None
) -> WordVectors:
    """Read the vectors of requested words. If a word occurs several times, its first vector is used.

    A leading `▁` or `Ġ` of a word is read as a space.

    Args:
        file: the result of `open_word_file`.
        wanted: whether a word is requested.
        advance: called with the number of bytes read since the last call.

    Raises:
        InputError: the file is truncated, a line does not hold a word and a vector, or the number of words differs
            from the header.
    """
    rows: dict[bytes, int] = {}
    vectors: list[np.ndarray] = []
    words = 0
    read = _binary_words if file.layout == "word2vec-binary" else _text_words
    try:
        for stored, vector in read(file, advance):
            words += 1
            word = unmarked(stored)
            if word not in rows and wanted(word):
                rows[word] = len(vectors)
                vectors.append(vector())
    except _UNREADABLE as error:
        raise InputError(f"{file.path} cannot be read after word {words:,}: {error}", "download it again") from None
    if file.words is not None and words != file.words:
        raise InputError(
            f"according to its first line, {file.path} has {file.words:,} words, but it has {words:,}",
            _miscount_hint(file, words),
        )
    return WordVectors(rows, np.array(vectors, np.float32).reshape(-1, file.dim), words)


def _miscount_hint(file: WordFile, words: int) -> str:
    if file.layout == "word2vec-binary":
        return "download it again, or convert it to text; words with spaces are ambiguous in the binary format"
    return f"download it again; if only its first line is wrong, correct it: sed '1s/.*/{words} {file.dim}/'"


_Words = Iterator[tuple[bytes, Callable[[], np.ndarray]]]


def _text_words(file: WordFile, advance: Callable[[int], None]) -> _Words:
    unreported = 0
    with _opened(file.path) as opened:
        for number, line in enumerate(opened, 1):
            unreported += len(line)
            if unreported >= _REPORT_BYTES:
                advance(unreported)
                unreported = 0
            if number == 1:
                if file.words is not None:
                    continue
                line = without_mark(line)
            fields = line.rsplit(maxsplit=file.dim)
            if len(fields) == file.dim and line[:1].isspace():
                fields.insert(0, b"")
            if not line.endswith(b"\n"):
                raise InputError(
                    f"{file.path} ends within line {number:,}",
                    "download it again, or add a line feed if the line is complete",
                )
            if len(fields) != file.dim + 1 or (b" " in fields[0] and _holds_vector(fields[0], file.dim)):
                raise _broken(file, number)
            yield fields[0], lambda fields=fields, number=number: _parsed(file, fields[1:], number)
    advance(unreported)


def _binary_words(file: WordFile, advance: Callable[[int], None]) -> _Words:
    """Each word is followed by a space and its float32 values, and in some files by a line feed."""
    size = 4 * file.dim
    with _opened(file.path) as opened:
        opened.readline()
        buffer, position = b"", 0
        while True:
            while (space := buffer.find(b" ", position)) < 0 or len(buffer) < space + 1 + size:
                more = opened.read(_READ_BYTES + size)
                if not more or (space < 0 and len(buffer) - position > _MAX_WORD_BYTES):
                    return
                advance(len(more))
                buffer, position = buffer[position:] + more, 0
            word, vector = buffer[position:space].lstrip(b"\n"), buffer[space + 1 : space + 1 + size]
            position = space + 1 + size
            yield word, lambda vector=vector: np.frombuffer(vector, "<f4")


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _holds_vector(word: bytes, dim: int) -> bool:
    """Whether the text before the vector of a line is the start of a longer vector, not a word."""
    return _numeric_tail(word) > max(2, dim // 4)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parsed(file: WordFile, fields: list[bytes], number: int) -> np.ndarray:
    try:
        return np.array(fields, "S").astype(np.float32)
    except ValueError:
        raise _broken(file, number) from None


def _broken(file: WordFile, number: int) -> InputError:
    return InputError(
        f"line {number:,} of {file.path} is not a word and {file.dim} numbers", "download or write the file again"
    )
