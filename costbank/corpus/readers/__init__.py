"""From what a person names (files, folders, patterns, URLs, standard input) to documents, or to token ids."""

from costbank.corpus.readers.documents import parts_of, read_documents
from costbank.corpus.readers.formats import WHOLE, CorpusFile, FormatName, Part, index_of
from costbank.corpus.readers.inputs import STANDARD_INPUT, find_files, stdin_spool
from costbank.corpus.readers.reading import BadRecord, BadRecords, DocumentRule, OnError, ReadOptions
from costbank.corpus.readers.streams import fetched, remote_version
from costbank.corpus.readers.token_bins import TokenBin, check_token_bin, open_token_bin

__all__ = [
    "STANDARD_INPUT",
    "WHOLE",
    "BadRecord",
    "BadRecords",
    "CorpusFile",
    "DocumentRule",
    "FormatName",
    "OnError",
    "Part",
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
