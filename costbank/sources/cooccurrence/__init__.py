"""The source `cooccurrence`: exact window counts of a tokenized corpus, weighted and factorized."""
