"""From files to token ids: readers, documents, and the encoded cache."""

from costbank.corpus.cache import EncodedCorpus, EncodedFile, encode_corpus
from costbank.corpus.docstrings import DEFAULT_PACKAGES, gather_docstrings
from costbank.corpus.text import DocumentRule, read_documents

__all__ = [
    "DEFAULT_PACKAGES",
    "DocumentRule",
    "EncodedCorpus",
    "EncodedFile",
    "encode_corpus",
    "gather_docstrings",
    "read_documents",
]
