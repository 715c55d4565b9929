"""What every kind of tokenizer offers to the rest of costbank."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int64, Integer

from costbank.vocab import Vocab

__all__ = ["Tokenizer"]


class Tokenizer(Protocol):
    """A tokenizer read from a file.

    Attributes:
        kind: the format's name, such as `sentencepiece`.
        sha256: of the file. Two files of one vocabulary may encode differently, so encoded text is kept under this.
        vocab: what the ids stand for.
    """

    kind: str
    sha256: str
    vocab: Vocab

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        """Encode texts, without adding special tokens.

        Returns:
            The ids of all texts, one after the other, and where each text ends in them.
        """
        ...
