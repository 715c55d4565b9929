"""Files of words and their vectors: word2vec's text and binary forms, GloVe's text.

Files of millions of words are read in one pass in which only the vectors that are asked for are parsed and kept. A word
may hold spaces (GloVe's 840B has such): a line's vector is its last fields, as many as most of the first lines have.
A byte-order mark at the start is skipped, and gzip is told by the first bytes.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Float32

from costbank.encodings import without_mark
from costbank.errors import InputError
from costbank.sources.matching import unmarked
from costbank.sources.vectors.foreign import explain_text, refuse_foreign_vectors, refuse_other_rows

__all__ = ["WordFile", "WordVectors", "open_word_file", "read_word_file"]

_SNIFFED_BYTES = 1 << 20
_MOST_DIM = 65_536
_LONGEST_WORD = 4_096
_SNIFFED_LINES = 64
_TEXT_CONTROLS = b"\t\n\v\f\r"
_READ_BYTES = 1 << 20
_REPORT_BYTES = 1 << 22
_UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class WordFile:
    """What a file's beginning says: its layout, the vectors' size, and how many words where it has a header."""

    path: Path
    layout: Literal["word2vec-text", "word2vec-binary", "glove"]
    dim: int
    words: int | None

    @property
    def bytes(self) -> int | None:
        """How much there is to read; unknown for a compressed file."""
        return None if _is_gzip(self.path) else self.path.stat().st_size


@dataclass(frozen=True)
class WordVectors:
    """The rows of the words that were wanted, by each word's bytes, and how many words the file holds in all."""

    rows: dict[bytes, int]
    vectors: Float32[np.ndarray, "wanted dim"]
    words: int


def open_word_file(path: Path) -> WordFile:
    """Tell the layout from the first lines.

    Raises:
        InputError: the file is none of these, such as one of sparse vectors or of another tool, or its header does not
            agree with its lines.
    """
    try:
        with _opened(path) as file:
            head = file.read(_SNIFFED_BYTES)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}", "download it again") from None
    refuse_foreign_vectors(path, head)
    first, newline, rest = without_mark(head).partition(b"\n")
    header = _header(first)
    body = rest.split(b"\n")[:_SNIFFED_LINES] if header else [first, *rest.split(b"\n")[: _SNIFFED_LINES - 1]]
    body = body[:-1] or body if len(body) < _SNIFFED_LINES else body  # its last line may be cut, or be empty
    refuse_other_rows(path, body)
    dim = _common_dim(body)
    if header is None:
        if dim < 2 or not newline:
            raise explain_text(path, body)
        if _numeric_tail(body[0]) < dim:
            raise InputError(
                f"{path} line 1 is not a word and its vector, as the lines after it are", "remove that line: tail -n +2"
            )
        return WordFile(path, "glove", dim, None)
    words, said = header
    if dim == said:
        return WordFile(path, "word2vec-text", dim, words)
    if not _is_text(rest[:_LONGEST_WORD]):
        return WordFile(path, "word2vec-binary", said, words)
    if dim == 0:
        raise explain_text(path, body)
    raise InputError(
        f"{path} says in its first line that a word has {said:,} numbers, and its words have {dim:,}",
        f"correct that line: sed '1s/.*/{words} {dim}/' writes it so",
    )


def _header(line: bytes) -> tuple[int, int] | None:
    """The numbers of words and of dimensions, where a line is nothing else."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    words, dim = map(int, fields)
    return (words, dim) if words and 0 < dim <= _MOST_DIM else None


def _common_dim(lines: Sequence[bytes]) -> int:
    """How many numbers most lines end in, after a word; 0 where most end in none."""
    tails = Counter(_numeric_tail(line) for line in lines if line.strip())
    return max(tails, key=tails.__getitem__, default=0)


def _numeric_tail(line: bytes) -> int:
    """How many of the last fields are numbers; the first field is a word, whatever it looks like."""
    fields = line.split()
    count = 0
    while count < len(fields) - (not line[:1].isspace()) and _is_number(fields[-1 - count]):
        count += 1
    return count


def _is_text(data: bytes) -> bool:
    """Whether the beginning of a file is text; the float32s of a binary form hardly ever are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 4:
            return False
    return not any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in data)


def read_word_file(
    file: WordFile, wanted: Callable[[bytes], bool], advance: Callable[[int], None] = lambda _: None
) -> WordVectors:
    """Read the vectors of wanted words; of a word that comes twice, the first.

    Leading marks `▁` and `Ġ` of a word are read as the spaces that they stand for.

    Args:
        file: from `open_word_file`.
        wanted: whether a word's vector is to be kept.
        advance: told how many bytes of the file were read.

    Raises:
        InputError: the file is cut short, or a line does not hold the vector's numbers.
    """
    rows: dict[bytes, int] = {}
    kept: list[np.ndarray] = []
    words = 0
    read = _binary_words if file.layout == "word2vec-binary" else _text_words
    try:
        for stored, vector in read(file, advance):
            words += 1
            word = unmarked(stored)
            if word not in rows and wanted(word):
                rows[word] = len(kept)
                kept.append(vector())
    except _UNREADABLE as error:
        raise InputError(f"{file.path} cannot be read after word {words:,}: {error}", "download it again") from None
    if file.words is not None and words != file.words:
        raise InputError(
            f"{file.path} says that it holds {file.words:,} words, and holds {words:,}", _miscount_hint(file, words)
        )
    return WordVectors(rows, np.array(kept, np.float32).reshape(-1, file.dim), words)


def _miscount_hint(file: WordFile, words: int) -> str:
    if file.layout == "word2vec-binary":
        return "download it again, or write it as text; words that hold spaces cannot be told apart in the binary form"
    return f"download it again; if only its first line is wrong, sed '1s/.*/{words} {file.dim}/' corrects that"


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
                    f"{file.path} ends within line {number:,}", "download it again, or end that line if it is whole"
                )
            if len(fields) != file.dim + 1 or (b" " in fields[0] and _holds_vector(fields[0], file.dim)):
                raise _broken(file, number)
            yield fields[0], lambda fields=fields, number=number: _parsed(file, fields[1:], number)
    advance(unreported)


def _binary_words(file: WordFile, advance: Callable[[int], None]) -> _Words:
    """word, space, float32s, and in some files a line feed before the next word."""
    size = 4 * file.dim
    with _opened(file.path) as opened:
        opened.readline()
        buffer, at = b"", 0
        while True:
            while (space := buffer.find(b" ", at)) < 0 or len(buffer) < space + 1 + size:
                more = opened.read(_READ_BYTES + size)
                if not more or (space < 0 and len(buffer) - at > _LONGEST_WORD):
                    return
                advance(len(more))
                buffer, at = buffer[at:] + more, 0
            word, vector = buffer[at:space].lstrip(b"\n"), buffer[space + 1 : space + 1 + size]
            at = space + 1 + size
            yield word, lambda vector=vector: np.frombuffer(vector, "<f4")


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _holds_vector(word: bytes, dim: int) -> bool:
    """Whether what stands before a line's last numbers is not a word, but begins a longer vector."""
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
        f"{file.path} line {number:,} does not hold a word and {file.dim} numbers", "download or write the file again"
    )
