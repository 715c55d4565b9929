"""One way to read every format of text: blocks of documents, and how much of the file they took."""

from collections.abc import Iterator

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.jsonl import read_jsonl
from costbank.corpus.readers.parquet import read_parquet
from costbank.corpus.readers.reading import WHOLE, Part, ReadOptions
from costbank.corpus.readers.records import BadRecords
from costbank.corpus.readers.text import read_text
from costbank.errors import UsageError

__all__ = ["read_documents"]

_READERS = {"text": read_text, "jsonl": read_jsonl, "parquet": read_parquet}


def read_documents(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part = WHOLE
) -> Iterator[tuple[list[str], int]]:
    """The documents of a file, or of a part of it, in blocks of a few megabytes.

    Each block comes with the stored bytes that were used up for it; over all parts these come to the file's size.
    Blank documents are left out. Records that cannot be read are given to `bad`.

    Raises:
        CorpusError: a bad record, where these are refused; a damaged file; a column that is missing.
        InputError: the file cannot be opened or read.
        MissingExtraError: a library that the format needs is not installed.
        UsageError: the file holds token ids.
    """
    if file.is_tokens:
        raise UsageError(f"{file.shown} holds token ids, and no text", "it needs no encoding")
    return _READERS[file.format](file, options, bad, part)
