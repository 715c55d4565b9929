"""From files to token ids, encoded once and kept."""

from costbank.corpus.encoded import EncodedCorpus, token_counts
from costbank.corpus.encoding import EncodingOptions, Sampling, encode_corpus, refuse_sampling

__all__ = ["EncodedCorpus", "EncodingOptions", "Sampling", "encode_corpus", "refuse_sampling", "token_counts"]
