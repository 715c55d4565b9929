"""From files to token ids, encoded once and kept, and to counts of which ids occur near each other."""

from costbank.corpus.counting import pair_weights
from costbank.corpus.docstrings import DEFAULT_PACKAGES, gather_docstrings
from costbank.corpus.encoded import CorpusInput, EncodedCorpus, token_counts
from costbank.corpus.encoding import Encoding, Sampling, encode_corpus, refuse_sampling
from costbank.corpus.pair_counts import PairCounts, count_pairs

__all__ = [
    "DEFAULT_PACKAGES",
    "CorpusInput",
    "EncodedCorpus",
    "Encoding",
    "PairCounts",
    "Sampling",
    "count_pairs",
    "encode_corpus",
    "gather_docstrings",
    "pair_weights",
    "refuse_sampling",
    "token_counts",
]
