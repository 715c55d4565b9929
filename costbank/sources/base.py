"""The interface between sources and the pipeline: a plan, made after all checks, and then the vectors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from costbank.errors import UsageError
from costbank.files import InputFile
from costbank.progress import Progress
from costbank.settings import BuildConfig
from costbank.tokenizers import Tokenizer, load_tokenizer
from costbank.vocab import Vocab

__all__ = [
    "InputFile",
    "RowBlocks",
    "SourcePlan",
    "SourceVectors",
    "configured_tokenizer",
    "in_blocks",
    "mean_row",
    "row_ranges",
    "too_many_rows",
]

_MAX_PADDING = 2_048
"""The maximum number of rows after the tokenizer's last token. Heads are padded to a multiple of 64 to 128 for each of
up to 16 devices; the largest known padding of a public model is 1,069 rows, in gpt-oss. In a small head, at least every
second row has a token."""

RowBlocks = Iterable[Float32[np.ndarray, "rows dim"]]


@dataclass(frozen=True)
class SourceVectors:
    """Raw vectors in the order of token ids.

    Attributes:
        vocab: the tokenizer's vocabulary, with counts and padding rows if the source adds them.
        blocks: all rows in order, in blocks of any number of rows; can be iterated more than once.
        facts: counts and measurements for the manifest.
        inputs: returns the files that the vectors depend on; called after all rows are read.
        reproducible: whether equal inputs and configs give equal bytes.
        origin: where the rows come from, for error messages.
        unused_mean: the mean raw row of ids that no text uses. None: there are no such rows, or their mean is zero.
    """

    vocab: Vocab
    blocks: RowBlocks
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: Callable[[], tuple[InputFile, ...]] = tuple
    reproducible: bool = True
    origin: str = "the source's vectors"
    unused_mean: Float32[np.ndarray, "dim"] | None = None


@dataclass(frozen=True)
class SourcePlan:
    """The plan of a source, made after all checks that are possible before the work.

    Attributes:
        tokenizer: the tokenizer that the rows belong to.
        shape: the number of rows (token ids and any padding rows), and the size of a row.
        make: computes the vectors.
        libraries: distributions, besides the tokenizer's, on which the vectors depend.
        advice: a note about the vectors of this source for the bank's card.
    """

    tokenizer: Tokenizer
    shape: tuple[int, int]
    make: Callable[[Progress], SourceVectors]
    libraries: tuple[str, ...] = ("numpy",)
    advice: str = ""


def configured_tokenizer(config: BuildConfig) -> Tokenizer:
    """The tokenizer that the config names.

    Raises:
        UsageError: the config names no tokenizer.
        InputNotFoundError, TokenizerError: see `load_tokenizer`.
    """
    if config.tokenizer is None:
        raise UsageError("the setting tokenizer is missing", "name a tokenizer with --tokenizer FILE")
    return load_tokenizer(config.tokenizer, config.tokenizer_kind)


def in_blocks(rows: Float32[np.ndarray, "vocab dim"], block_bytes: int = 8 << 20) -> list[np.ndarray]:
    """Split an array into blocks, which are views, not copies."""
    return [rows[start:stop] for start, stop in row_ranges(len(rows), rows.shape[1] * rows.itemsize, block_bytes)]


def mean_row(blocks: RowBlocks) -> Float32[np.ndarray, "dim"] | None:
    """The mean of all finite rows; None if there are no rows or the mean is zero."""
    total, count = np.zeros(1), 0
    for block in blocks:
        finite = block[np.isfinite(block).all(axis=1)]
        total = total + finite.sum(axis=0, dtype=np.float64)
        count += len(finite)
    return (total / count).astype(np.float32) if count and total.any() else None


def too_many_rows(rows: int, tokens: int) -> bool:
    """Whether padding cannot explain all rows without a token, so the rows probably belong to another tokenizer."""
    return rows - tokens > min(_MAX_PADDING, rows // 2)


def row_ranges(rows: int, row_bytes: int, block_bytes: int = 8 << 20) -> Iterator[tuple[int, int]]:
    """Split rows into ranges of about `block_bytes` bytes."""
    step = max(1, block_bytes // row_bytes)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
