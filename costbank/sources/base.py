"""What every source of vectors gives to the pipeline."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from costbank.config import BuildConfig
from costbank.progress import Progress
from costbank.tokenizers import Tokenizer
from costbank.vocab import Vocab

__all__ = ["InputFile", "Source", "SourceVectors"]


@dataclass(frozen=True)
class InputFile:
    """A file that vectors were made from, for the manifest: name, size in bytes, sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SourceVectors:
    """Raw vectors, in the order of token ids, as they come.

    Attributes:
        vocab: the tokenizer's vocabulary with what the source learnt of it: statuses and counts.
        dim: vector size.
        blocks: all rows in order, in blocks of any number of rows; read once.
        facts: counts and measurements for the manifest.
        inputs: the files that the vectors depend on.
        reproducible: whether the same inputs and config give the same bytes again.
    """

    vocab: Vocab
    dim: int
    blocks: Iterable[Float32[np.ndarray, "rows dim"]]
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[InputFile, ...] = ()
    reproducible: bool = True


class Source(Protocol):
    """Makes vectors for a tokenizer by its section of the config."""

    libraries: tuple[str, ...]
    """Distributions whose versions decide the result."""

    def check(self, config: BuildConfig) -> None:
        """Refuse what cannot work, before anything that takes long.

        Raises:
            CostbankError: an input is missing or unusable.
        """
        ...

    def vectors(self, config: BuildConfig, tokenizer: Tokenizer, progress: Progress) -> SourceVectors:
        """Do the work."""
        ...

    def dim(self, config: BuildConfig) -> int:
        """The vector size that the work will give, for an estimate of the space it takes."""
        ...
