"""Random segmentations of a text: BPE-dropout, and sampling from the lattice of a unigram or BytePiece model."""
