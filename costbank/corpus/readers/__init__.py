"""Find corpus files (from names, folders, patterns, URLs or standard input), and read documents or token ids."""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.corpus.readers.documents import DEFAULT_PART_SIZES, PartSizes, parts_of, read_documents
    from costbank.corpus.readers.formats import WHOLE, CorpusFile, FormatName, Part, index_of
    from costbank.corpus.readers.inputs import STANDARD_INPUT, find_files, stdin_spool
    from costbank.corpus.readers.reading import BadRecord, BadRecords, DocumentRule, OnError, ReadOptions
    from costbank.corpus.readers.streams import fetched, remote_version
    from costbank.corpus.readers.token_bins import TokenBin, check_token_bin, open_token_bin

__all__ = [
    "DEFAULT_PART_SIZES",
    "STANDARD_INPUT",
    "WHOLE",
    "BadRecord",
    "BadRecords",
    "CorpusFile",
    "DocumentRule",
    "FormatName",
    "OnError",
    "Part",
    "PartSizes",
    "ReadOptions",
    "TokenBin",
    "check_token_bin",
    "fetched",
    "find_files",
    "index_of",
    "open_token_bin",
    "parts_of",
    "read_documents",
    "remote_version",
    "stdin_spool",
]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        documents="DEFAULT_PART_SIZES PartSizes parts_of read_documents",
        inputs="STANDARD_INPUT find_files stdin_spool",
        formats="WHOLE CorpusFile FormatName Part index_of",
        reading="BadRecord BadRecords DocumentRule OnError ReadOptions",
        token_bins="TokenBin check_token_bin open_token_bin",
        streams="fetched remote_version",
    )
