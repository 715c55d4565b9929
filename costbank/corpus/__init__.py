"""Encode text files as token ids, once, and cache the result."""

from costbank.corpus.encoded import EncodedCorpus, token_counts
from costbank.corpus.encoding import EncodingOptions, Sampling, encode_corpus, refuse_sampling

__all__ = ["EncodedCorpus", "EncodingOptions", "Sampling", "encode_corpus", "refuse_sampling", "token_counts"]
