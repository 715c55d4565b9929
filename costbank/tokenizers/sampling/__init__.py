"""Drawing a text's segmentation at random: BPE dropout, and sampling from unigram and BytePiece lattices."""
