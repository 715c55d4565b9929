"""An export format, and the job that a format's writer gets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from costbank.bank import Bank
from costbank.bank.layout import TOKENS, VECTORS
from costbank.export.tokenizer_json import TokenizerJson
from costbank.progress import Progress

__all__ = ["BlockSizes", "CellType", "ExportFormat", "ExportJob"]

CellType = Literal["F32", "F16"]


@dataclass(frozen=True)
class BlockSizes:
    """How much of a matrix is in memory at a time.

    Attributes:
        row_elements: elements of a block of rows.
        cost_elements: elements of a band of rows of the cost matrix.
        cost_columns: columns of the cost matrix that are computed at a time.
    """

    row_elements: int = 1 << 22
    cost_elements: int = 1 << 24
    cost_columns: int = 4_096


@dataclass(frozen=True)
class ExportJob:
    """What a format's writer gets.

    Attributes:
        bank: the bank to export.
        target: the staged file to create, or the empty staged folder to fill.
        companion: the staged file next to `target`, for formats with one.
        tokenizer: the bank's tokenizer, for formats with one; else empty.
        dtype: the element type of a cost matrix.
        progress: reports the writing.
        sizes: how much is in memory at a time.
    """

    bank: Bank
    target: Path
    companion: Path
    tokenizer: TokenizerJson
    dtype: CellType
    progress: Progress
    sizes: BlockSizes = BlockSizes()

    @property
    def title(self) -> str:
        """The bank's name and id; bytes of a directory name that are not UTF-8 become question marks."""
        return f"{self.bank.name}@{self.bank.id}".encode("utf-8", "replace").decode()

    def row_blocks(
        self, ids: Int64[np.ndarray, "rows"] | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, "block"], Float32[np.ndarray, "block dim"]]]:
        """Blocks of token ids and their rows, of all tokens by default; reports progress."""
        total = self.bank.size if ids is None else len(ids)
        block_rows = max(1, self.sizes.row_elements // self.bank.dim)
        with self.progress.step("write vectors", total, "rows") as step:
            for start in range(0, total, block_rows):
                stop = min(start + block_rows, total)
                block_ids = np.arange(start, stop) if ids is None else ids[start:stop]
                yield block_ids, self.bank.vectors(slice(start, stop) if ids is None else block_ids)
                step.advance(len(block_ids))


@dataclass(frozen=True)
class ExportFormat:
    """A format of `costbank export`.

    Attributes:
        name: the name on the command line.
        write: writes the files of a job.
        estimate_bytes: returns an upper estimate of the export's size in bytes, without the tokenizer.json.
        is_folder: whether the export is a folder rather than a file.
        companion_suffix: the suffix of the file next to the exported one; empty if there is none.
        has_all_tokens: whether tokens without a vector are included, as zeros.
        has_tokenizer: whether the export contains a tokenizer.json.
        is_cost_matrix: whether the export contains the cost of each pair of tokens. If so, its size is always reported,
            and its element type can be chosen.
        bank_files: the bank's tensor files that are read.
        library: the library that is needed; empty if NumPy is enough.
    """

    name: str
    write: Callable[[ExportJob], None]
    estimate_bytes: Callable[[Bank, CellType], int]
    is_folder: bool = False
    companion_suffix: str = ""
    has_all_tokens: bool = True
    has_tokenizer: bool = False
    is_cost_matrix: bool = False
    bank_files: tuple[str, ...] = (VECTORS, TOKENS)
    library: str = ""
