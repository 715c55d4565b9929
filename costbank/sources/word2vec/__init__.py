"""The source `word2vec`: Word2Vec trained on a tokenized corpus."""
