"""An export format, and one export in progress."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from costbank.bank import Bank
from costbank.progress import Progress

__all__ = ["CellType", "ExportFormat", "ExportJob"]

CellType = Literal["F32", "F16"]

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class ExportJob:
    """One export under way.

    Attributes:
        bank: what is exported.
        target: the staged file to make, or the staged folder to fill, which is there.
        companion: the staged file next to it, for formats that have one.
        tokenizer: the bytes of a tokenizer.json whose ids are the bank's, for formats that need one; else empty.
        tokens: how many ids that tokenizer.json names.
        dtype: element type of a cost matrix.
        progress: where the writing reports.
    """

    bank: Bank
    target: Path
    companion: Path
    tokenizer: bytes
    tokens: int
    dtype: CellType
    progress: Progress

    @property
    def title(self) -> str:
        """The bank's name and id; a directory's name that is not text is made one."""
        return f"{self.bank.name}@{self.bank.id}".encode("utf-8", "replace").decode()

    def row_blocks(
        self, ids: Int64[np.ndarray, "rows"] | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, "block"], Float32[np.ndarray, "block dim"]]]:
        """Ids and their rows, some megabytes at a time, with progress; all rows in the order of ids by default."""
        total = self.bank.size if ids is None else len(ids)
        block_rows = max(1, _BLOCK_ELEMENTS // self.bank.dim)
        with self.progress.step("write vectors", total, "rows") as step:
            for start in range(0, total, block_rows):
                stop = min(start + block_rows, total)
                part = np.arange(start, stop) if ids is None else ids[start:stop]
                yield part, self.bank.vectors(slice(start, stop) if ids is None else part)
                step.advance(len(part))


@dataclass(frozen=True)
class ExportFormat:
    """A format of `costbank export`.

    Attributes:
        name: what a person calls it.
        opens: what reads the result, for people.
        write: fills the target.
        size: about how many bytes that takes, without the tokenizer.json.
        folder: whether the target is a folder rather than a file.
        companion: the suffix of the file next to the target; empty if there is none.
        whole: whether rows without a vector are in it, as zeros.
        with_tokenizer: whether it holds a tokenizer.json.
        reads: tensor files of the bank that go into it.
        library: what must be installed to write it.
        of_pairs: whether it has a value for each pair of tokens: its size is told in any case, and its dtype chosen.
    """

    name: str
    opens: str
    write: Callable[[ExportJob], None]
    size: Callable[[Bank, CellType], int]
    folder: bool = False
    companion: str = ""
    whole: bool = True
    with_tokenizer: bool = False
    reads: tuple[str, ...] = ("vectors.safetensors", "tokens.safetensors")
    library: str = ""
    of_pairs: bool = False
