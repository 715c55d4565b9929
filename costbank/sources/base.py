"""What every source of vectors gives to the pipeline: first a plan, once all is checked, then the vectors."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
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
    "given_tokenizer",
    "in_blocks",
    "mean_row",
    "plan_source",
    "row_ranges",
    "too_many_rows",
]

_MOST_PADDING = 2_048
"""Rows past the tokenizer's last token. Heads are padded to a multiple of 64 to 128 for each of up to 16 devices; the
most that is known of a public model is gpt-oss's 1,069. A small head has a token for at least every other row."""

RowBlocks = Iterable[Float32[np.ndarray, "rows dim"]]


@dataclass(frozen=True)
class SourceVectors:
    """Raw vectors, in the order of token ids, as they come.

    Attributes:
        vocab: the tokenizer's vocabulary with what the source learnt of it: counts, padding rows.
        blocks: all rows in order, in blocks of any number of rows; may be gone through more than once.
        facts: counts and measurements for the manifest.
        inputs: the files that the vectors depend on; called when all rows were read.
        reproducible: whether the same inputs and config give the same bytes again.
        origin: where a row comes from, for an error about it.
        unused_mean: the mean raw row of ids that no text ever uses, where there are such rows.
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
    """What a source is about to make, when everything that can be checked beforehand has been.

    Attributes:
        tokenizer: whose ids the rows are for.
        shape: number of rows (the tokenizer's ids, and padding rows if there are any), and their size.
        make: does the work.
        libraries: distributions whose versions decide the result, besides the tokenizer's.
        advice: what a reader of the bank's card should know of such vectors.
    """

    tokenizer: Tokenizer
    shape: tuple[int, int]
    make: Callable[[Progress], SourceVectors]
    libraries: tuple[str, ...] = ("numpy",)
    advice: str = ""


def plan_source(config: BuildConfig) -> SourcePlan:
    """Check what a config's source needs, and plan its work.

    Raises:
        CostbankError: an input is missing or unusable, a setting does not fit, or a library is not installed.
    """
    # The plan is next to the settings. It is imported only now, with the libraries that it needs.
    return import_module(f"{type(config).__module__.rpartition('.')[0]}.plan").plan(config)


def given_tokenizer(config: BuildConfig) -> Tokenizer:
    """The tokenizer that the config names.

    Raises:
        UsageError: it names none.
        InputNotFoundError, TokenizerError: as in `load_tokenizer`.
    """
    if config.tokenizer is None:
        raise UsageError("the setting tokenizer is needed", "give --tokenizer FILE")
    return load_tokenizer(config.tokenizer, config.tokenizer_kind)


def in_blocks(rows: Float32[np.ndarray, "vocab dim"], block_bytes: int = 8 << 20) -> list[np.ndarray]:
    """An array that is in memory as blocks; views, not copies."""
    return [rows[start:stop] for start, stop in row_ranges(len(rows), rows.shape[1] * rows.itemsize, block_bytes)]


def mean_row(blocks: RowBlocks) -> Float32[np.ndarray, "dim"] | None:
    """The mean of all finite rows, for rows of ids that nothing ever trained to be predicted; None where it has no
    direction, or there are no rows."""
    total, count = np.zeros(1), 0
    for block in blocks:
        finite = block[np.isfinite(block).all(axis=1)]
        total = total + finite.sum(axis=0, dtype=np.float64)
        count += len(finite)
    return (total / count).astype(np.float32) if count and total.any() else None


def too_many_rows(rows: int, tokens: int) -> bool:
    """Whether more rows have no token than any padding explains, so that the rows are hardly those of the tokens."""
    return rows - tokens > min(_MOST_PADDING, rows // 2)


def row_ranges(rows: int, row_bytes: int, block_bytes: int = 8 << 20) -> Iterator[tuple[int, int]]:
    """The rows in ranges of about so many bytes."""
    step = max(1, block_bytes // row_bytes)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
