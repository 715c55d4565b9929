"""NumPy files: the rows as they are, and the matrix of all costs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from costbank.bank import Bank
from costbank.element_types import ELEMENT_TYPES
from costbank.export.base import CellType, ExportJob
from costbank.export.listing import listing_bytes, write_listing

__all__ = ["costs_size", "rows_size", "write_costs", "write_rows"]

_BLOCK_CELLS = 1 << 24
_MOST_ROWS = 1_024
_TILE_COLUMNS = 4_096


def write_rows(job: ExportJob) -> None:
    """float32 [vocab, dim], row = token id, and the vocabulary next to it."""
    _write_npy(job.target, (job.bank.size, job.bank.dim), np.dtype("<f4"), (rows for _, rows in job.row_blocks()))
    write_listing(job.companion, job.bank.vocab, range(job.bank.size))


def write_costs(job: ExportJob) -> None:
    """[vocab, vocab] of the costs of `Bank.cost_matrix`, a band of rows in memory at a time."""
    size = job.bank.size
    with job.progress.step("write costs", size * size, "costs") as told:

        def bands() -> Iterator[np.ndarray]:
            step = max(1, min(_MOST_ROWS, _BLOCK_CELLS // size))
            for start in range(0, size, step):
                ids = np.arange(start, min(start + step, size))
                band = np.empty((len(ids), size), ELEMENT_TYPES[job.dtype].dtype)
                for left in range(0, size, _TILE_COLUMNS):
                    columns = np.arange(left, min(left + _TILE_COLUMNS, size))
                    band[:, left : left + _TILE_COLUMNS] = job.bank.cost_matrix(ids, columns)
                    told.advance(len(ids) * len(columns))
                yield band

        _write_npy(job.target, (size, size), ELEMENT_TYPES[job.dtype].dtype, bands())


def rows_size(bank: Bank, dtype: CellType) -> int:
    return 128 + bank.size * bank.dim * 4 + listing_bytes(bank.vocab)


def costs_size(bank: Bank, dtype: CellType) -> int:
    return 128 + bank.size * bank.size * ELEMENT_TYPES[dtype].dtype.itemsize


def _write_npy(path: Path, shape: tuple[int, int], dtype: np.dtype, blocks: Iterator[np.ndarray]) -> None:
    with path.open("xb") as file:
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, description)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data.cast("B"))
