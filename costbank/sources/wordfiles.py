"""Files of words and their vectors: word2vec's text and binary forms, GloVe's text.

Files of millions of words are read in one pass in which only the vectors that are asked for are parsed and kept. A word
may hold spaces (GloVe's 840B has such): a line's vector is its last fields.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Float32

from costbank.errors import InputError
from costbank.sources.matching import unmarked

__all__ = ["WordFile", "WordVectors", "open_word_file", "read_word_file"]

_SNIFFED_BYTES = 1 << 20
_MOST_DIM = 65_536
_LONGEST_WORD = 4_096
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
        return None if self.path.suffix == ".gz" else self.path.stat().st_size


@dataclass(frozen=True)
class WordVectors:
    """The rows of the words that were wanted, by each word's bytes, and how many words the file holds in all."""

    rows: dict[bytes, int]
    vectors: Float32[np.ndarray, "wanted dim"]
    words: int


def open_word_file(path: Path) -> WordFile:
    """Tell the layout from the first lines.

    Raises:
        InputError: the file is none of these.
    """
    try:
        with _opened(path) as file:
            head = file.read(_SNIFFED_BYTES)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}", "download it again") from None
    first, _, rest = head.partition(b"\n")
    fields = first.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        words, dim = map(int, fields)
        if 0 < dim <= _MOST_DIM and words:
            text = _numbers(rest.partition(b"\n")[0], dim) is not None
            return WordFile(path, "word2vec-text" if text else "word2vec-binary", dim, words)
    dim = len(fields) - 1
    while dim > 1 and _numbers(first, dim) is None:
        dim -= 1
    if dim > 1 and len(first) < len(head):
        return WordFile(path, "glove", dim, None)
    raise InputError(
        f"{path} is neither word2vec's text or binary form nor GloVe's text",
        "such a file begins with the numbers of words and dimensions, or with a word and its vector",
    )


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
            f"{file.path} says that it holds {file.words:,} words, and holds {words:,}", "download it again"
        )
    return WordVectors(rows, np.array(kept, np.float32).reshape(-1, file.dim), words)


_Words = Iterator[tuple[bytes, Callable[[], np.ndarray]]]


def _text_words(file: WordFile, advance: Callable[[int], None]) -> _Words:
    unreported = 0
    with _opened(file.path) as opened:
        for number, line in enumerate(opened, 1):
            unreported += len(line)
            if unreported >= _REPORT_BYTES:
                advance(unreported)
                unreported = 0
            if number == 1 and file.words is not None:
                continue
            fields = line.rsplit(maxsplit=file.dim)
            if len(fields) == file.dim and line[:1].isspace():
                fields.insert(0, b"")
            if not line.endswith(b"\n"):
                raise InputError(
                    f"{file.path} ends within line {number:,}", "download it again, or end that line if it is whole"
                )
            if len(fields) != file.dim + 1:
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
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _numbers(line: bytes, dim: int) -> np.ndarray | None:
    """The last `dim` fields of a line where all are numbers."""
    fields = line.rsplit(maxsplit=dim)[-dim:]
    try:
        return np.array([float(field) for field in fields]) if len(fields) == dim else None
    except ValueError:
        return None


def _parsed(file: WordFile, fields: list[bytes], number: int) -> np.ndarray:
    try:
        return np.array(fields, "S").astype(np.float32)
    except ValueError:
        raise _broken(file, number) from None


def _broken(file: WordFile, number: int) -> InputError:
    return InputError(
        f"{file.path} line {number:,} does not hold a word and {file.dim} numbers", "download or write the file again"
    )
