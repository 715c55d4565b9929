"""Encode text files as token ids, once, and cache the result."""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.corpus.encoded import EncodedCorpus, token_counts
    from costbank.corpus.encoding import EncodingOptions, Sampling, encode_corpus, refuse_sampling

__all__ = ["EncodedCorpus", "EncodingOptions", "Sampling", "encode_corpus", "refuse_sampling", "token_counts"]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        encoded="EncodedCorpus token_counts",
        encoding="EncodingOptions Sampling encode_corpus refuse_sampling",
    )
