"""The source `cooccurrence`: exact co-occurrence counts of a tokenized corpus, weighted and factorized."""
